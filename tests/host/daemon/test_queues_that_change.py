"""Queues that stop, start, and get other memory, descriptors or configuration while the server runs."""

import os
from pathlib import Path

import pytest

from pagetide.host.device.balloon import FEATURES
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_BYTES
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    VringAddress,
    encode_single_region,
)
from tests.host.guest.served_guest import ServedGuest
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE, USER
from tests.host.running_server import Running, connect


def test_memory_comes_and_goes_while_a_queue_runs(running: Running, tmp_path: Path) -> None:
    """A region added is discarded from, a region removed no more, and the queue's own memory may be mapped anew."""
    other = os.memfd_create("test-second-region")
    os.ftruncate(other, 4 * PAGE)
    os.pwrite(other, b"\1" * (4 * PAGE), 0)
    region = MemoryRegion(0, 4 * PAGE, USER - 64 * PAGE, 0)
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (other,))
        guest.report([(-GPA // PAGE + 1, 2)])
        assert os.fstat(other).st_blocks * 512 == 2 * PAGE
        guest.channel.call(Request.REM_MEM_REG, encode_single_region(region))
        guest.report([(-GPA // PAGE, 1)])
        assert os.fstat(other).st_blocks * 512 == 2 * PAGE
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        assert len(guest.report([(RING_PAGES, 1)])) == 1
        (attached,) = running.server.guests
        assert attached.ledger.skipped_bytes()["out_of_range"] == PAGE
    os.close(other)


def test_a_stopped_queue_goes_on_where_it_stood(running: Running, tmp_path: Path) -> None:
    """GET_VRING_BASE tells the next element, and starting the queue there misses and repeats nothing."""
    with ServedGuest(connect(tmp_path)) as guest:
        for n in range(3):
            guest.report([(RING_PAGES + n, 1)])
            base = guest.channel.stop_queue(guest.index)
            assert base == 2 * n + 1
            guest.submit([(RING_PAGES + 100 + n, 1)])  # nobody hears this kick
            os.eventfd_read(guest.kick_fd)
            guest.start_queue(base)
            assert len(guest.wait_used()) == 1
        (attached,) = running.server.guests
        assert attached.ledger.snapshot()["reports"] == 6


def test_a_new_kick_descriptor_replaces_the_old(running: Running, tmp_path: Path) -> None:
    """Kicks count on the descriptor that was given last; the queue goes on where it stands."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.report([(RING_PAGES, 1)])
        old, guest.kick_fd = guest.kick_fd, os.eventfd(0, os.EFD_CLOEXEC)
        guest.channel.call(Request.SET_VRING_KICK, U64.pack(guest.index), (guest.kick_fd,))
        os.close(old)
        assert len(guest.report([(RING_PAGES + 1, 1)])) == 1


def test_the_configuration_takes_only_the_drivers_fields(running: Running, tmp_path: Path) -> None:
    """A driver's write of the whole space changes `actual` and not `num_pages`."""
    with ServedGuest(connect(tmp_path)) as guest:
        assert guest.channel.get_config(0, CONFIG_BYTES) == bytes(CONFIG_BYTES)
        guest.channel.set_config(0, bytes(range(1, 17)))
        space = guest.channel.get_config(0, CONFIG_BYTES)
        assert space == bytes(4) + bytes(range(5, 9)) + bytes(4) + bytes(range(13, 17))
        assert space[CONFIG_ACTUAL] == 5


def test_a_disabled_queue_is_left_alone(running: Running, tmp_path: Path) -> None:
    """SET_VRING_ENABLE with 0 stops the queue and with 1 starts it again, with what has come meanwhile."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(guest.index, 0))
        guest.submit([(RING_PAGES, 1)])
        guest.channel.call(Request.GET_FEATURES)
        assert guest.ring.driver.take_used() == []
        guest.channel.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(guest.index, 1))
        assert len(guest.wait_used()) == 1


def test_a_front_end_in_the_order_of_user_mode_linux_is_served(running: Running, tmp_path: Path) -> None:
    """Call descriptor before everything else, features twice, no SET_VRING_ENABLE: the kick starts the queue."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.stop_queue(guest.index)
        guest.ring.reset_driver()
        place = guest.ring.queue_place
        address = VringAddress(
            guest.index, 0, place.desc_user_address, place.used_user_address, place.avail_user_address
        )
        call = guest.channel.call
        call(Request.SET_VRING_CALL, U64.pack(guest.index), (guest.call_fd,))
        call(Request.SET_FEATURES, U64.pack(int(FEATURES)))
        call(Request.SET_FEATURES, U64.pack(int(FEATURES)))
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        call(Request.SET_VRING_NUM, VRING_STATE.pack(guest.index, SIZE))
        call(Request.SET_VRING_BASE, VRING_STATE.pack(guest.index, 0))
        call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
        call(Request.SET_VRING_KICK, U64.pack(guest.index), (guest.kick_fd,))
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_call_descriptor_that_comes_late_is_called_once(running: Running, tmp_path: Path) -> None:
    """A queue that is started before its call descriptor comes, as QEMU does, has given elements back in between."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index | NO_FD))
        guest.ring.driver.arm_call()
        guest.submit([(RING_PAGES, 1)])
        while not guest.ring.driver.take_used():
            guest.channel.call(Request.GET_FEATURES)
        late_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index), (late_fd,))
        guest.channel.call(Request.GET_FEATURES)
        assert os.eventfd_read(late_fd) == 1
        os.close(late_fd)


def test_a_polling_driver_without_call_descriptor_is_served(running: Running, tmp_path: Path) -> None:
    """No call descriptor is legal: the used ring is all that such a driver looks at."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index | NO_FD))
        guest.submit([(RING_PAGES, 1)])
        guest.channel.call(Request.GET_FEATURES)
        for _ in range(1000):
            if guest.ring.driver.take_used():
                return
            guest.channel.call(Request.GET_FEATURES)  # queues have their turns between messages
        pytest.fail("the element was not served")
