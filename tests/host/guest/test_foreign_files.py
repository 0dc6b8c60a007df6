"""Whatever file a front-end gives: it is mapped and closed, or refused, and nobody else is harmed by it."""

import errno
import os
from pathlib import Path

import pytest

from pagetide.host.memory.file_window import FileWindow
from pagetide.host.memory.guest_memory import SHARED_BYTES_MAX
from pagetide.virtio.vhost_user.frontend import RefusedError
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64, VRING_ADDRESS, VRING_STATE, MemoryRegion, encode_single_region
from pagetide.virtio.vhost_user.transport import PeerGoneError
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES
from tests.host.running_server import Running, two_guests

HUGE = 2 << 20
USER = 0x7000_0000_0000


@pytest.fixture
def huge_fd() -> int:
    """A file of two huge pages, of which the system need have none; the test closes it."""
    try:
        fd = os.memfd_create("test-hugetlb", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    except OSError as error:
        pytest.skip(f"no hugetlbfs here ({error.strerror})")
    os.ftruncate(fd, 2 * HUGE)
    return fd


def _mapped(name: str) -> list[str]:
    return [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if name in line]


@pytest.mark.parametrize(("offset_bytes", "size_bytes"), [(0, PAGE), (3 * PAGE, PAGE), (HUGE - PAGE, 2 * PAGE)])
def test_a_part_of_huge_pages_is_mapped_in_whole_ones(huge_fd: int, offset_bytes: int, size_bytes: int) -> None:
    """A stretch that begins and ends within them has an address in them, and nothing of it is left in the end."""
    window = FileWindow(huge_fd, offset_bytes, size_bytes)
    (mapped,) = _mapped("test-hugetlb")
    start, end = (int(address, 16) for address in mapped.split("-"))
    assert start % HUGE == 0
    assert end - start == -(-(offset_bytes + size_bytes) // HUGE) * HUGE
    assert window.address == start + offset_bytes
    window.close()
    assert _mapped("test-hugetlb") == []
    os.close(huge_fd)


def test_a_guest_without_huge_pages_goes_alone(tmp_path: Path, huge_fd: int) -> None:
    """Its ring is in a huge page that is not there: its connection ends with a reason, and the neighbour is served."""
    daemon = Daemon(tmp_path)
    try:
        with daemon.guest("one") as good, daemon.guest("two") as bad:
            region = MemoryRegion(0, HUGE, USER, HUGE)
            bad.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (huge_fd,))
            os.ftruncate(huge_fd, 0)
            bad.channel.call(Request.SET_VRING_NUM, VRING_STATE.pack(0, 8))
            bad.channel.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(0, 0, USER, USER + 0x400, USER + 0x200, 0))
            bad.channel.call(Request.SET_VRING_KICK, U64.pack(0), (bad.kick_fd,))
            wait_readable(bad.channel.fileno())
            with pytest.raises(PeerGoneError):
                bad.channel.call(Request.GET_FEATURES)
            assert len(good.report([(RING_PAGES, 1)])) == 1
        daemon.stopped_saying("has no huge page left")
    finally:
        daemon.close()
        os.close(huge_fd)


def test_guests_of_one_socket_share_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    """Files of holes, however large, leave addresses for guests at other sockets, and for their own guest's return."""
    daemon = Daemon(tmp_path)
    holes_fd = os.memfd_create("test-holes", os.MFD_CLOEXEC)
    os.ftruncate(holes_fd, SHARED_BYTES_MAX)
    half = MemoryRegion(1 << 45, SHARED_BYTES_MAX // 2, 1 << 45, 0)
    try:
        with daemon.guest("two") as first, daemon.guest("two") as second:
            first.channel.call(Request.ADD_MEM_REG, encode_single_region(half), (holes_fd,))
            for guest in (first, second):
                with pytest.raises(RefusedError, match="ADD_MEM_REG"):
                    guest.channel.call(
                        Request.ADD_MEM_REG, encode_single_region(half._replace(gpa=1 << 46)), (holes_fd,)
                    )
            with daemon.guest("one") as good:
                good.channel.call(Request.ADD_MEM_REG, encode_single_region(half), (holes_fd,))
                assert len(good.report([(RING_PAGES, 1)])) == 1
            first.channel.call(Request.REM_MEM_REG, encode_single_region(half))
            second.channel.call(Request.ADD_MEM_REG, encode_single_region(half), (holes_fd,))
        daemon.stopped_saying("with others at its socket, may still share", 2)
    finally:
        daemon.close()
        os.close(holes_fd)


def test_a_file_that_fails_to_close_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may answer close(2) with an error, though the descriptor is gone: the server goes on."""
    close, failed = os.close, list[int]()

    def close_and_fail(fd: int) -> None:
        close(fd)
        failed.append(fd)
        raise OSError(errno.EIO, "close")

    running = Running()
    good, bad = two_guests(running)
    monkeypatch.setattr(os, "close", close_and_fail)
    bad.channel.close()
    running.await_gone()
    monkeypatch.undo()
    assert len(failed) == 4, "memory, kick, call and error descriptors"
    assert len(good.report([(RING_PAGES, 1)])) == 1
    good.close()
    bad.close()
    running.stop()
