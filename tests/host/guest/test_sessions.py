"""When a front-end is told something, and what is said of a guest whose driver is not there; a second session."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.host.guest.attached import AttachedGuest
from pagetide.virtio.balloon import Queue, Status
from pagetide.virtio.split_ring.ring import RING_IDX
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.payloads import U64, VRING_STATE, encode_single_region
from tests.host.daemon.process import Daemon, show
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import GPA, PAGE, RING_PAGES

READY = int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)
TOLD = encode(Message(2))


class Pair:
    """A guest with a channel for the back-end's requests, and the server that serves it in a thread when asked."""

    def __init__(self, queue: Queue = Queue.REPORTING) -> None:
        ours, theirs = socket.socketpair()
        self.server = Server()
        self.attached: AttachedGuest = self.server.adopt(theirs)
        self._stop_fd = os.eventfd(0)
        self.run()
        self.guest = ServedGuest(ours, queue=queue)
        self.told, self.theirs = socket.socketpair()
        self.guest.channel.call(Request.SET_BACKEND_REQ_FD, fds=(self.theirs.fileno(),))
        self.theirs.close()
        self.halt()

    def run(self) -> None:
        """Serve, until `halt`."""
        self._thread = threading.Thread(target=self.server.run, args=(self._stop_fd,), daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """Serve no more; then the guest can be asked."""
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join(5 * TIMEOUT_S)  # it may be compiling
        assert not self._thread.is_alive()
        os.eventfd_read(self._stop_fd)

    def call(self, request: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Send a message while the server serves."""
        self.run()
        try:
            self.guest.channel.call(request, payload, fds)
            self.guest.channel.call(Request.GET_FEATURES)  # what the back-end says of its own accord is said by now
        finally:
            self.halt()

    def start_queue(self) -> None:
        """Start the queue again."""
        self.run()
        try:
            self.guest.start_queue()
            self.guest.channel.call(Request.GET_FEATURES)
        finally:
            self.halt()

    def take_told(self) -> int:
        """How often the front-end was told of a changed configuration since this was asked."""
        data = b""
        while select.select([self.told], [], [], 0)[0]:
            piece = self.told.recv(4096)
            data += piece
            if not piece:
                break
        assert data == TOLD * (len(data) // len(TOLD))
        return len(data) // len(TOLD)

    def close(self) -> None:
        """Leave nothing."""
        self.guest.close()
        self.told.close()
        self.server.close()
        os.close(self._stop_fd)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A guest that reports."""
    with closing(Pair()) as pair:
        yield pair


STOPS = (
    (Request.GET_VRING_BASE, True, "stopped"),
    (Request.SET_VRING_ENABLE, True, "stopped"),
    (Request.RESET_DEVICE, False, "no driver"),
    (Request.RESET_OWNER, False, "no driver"),
    (Request.SET_STATUS, False, "no driver"),
)


@pytest.mark.parametrize(("request_", "is_of_queue", "state"), STOPS)
def test_a_change_is_kept_for_a_driver_that_is_not_there(
    pair: Pair, request_: Request, is_of_queue: bool, state: str
) -> None:
    """It is told once, when a queue is started again, and until then the guest is not said to be served."""
    assert pair.attached.state == "serving"
    payload = VRING_STATE.pack(pair.guest.index, 0) if is_of_queue else U64.pack(0)
    pair.call(request_, payload if request_ not in {Request.RESET_DEVICE, Request.RESET_OWNER} else b"")
    assert pair.attached.state == state
    assert pair.attached.set_target_bytes(2 << 20)
    assert pair.attached.set_target_bytes(3 << 20)
    assert pair.take_told() == 0
    pair.start_queue()
    assert pair.attached.state == "serving"
    assert pair.take_told() == 1
    pair.start_queue()
    assert pair.take_told() == 0
    assert pair.attached.set_target_bytes(2 << 20)
    assert pair.take_told() == 1


def test_a_driver_that_is_not_ready_yet_is_told_when_it_is(pair: Pair) -> None:
    """Where the front-end passes the driver's status on, DRIVER_OK is waited for."""
    pair.call(Request.SET_STATUS, U64.pack(READY & ~Status.DRIVER_OK))
    assert pair.attached.state == "no driver"
    pair.attached.set_target_bytes(2 << 20)
    assert pair.take_told() == 0
    pair.call(Request.SET_STATUS, U64.pack(READY))
    assert pair.attached.state == "serving"
    assert pair.take_told() == 1


def test_a_channel_that_comes_late_is_told_then(pair: Pair) -> None:
    """Cloud Hypervisor closes its channel at a reset and gives a new one after its queues: the guest is told."""
    pair.told.close()
    assert not pair.attached.set_target_bytes(2 << 20), "nobody reads there any more"
    assert pair.attached in pair.server.guests
    pair.told, theirs = socket.socketpair()
    with theirs:
        pair.call(Request.SET_BACKEND_REQ_FD, fds=(theirs.fileno(),))
    assert pair.take_told() == 1


def test_hints_are_asked_only_of_a_driver_that_is_there() -> None:
    """A round that nobody would begin is refused with the reason, and none is under way afterwards."""
    pair = Pair(Queue.FREE_PAGE)
    try:
        pair.call(Request.GET_VRING_BASE, VRING_STATE.pack(pair.guest.index, 0))
        with pytest.raises(ValueError, match="hints now: stopped"):
            pair.attached.begin_hinting()
        assert not pair.attached.hinting
        pair.start_queue()
        assert pair.attached.begin_hinting()
        assert pair.take_told() == 1
    finally:
        pair.close()


def test_a_new_owner_of_an_open_connection_has_an_account_of_its_own(pair: Pair) -> None:
    """SET_OWNER again, and ADD_MEM_REG for memory that was never removed: reporting comes back, counted from zero."""
    pair.run()
    pair.guest.report([(RING_PAGES, 4)])
    pair.halt()
    assert pair.attached.ledger.snapshot()["discarded_bytes"] == 4 * PAGE
    assert pair.attached.lag.count == 1
    pair.call(Request.SET_OWNER)
    assert pair.attached.state == "no driver"
    assert pair.attached.ram_bytes == 0
    assert not any(pair.attached.ledger.snapshot().values())
    assert pair.attached.lag.count == 0
    pair.call(Request.SET_FEATURES, U64.pack(int(FEATURES)))
    pair.call(Request.ADD_MEM_REG, encode_single_region(pair.guest.ring.region), (pair.guest.ring.ram.fd,))
    pair.guest.ring.reset_driver()
    pair.start_queue()
    pair.run()
    pair.guest.report([(RING_PAGES + 8, 2)])
    pair.halt()
    ledger = pair.attached.ledger.snapshot()
    assert (ledger["reports"], ledger["discarded_bytes"], ledger["verified_bytes"]) == (1, 2 * PAGE, 2 * PAGE)
    assert pair.attached.state == "serving"


def test_the_state_is_in_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ctl list` and `--json` say what stands in the way, with what is wanted; `ctl set` says when it is told."""
    daemon = Daemon(tmp_path)
    try:
        with daemon.guest("one") as guest:
            assert show(daemon, "one", capsys)["state"] == "serving"
            assert daemon.ctl("pause", "one") == 0
            assert show(daemon, "one", capsys)["state"] == "paused"
            guest.channel.stop_queue(guest.index)
            assert show(daemon, "one", capsys)["state"] == "stopped"
            assert daemon.ctl("list") == 0
            assert capsys.readouterr().out.splitlines()[1].endswith("  stopped, paused")
            told, theirs = socket.socketpair()
            with told, theirs:
                guest.channel.call(Request.SET_BACKEND_REQ_FD, fds=(theirs.fileno(),))
                assert daemon.ctl("set", "one", "target=1MiB") == 0
                assert "told when its driver is there: stopped" in capsys.readouterr().err
            assert daemon.ctl("resume", "one") == 0
            guest.start_queue()
            guest.report([(RING_PAGES, 1)])
            guest.channel.set_status(0)
            assert show(daemon, "one", capsys)["state"] == "no driver"
            assert daemon.ctl("hint", "one") == 1
            assert "hints now: no driver" in capsys.readouterr().err
    finally:
        daemon.close()


def test_a_broken_ring_is_in_the_list(pair: Pair) -> None:
    """A guest that needs a reset is said to, until it resets its device."""
    pair.run()
    idx_at = pair.guest.ring.place.avail_gpa - GPA + RING_IDX
    pair.guest.ring.ram.words.view(np.uint8)[idx_at : idx_at + 2] = [0xFF, 0x7F]
    os.eventfd_write(pair.guest.kick_fd, 1)
    assert select.select([pair.guest.err_fd], [], [], TIMEOUT_S)[0]
    pair.halt()
    assert pair.attached.state == "needs reset"
    assert pair.take_told() == 1
    pair.call(Request.SET_STATUS, U64.pack(0))
    assert pair.attached.state == "no driver"
