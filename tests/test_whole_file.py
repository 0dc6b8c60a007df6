"""Files that are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from pagetide.whole_file import TargetError, UnwrittenError, check_writable, write_whole, written_whole

pytestmark = pytest.mark.jit  # no kernel is called


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """Whoever fails half-way has changed nothing."""
    path = tmp_path / "table.csv"
    path.write_text("old\n")

    def fail_half_way() -> None:
        with written_whole(path) as file:
            file.write("new, but not")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_of_the_file() -> None:
    """The system's error names no file; ours does."""
    with pytest.raises(UnwrittenError, match=r"^/dev/full cannot be written: No space left on device$"):
        write_whole(Path("/dev/full"), b"x")


def test_mode_links_and_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    """A file that is replaced keeps its mode, a link still leads to it, and a new one has what umask leaves."""
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_whole(link, b"one\r\ntwo\n")
    assert link.is_symlink()
    assert path.read_bytes() == b"one\r\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "new") as file:
            file.write("a\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "it is a folder"),
        ("/nowhere/at/all", "there is no folder /nowhere/at"),
        ("/proc/none", "cannot be written"),
    ],
)
def test_a_target_is_looked_at_before_the_work(path: str, why: str) -> None:
    """What cannot be written is known at once."""
    with pytest.raises(TargetError, match=why):
        check_writable(Path(path), "it")


def test_missing_folders_are_no_fault_of_who_makes_them(tmp_path: Path) -> None:
    """The nearest folder that there is decides; looking leaves nothing."""
    check_writable(tmp_path / "a/b/c.json", "it", makes_folders=True)
    assert list(tmp_path.iterdir()) == []
