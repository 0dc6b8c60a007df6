"""What a run ran on."""

from pathlib import Path

from pagetide.machine.versions import sources_digest


def test_any_file_of_the_package_makes_another_digest(tmp_path: Path) -> None:
    """What is in a file counts, and where it is; what is no Python does not."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text("a = 1\n")
    first = sources_digest(tmp_path)
    assert sources_digest(tmp_path) == first
    (tmp_path / "notes.txt").write_text("nothing")
    assert sources_digest(tmp_path) == first
    (tmp_path / "inner" / "one.py").write_text("a = 2\n")
    second = sources_digest(tmp_path)
    (tmp_path / "inner" / "one.py").rename(tmp_path / "one.py")
    assert len({first, second, sources_digest(tmp_path)}) == 3
