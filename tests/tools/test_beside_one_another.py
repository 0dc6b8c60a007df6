"""How `tools/check` has tests run beside one another."""

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "pyproject.toml"
GROUPED = """
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(12))
def test_its_process(number):
    Path(str(os.getpid())).touch()
"""
HANGING = """
import threading

def test_that_passes():
    pass

def test_that_hangs():
    threading.Event().wait()
"""


def _run(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What two processes make of these tests, with the project's own configuration."""
    (folder / "test_these.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    given = ["-c", str(CONFIG), "--rootdir", str(folder), *options, "test_these.py"]
    return subprocess.run([*command, *given], check=False, cwd=folder, capture_output=True, text=True, timeout=120)


def test_tests_of_one_group_run_in_one_process(tmp_path: Path) -> None:
    """A group shares its guests and what it has explored; pytest 9.2 with pytest-xdist 3.8 silently spreads it."""
    ran = _run(tmp_path, GROUPED)
    assert ran.returncode == 0, ran.stdout
    assert "12 passed" in ran.stdout
    assert len([entry for entry in tmp_path.iterdir() if entry.name.isdecimal()]) == 1


def test_a_test_that_hangs_fails_and_is_told(tmp_path: Path) -> None:
    """And where it was; otherwise all that continuous integration says is that its time was over."""
    ran = _run(tmp_path, HANGING, "-o", "faulthandler_timeout=10")
    assert ran.returncode != 0
    assert "crashed while running 'test_these.py::test_that_hangs'" in ran.stdout
    assert "in test_that_hangs" in ran.stderr
