"""`pagetide record` as a person runs it."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.machine.tracing.kernel_files import OwnKernelFiles
from pagetide.workload.stream_file import load_stream

pytestmark = [pytest.mark.jit, pytest.mark.xdist_group("tracefs")]

EATS = [sys.executable, "-I", "-S", "-c", "x = bytearray(20 << 20)"]


@pytest.mark.alone  # whether events are lost is a matter of time
@pytest.mark.usefixtures("tracefs")
def test_a_command_is_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file with its stream, in at most three bytes an operation; an account for people, and one for programs."""
    out, account = tmp_path / "trace.parquet", tmp_path / "account.json"
    given = ["record", "--out", str(out), "--json", str(account), "--room", "64MiB", "--accept", "1", "--", *EATS]
    assert cli.main(given) == 0
    stream = load_stream(out)
    assert stream.allocated_bytes(0, stream.nr_operations) > 20 << 20
    text = capfd.readouterr().out
    assert " events, 0 lost, 0 gaps: " in text
    each = re.search(r"(\d+) operations of .* in .*trace.parquet, ([\d.]+) bytes each", text)
    assert each is not None
    assert int(each[1]) == stream.nr_operations
    if stream.nr_operations > 5000:  # otherwise most of the file is what any file has
        assert float(each[2]) <= 3
    told = json.loads(account.read_text())
    assert told["fit"]["allocations"] > 0
    assert told["lost"] == 0
    assert set(told["before"]) == set(told["after"]) >= {"free_blocks", "listed_pages", "free_by_type"}


@pytest.mark.usefixtures("tracefs")
def test_a_recording_that_does_not_fit_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With nothing accepted, what the recorder's own snapshots take is too much: status 1, and no stream."""
    out = tmp_path / "trace.parquet"
    assert cli.main(["record", "--out", str(out), "--room", "64MiB", "--accept", "0", "--", "true"]) == 1
    error = capfd.readouterr().err
    assert re.search(r"^pagetide: the recording is refused: .*% of the pages that the kernel counts as", error)
    assert not out.exists()


@pytest.mark.usefixtures("tracefs")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_recorder_that_is_terminated_keeps_what_it_has(number: str, tmp_path: Path) -> None:
    """A signal ends a recording as Ctrl-C does: with a stream, and with nothing left in the kernel."""
    out = tmp_path / "trace.parquet"
    script = f"import os, signal; os.kill(os.getppid(), signal.{number}); x = bytearray(20 << 20)"
    options = ["record", "--out", str(out), "--room", "64MiB", "--accept", "1", "--"]
    words = [sys.executable, "-m", "pagetide.cli", *options, sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the recording was ended by a signal" in done.stdout
    assert load_stream(out).nr_operations > 0
    with contextlib.closing(OwnKernelFiles()) as files:
        left = [path.name for path in (files.root / "instances").glob("pagetide-[0-9]*")]
    assert [name for name in left if not Path(f"/proc/{name.split('-')[1]}").exists()] == []


@pytest.mark.usefixtures("tracefs")
def test_a_recording_that_ran_full_is_a_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says why it ended, and keeps what it has."""
    out = tmp_path / "trace.parquet"
    given = ["record", "--out", str(out), "--room", "64KiB", "--rest", "0.2", "--accept", "1", "--", *EATS]
    assert cli.main(given) == 0
    assert "the recording was ended when 64 KiB were full" in capfd.readouterr().out
    assert load_stream(out).nr_operations > 0


@pytest.mark.usefixtures("tracefs")
def test_what_nohup_ignores_ends_no_recording(tmp_path: Path) -> None:
    """SIGHUP that was ignored before is ignored."""
    script = "import os, signal; os.kill(os.getppid(), signal.SIGHUP)"
    options = ["record", "--out", str(tmp_path / "trace.parquet"), "--accept", "1", "--"]
    words = [sys.executable, "-m", "pagetide.cli", *options, sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(["nohup", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ended by a signal" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--seconds 5 -- true", "a command is recorded to its end: --seconds is for none, --rest for how much longer"),
        ("--rest 5", "--rest and --everything go with a command"),
        ("--seconds -1", "a recording takes 0 to 86400 s, not -1"),
        ("--accept 2", "--accept is a share, 0 to 1, not 2"),
        ("--room much", "'much' is not a size"),
        ("--ram 1GiB", "ram is for --guest"),
        ("--guest qemu --seconds 5", "seconds does not go with --guest"),
        ("--guest qemu -- true", "COMMAND does not go with --guest"),
        ("--guest qemu --bursts 0", "there must be at least 1 burst, not 0"),
        ("--guest uml", "kernels for User-Mode Linux are built without trace events: --guest qemu has them"),
        ("--out /nowhere/trace.parquet", "there is no folder /nowhere to write the stream to"),
    ],
)
def test_bad_arguments_are_a_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and nothing is recorded."""
    assert cli.main(["record", *arguments.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("folder_for_guests")
def test_a_guest_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the defaults: the file of 100 MiB is there, page by page, and all fits together."""
    out = tmp_path / "guest.parquet"
    assert cli.main(["record", "--guest", "qemu", "--out", str(out)]) == 0
    stream = load_stream(out)
    assert stream.nr_operations > 2 * (100 << 20 >> 12)
    assert stream.peak_bytes > 100 << 20
    assert "0.00% of the events were lost" in capsys.readouterr().out
