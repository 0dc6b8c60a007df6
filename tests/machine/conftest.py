"""A folder for the guests of a test."""

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def folder_for_guests(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have this test's guests in a folder of their own, by which they are told from others on this machine."""
    tmp_path_factory.getbasetemp()  # pytest's own is not to be made in there
    with tempfile.TemporaryDirectory(prefix="pagetide-test-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield
        monkeypatch.undo()
