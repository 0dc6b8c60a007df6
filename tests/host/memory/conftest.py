"""Huge pages for tests: reserved beside those that others on this machine have, and given back."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needed import lacking

_2_MIB = Path("/proc/sys/vm/nr_hugepages")
_1_GIB = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
_PAGES = 8


def _reserve(place: Path, more: int) -> bool:
    """Change the number of huge pages that the system keeps, beside others who do; whether it has done so."""
    with (Path(tempfile.gettempdir()) / "pagetide-test-huge-pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int(place.read_text())
        place.write_text(str(before + more))
        if int(place.read_text()) == before + more:
            return True
        place.write_text(str(before))
        return False


@pytest.fixture(scope="session")
def huge_pages() -> Iterator[None]:
    """Eight huge pages of 2 MiB beyond those that others have. CI must have them."""
    try:
        enough = _2_MIB.exists() and _reserve(_2_MIB, _PAGES)
    except OSError:
        lacking("huge pages cannot be reserved here (vm.nr_hugepages): not root, or a kernel without")
    if not enough:
        lacking("the system has no huge pages left (vm.nr_hugepages)")
    try:
        yield
    finally:
        _reserve(_2_MIB, -_PAGES)


@pytest.fixture
def a_gigantic_page() -> Iterator[None]:
    """A page of 1 GiB, where the processor has those, and a GiB of RAM in one piece is free."""
    if not _1_GIB.exists():
        pytest.skip("this processor, or its kernel, has no pages of 1 GiB")
    try:
        enough = _reserve(_1_GIB, 1)
    except OSError as error:
        pytest.skip(f"no page of 1 GiB can be reserved here: {error.strerror}")
    if not enough:
        pytest.skip("the system has no GiB of free memory in one piece")
    try:
        yield
    finally:
        _reserve(_1_GIB, -1)
