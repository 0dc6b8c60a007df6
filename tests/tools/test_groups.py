"""How `tools/check` has tests run beside one another."""

import subprocess
import sys
from pathlib import Path

TESTS = """
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(12))
def test_its_process(number):
    Path(str(os.getpid())).touch()
"""


def test_tests_of_one_group_run_in_one_process(tmp_path: Path) -> None:
    """A group shares its guests and what it has explored; pytest 9.2 with pytest-xdist 3.8 silently spreads it."""
    (tmp_path / "test_grouped.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    ran = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert "12 passed" in ran.stdout
    assert len([entry for entry in tmp_path.iterdir() if entry.name.isdecimal()]) == 1
