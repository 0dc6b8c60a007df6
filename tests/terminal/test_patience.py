"""What a person sees while a command loads."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            time.sleep(1.5)
sys.meta_path.insert(0, Slow())
sys.argv[1:] = {arguments!r}
from pagetide.cli import main
sys.exit(main())
"""


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine on which loading takes long."""
    script = SLOW.format(arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.alone
def test_a_command_that_loads_for_long_says_so_within_a_second() -> None:
    """On standard error, and before its own words; one that answers at once, and help, say nothing of it."""
    script = SLOW.format(arguments=["run", "--order", "11"])
    start_s = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        first_s = time.monotonic() - start_s
        rest = process.stderr.read()
    assert first == "loading; a first run also compiles kernels, which takes up to a minute\n"
    assert first_s < 1.4  # of which a Python that starts takes some tenths, and the message comes at 0.7
    assert rest == "pagetide: the order must be from 0 to 10, not 11\n"
    for arguments in (["run", "--help"], ["--version"], ["ctl", "walk"]):
        assert "loading" not in ran(*arguments).stderr


def test_a_daemon_says_it_as_its_log_does(tmp_path: Path) -> None:
    """Whoever reads the log line by line finds one more event."""
    err = ran("serve", "--socket", str(tmp_path / "nowhere" / "vm.sock")).stderr
    first, *_, last = err.splitlines()
    assert first.startswith("time=")
    assert 'level=info event="loading; ' in first
    assert "there is no folder" in last
