"""What holds for every test: hypothesis's profile, and nothing left behind."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pagetide.huge_tmpfs import huge_tmpfs_file
from pagetide.memory.guest_ram import Backing
from tests.needed import lacking

settings.register_profile("local", deadline=None, print_blob=True)
# Continuous integration judges the change, not the draw: the same examples each time. New ones are found locally.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


class Failures:
    """Shows each failure when it comes, too: of a run that is ended from outside nothing else is left."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One test's step is over, here or in another process."""
        if report.failed:
            self._terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}\n")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Processes that a run is spread over have no terminal."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(terminal))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that neither run has: those for plain Python only that are left out of the run as plain Python."""
    for item in items:
        only = [mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")]
        if item.get_closest_marker("jit") and any("NUMBA_DISABLE_JIT=1 only" in reason for reason in only):
            raise pytest.UsageError(f"{item.nodeid} is run neither with JIT off nor with JIT on")


def _set_aside() -> None:
    """Have the garbage collector look at what there is now for a last time.

    A full collection of what is there after all imports takes 0.16 s, which a loop in this process charges to the guest
    whose turn it is: more than one may use at once.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Before the first test."""
    _set_aside()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of each file."""
    if nextitem is not None and nextitem.path != item.path:
        _set_aside()


_left_open: set[int] = set()
"""What failed tests left open: that it gets closed at some time is not the fault of the test that runs then."""


_ENDS_S = 30.0
"""For threads that are about to end: one that closes another's memory frees all of it, and may have to wait to run."""


def _open_fds() -> dict[int, str]:
    """This process's descriptors and what they are; the listing's own one fails to be read, and is left out.

    So are matplotlib's fonts, which it keeps open once it has drawn something.
    """
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if "/matplotlib/mpl-data/fonts/" not in target:
            found[int(entry.name)] = target
    return found


def _has_children() -> bool:
    """Whether a child process is running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a descriptor is open, a thread runs or a child process exists that did not before."""
    fds, threads, children = _open_fds(), set(threading.enumerate()), _has_children()
    yield
    until_s = time.monotonic() + _ENDS_S
    for thread in set(threading.enumerate()) - threads:  # before descriptors: it may be closing some
        thread.join(max(0.0, until_s - time.monotonic()))
    left = _open_fds()
    if left.keys() != fds.keys():
        gc.collect()  # what only a reference cycle held is reported by Python itself, as a ResourceWarning
        left = _open_fds()
    new = {fd: left[fd] for fd in left.keys() - fds.keys()}
    gone = fds.keys() - left.keys() - _left_open
    _left_open.update(new)
    assert not new, f"the test left descriptors open: {new}"
    assert not gone, "the test closed descriptors that were not its own"
    assert set(threading.enumerate()) <= threads, "the test left threads running"
    assert children or not _has_children(), "the test left a child process"


@pytest.fixture(scope="session")
def hugetmpfs() -> None:
    """Skip the test where a huge tmpfs cannot be had: not root, or a sandbox or kernel without. CI must have it."""
    try:
        os.close(huge_tmpfs_file(2 << 20))
    except OSError as error:
        lacking(f"no huge tmpfs here ({error.strerror})")


@pytest.fixture(scope="session", params=["memfd", "hugetmpfs"])
def backing(request: pytest.FixtureRequest) -> Backing:
    """Each backing that this machine has."""
    name: Backing = request.param
    if name == "hugetmpfs":
        request.getfixturevalue("hugetmpfs")
    return name


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test without root's capabilities."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)
