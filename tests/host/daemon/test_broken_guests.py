"""Who breaks a rule, or is served with a mistake of ours: the server says so, ends that guest at most, and goes on."""

import fcntl
import logging
import os
import socket
import time
from pathlib import Path

import pytest

from pagetide.host.device.queues.turn import Turn
from pagetide.virtio.balloon import Status
from pagetide.virtio.split_ring.driver import AVAIL_ADDRESS
from pagetide.virtio.split_ring.ring import RING_ENTRIES
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import (
    U64,
    MemoryRegion,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.transport import PeerGoneError
from tests.host.guest.descriptor_kinds import fill
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest, wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES, SIZE
from tests.host.running_server import Running, connect

_F_SEAL_FUTURE_WRITE = 0x10  # include/uapi/linux/fcntl.h; forbids what is not mapped yet, and punching


def _break_ring(guest: ServedGuest) -> None:
    """Publish a head that is no descriptor."""
    guest.ring.add([(RING_PAGES, 1)])
    avail = int(guest.ring.driver.state[AVAIL_ADDRESS]) - guest.ring.ram.address
    guest.ring.ram.words.view("u2")[(avail + RING_ENTRIES) // 2] = SIZE
    guest.ring.driver.publish()
    os.eventfd_write(guest.kick_fd, 1)


def test_a_broken_ring_stops_its_guest_only(running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The hostile guest's error descriptor is signalled, its status says NEEDS_RESET, the log why; others go on."""
    with ServedGuest(connect(tmp_path)) as good, ServedGuest(connect(tmp_path)) as bad:
        bad.channel.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK)
        _break_ring(bad)
        wait_readable(bad.err_fd)
        (status,) = U64.unpack(bad.channel.call(Request.GET_STATUS))
        assert status & Status.NEEDS_RESET
        assert "needs a reset: an available ring entry is no index of the descriptor table" in caplog.text
        assert len(good.report([(RING_PAGES, 1)])) == 1
        assert bad.ring.resident_pages() == set(range(bad.ring.pages))


def test_a_mistake_of_ours_costs_one_guest_its_connection(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody foresaw is logged with its traceback; others go on, and its guest may come back."""

    def fail(index: int, budget: int) -> Turn:
        raise MemoryError("no room for a turn")

    with ServedGuest(connect(tmp_path)) as good, ServedGuest(connect(tmp_path)) as unlucky:
        _, attached = running.server.guests
        monkeypatch.setattr(attached._device, "process", fail)
        attached.serve_apart(True)  # or it is served in passing
        unlucky.submit([(RING_PAGES, 1)])
        assert running.await_gone() == "an error in pagetide: MemoryError('no room for a turn')"
        assert "Traceback" in caplog.text
        assert len(good.report([(RING_PAGES, 1)])) == 1
    with ServedGuest(connect(tmp_path)) as again:
        assert len(again.report([(RING_PAGES, 1)])) == 1


def test_after_a_reset_a_broken_guest_is_served_again(running: Running, tmp_path: Path) -> None:
    """Resetting the device and starting the queue afresh is the way back from NEEDS_RESET."""
    with ServedGuest(connect(tmp_path)) as guest:
        _break_ring(guest)
        wait_readable(guest.err_fd)
        guest.channel.call(Request.RESET_DEVICE)
        guest.ring.reset_driver()
        guest.start_queue()
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_driver_that_cannot_be_told_is_disconnected(running: Running, tmp_path: Path) -> None:
    """With neither an error descriptor nor a channel for requests, a broken ring closes the connection."""
    with ServedGuest(connect(tmp_path), with_err=False) as guest:
        _break_ring(guest)
        assert "no index of the descriptor table" in running.await_gone()
        wait_readable(guest.channel.fileno())
        with pytest.raises(PeerGoneError):
            guest.channel.call(Request.GET_FEATURES)


def test_a_broken_ring_is_told_on_the_channel_for_requests(running: Running, tmp_path: Path) -> None:
    """A guest with such a channel gets a notification of a changed configuration there."""
    ours, theirs = socket.socketpair()
    with ours, ServedGuest(connect(tmp_path), with_err=False) as guest:
        guest.channel.call(Request.SET_BACKEND_REQ_FD, b"", (theirs.fileno(),))
        theirs.close()
        _break_ring(guest)
        wait_readable(ours.fileno())
        assert len(ours.recv(100)) == 12
        assert len(running.server.guests) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 64, "broke the protocol"),
        (U64.pack(1), "disconnected within a message"),
        (b"\x63\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", "broke the protocol: request 99"),
    ],
)
def test_who_breaks_the_protocol_is_disconnected(running: Running, tmp_path: Path, data: bytes, why: str) -> None:
    """Nonsense, half a message, an unknown request: that connection ends with a reason, the others live."""
    with ServedGuest(connect(tmp_path)) as good:
        with connect(tmp_path) as bad:
            bad.sendall(data)
            bad.shutdown(socket.SHUT_WR)
            assert why in running.await_gone()
        assert len(good.report([(RING_PAGES, 1)])) == 1


def test_memory_that_cannot_be_used_is_refused(running: Running, tmp_path: Path) -> None:
    """A region beyond its file is acknowledged as failed, and the guest's memory and queue stay as they were."""
    with ServedGuest(connect(tmp_path)) as guest:
        region = MemoryRegion(0, PAGE, 0, guest.ring.pages * PAGE)
        with pytest.raises(Exception, match="refused ADD_MEM_REG"):
            guest.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (guest.ring.ram.fd,))
        with pytest.raises(Exception, match="refused SET_MEM_TABLE"):
            guest.channel.set_mem_table([guest.ring.region, region], [guest.ring.ram.fd] * 2)
        assert len(guest.report([(RING_PAGES, 1)])) == 1


@pytest.mark.parametrize("request_", [Request.REM_MEM_REG, Request.SET_MEM_TABLE])
def test_memory_that_goes_from_under_a_queue_breaks_it(running: Running, tmp_path: Path, request_: Request) -> None:
    """The message is refused, and the guest is told as of a broken ring; after a reset it is served again."""
    with ServedGuest(connect(tmp_path)) as guest:
        payload = encode_single_region(guest.ring.region) if request_ is Request.REM_MEM_REG else encode_mem_table([])
        with pytest.raises(Exception, match=f"refused {request_.name}"):
            guest.channel.call(request_, payload)
        wait_readable(guest.err_fd)
        (status,) = U64.unpack(guest.channel.call(Request.GET_STATUS))
        assert status & Status.NEEDS_RESET
        guest.submit([(RING_PAGES, 1)])
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        assert guest.ring.driver.take_used() == []
        guest.channel.call(Request.RESET_DEVICE)
        guest.ring.reset_driver()
        guest.start_queue()
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_full_call_descriptor_does_not_hold_up_the_server(running: Running, tmp_path: Path) -> None:
    """An eventfd that would block is a call that is already there."""
    with ServedGuest(connect(tmp_path)) as guest:
        fill(guest.call_fd)
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index), (guest.call_fd,))
        for n in range(3):
            guest.ring.driver.arm_call()
            guest.submit([(RING_PAGES + n, 1)])
        done = 0
        give_up_s = time.monotonic() + TIMEOUT_S
        while done < 3 and time.monotonic() < give_up_s:
            guest.channel.call(Request.GET_FEATURES)
            done += len(guest.ring.driver.take_used())
        assert done == 3


def test_a_discard_that_fails_is_logged_once(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory that cannot be punched is acknowledged, counted, and said once however often it happens."""
    caplog.set_level(logging.ERROR)
    with ServedGuest(connect(tmp_path)) as guest:
        (attached,) = running.server.guests
        fcntl.fcntl(guest.ring.ram.fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        for _ in range(3):
            guest.report([(RING_PAGES, 1)])
        assert attached.ledger.skipped_bytes()["failed"] == 3 * PAGE
    assert caplog.text.count("could not be discarded: fallocate: Operation not permitted") == 1
