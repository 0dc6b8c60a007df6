"""What tests of real guests need: a folder for them, and a QEMU that attaches them to our balloon."""

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.packages import GuestParts, QemuProgram, find_qemu, find_uml, find_umls
from tests.needed import lacking


@pytest.fixture
def folder_for_guests(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have this test's guests in a folder of their own, by which they are told from others on this machine."""
    tmp_path_factory.getbasetemp()  # pytest's own is not to be made in there
    with tempfile.TemporaryDirectory(prefix="pagetide-test-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        # Linux begins a pass 2 s after a free: a guest or host that has not run meanwhile is no quiet one.
        monkeypatch.setattr("pagetide.machine.linux.machine.SETTLED_AFTER_S", 5.5)
        monkeypatch.setattr("pagetide.machine.linux.machine.HELD_AFTER_S", 9.0)
        yield
        monkeypatch.undo()


@pytest.fixture
def time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give processes that are to end by themselves the time for it on a busy machine."""
    for module in ("live.processes", "live.machine", "linux.guest", "linux.machine", "linux.balloon_host"):
        monkeypatch.setattr(f"pagetide.machine.{module}.STOP_MAX_S", 30.0)


@functools.cache
def _umls() -> tuple[GuestParts, ...]:
    return tuple(find_umls())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that wants a User-Mode Linux with each that runs on this machine."""
    if "uml" in metafunc.fixturenames:
        found: list[GuestParts | None] = [*_umls()]
        names = [f"uml-{parts.release}" for parts in _umls()]
        metafunc.parametrize("uml", found or [None], ids=names or ["uml-none"], indirect=True)


@pytest.fixture
def uml(request: pytest.FixtureRequest) -> GuestParts:
    """A User-Mode Linux that runs here; where there is none, the test fails and says why."""
    return request.param or find_uml()


@pytest.fixture(scope="session")
def attachable() -> QemuProgram:
    """A QEMU with the device that attaches our balloon."""
    given = os.environ.get("PAGETIDE_QEMU")
    try:
        return find_qemu(Path(given) if given else None, generic=True)
    except ConfigError as error:
        lacking(str(error))
