"""What the clinic's tests need: guests' files and programs, found once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.packages import GuestParts, QemuProgram, find_linux, find_qemu, find_uml, guests_folder
from tests.clinic.casebook import CASEBOOK, Casebook, Entry
from tests.clinic.patient import Daemon
from tests.mark_all import mark_all
from tests.needed import lacking
from tests.real_guests import real_guests

_NOTED, _QEMU = "clinic's entry", "clinic's QEMU"
_told = Casebook()
_passed: list[str] = []

pytest_itemcollected = mark_all(pytest.mark.jit)  # real kernels run no kernels of ours


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write the table of all cases; for `make clinic`, which names this folder."""
    parser.addoption("--clinic-table", type=Path, default=None, help="write the clinic's cases to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is another case of evidence that is read elsewhere, too, is for `make clinic` only."""
    if config.getoption("--clinic-table", default=None) is None:
        rare = [item for item in items if item.get_closest_marker("rare") is not None]
        items[:] = [item for item in items if item not in rare]
        config.hook.pytest_deselected(items=rare)


@pytest.fixture(autouse=True)
def case(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is noted from now on is this test's, and is told to the process that writes the table."""
    CASEBOOK.test, CASEBOOK.entries = request.node.name, []
    yield
    request.node.user_properties += [(_NOTED, list(entry)) for entry in CASEBOOK.entries]
    request.node.user_properties += [(_QEMU, list(qemu)) for qemu in CASEBOOK.qemus.items()]


@pytest.fixture(autouse=True)
def time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """How soon a daemon or a monitor answers beside other tests is not what the clinic is about."""
    monkeypatch.setattr("pagetide.operate.gather._DAEMON_MAX_S", 20.0)
    for module in ("gather", "host.monitor"):
        monkeypatch.setattr(f"pagetide.operate.{module}.ASK_MAX_S", 20.0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Whether a test passed, and what it noted, from whichever process it ran in."""
    name = report.nodeid.rpartition("::")[2].partition("@")[0]
    if report.failed:
        _told.failed(name)
    elif report.when == "call" and report.passed:
        _passed.append(name)
    elif report.when == "teardown":
        _told.entries += [Entry(*noted) for key, noted in report.user_properties if key == _NOTED]  # type: ignore[misc]
        _told.qemus.update(qemu for key, qemu in report.user_properties if key == _QEMU)  # type: ignore[misc]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if it is wanted."""
    path = session.config.getoption("--clinic-table", default=None)
    if path is not None and not hasattr(session.config, "workerinput"):
        _told.write(path, [name for name in _passed if not _told.has_failed(name)])


@pytest.fixture(scope="session")
def uml() -> GuestParts:
    """A User-Mode Linux that runs here."""
    return find_uml()


@pytest.fixture(scope="session")
def linux() -> GuestParts:
    """A kernel for QEMU."""
    return find_linux()


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("installed", marks=real_guests(2)),
        pytest.param("newer", marks=[real_guests(3), pytest.mark.rare]),
    ],
)
def qemu(request: pytest.FixtureRequest) -> QemuProgram:
    """The installed QEMU, and for `make clinic` the newer one of `make setup-guests`, too."""
    found = find_qemu(generic=False)
    if request.param == "newer":
        newer = guests_folder() / "bin" / "qemu-system-x86_64"
        if not newer.is_file():
            lacking("make setup-guests unpacks a newer QEMU")
        found = find_qemu(newer, generic=False)
    CASEBOOK.qemus[request.param] = found.version
    return found


@pytest.fixture(scope="session")
def installed() -> QemuProgram:
    """One QEMU, for what is the same with any."""
    return find_qemu(generic=False)


@pytest.fixture(scope="session")
def attachable() -> QemuProgram:
    """A QEMU that can have our balloon."""
    try:
        return find_qemu(generic=True)
    except ConfigError as error:
        lacking(str(error))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A `pagetide serve` for one guest."""
    with Daemon(tmp_path) as daemon:
        yield daemon
