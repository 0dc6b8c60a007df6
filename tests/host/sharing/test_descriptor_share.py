"""The guests of one socket do not use up the descriptors that other sockets' guests need."""

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pagetide.host.memory.guest_memory import GuestMemory, SharedMemoryLimit
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.host.sharing.descriptor_share import descriptor_share
from pagetide.virtio.vhost_user.frontend import RefusedError
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import MemoryRegion, encode_single_region
from tests.host.daemon.test_fence import Rig
from tests.host.good_and_bad import BAD
from tests.host.guest.served_guest import ServedGuest
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, USER

DESCRIPTORS = 256


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A server that was told of few descriptors."""
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (DESCRIPTORS, DESCRIPTORS))
        rig = Rig(tmp_path)
    yield rig
    rig.close()


def _region(number: int) -> MemoryRegion:
    return MemoryRegion(GPA + (number << 32), 16 * PAGE, USER + (number << 32), 0)


def _fd() -> int:
    fd = os.memfd_create("test-region", os.MFD_CLOEXEC)
    os.ftruncate(fd, 16 * PAGE)
    return fd


def test_who_connects_again_and_again_leaves_descriptors_for_others(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """No more connections are taken at one socket than its share; those beyond wait, and one goes on when one goes.

    The log says so, once.
    """
    with ExitStack() as stack:
        socks = [stack.enter_context(rig.connect(BAD)) for _ in range(DESCRIPTORS // 4)]
        for _ in socks:
            rig.server.run_once(0)
        (sock,) = (sock for sock in rig.server.sockets if sock.name == BAD)
        assert len(sock.attached) == 4
        rig.serving(lambda: rig.good.report([(RING_PAGES, 1)]))
        first = rig.server.guests[2]
        socks[0].close()
        for _ in range(3):
            rig.server.run_once(0)
        assert len(sock.attached) == 4
        assert first not in rig.server.guests
        assert sum("4 guests, its share of the files" in message for message in caplog.messages) == 1


def test_who_shares_region_after_region_leaves_descriptors_for_others(rig: Rig) -> None:
    """Regions beyond a socket's share are refused, those of another socket are not, and who goes gives them back."""

    def plug(guest: ServedGuest, regions: int) -> None:
        for number in range(1, 1 + regions):
            guest.channel.call(Request.ADD_MEM_REG, encode_single_region(_region(number)), (guest.ring.ram.fd,))

    share = DESCRIPTORS // 4
    with pytest.raises(RefusedError):
        rig.serving(lambda: plug(rig.bad, share))
    assert rig.bad_guest.ram_bytes == rig.bad.ring.region.size_bytes + (share - 1) * 16 * PAGE
    rig.serving(lambda: plug(rig.good, share - 1))


def test_regions_are_counted_however_they_come_and_go() -> None:
    """Added, replaced, removed, refused: what is left is what the limit was, less those that are there."""
    limit = SharedMemoryLimit(left_regions=3)
    memory, other = GuestMemory(limit), GuestMemory(limit)
    memory.add(_region(0), _fd())
    other.replace([_region(0), _region(1)], [_fd(), _fd()])
    assert limit.left_regions == 0
    with pytest.raises(GuestMemoryError, match="as many memory regions as one socket may"):
        memory.add(_region(1), _fd())
    with pytest.raises(GuestMemoryError, match="as many memory regions as one socket may"):
        memory.replace([_region(1), _region(2)], [_fd(), _fd()])
    other.remove(*_region(1)[:3])
    assert limit.left_regions == 1
    memory.replace([_region(1), _region(2)], [_fd(), _fd()])
    assert limit.left_regions == 0
    memory.close()
    other.close()
    assert limit.left_regions == 3


def test_the_share_goes_by_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of it at most are one socket's; without a limit it is as good as none."""
    for most in (64, 1024, 1 << 20):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (most, most))
        share = descriptor_share()
        assert share.connections * 32 + share.regions <= 3 * most / 4
        assert share.connections >= 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptor_share().connections > 1024
