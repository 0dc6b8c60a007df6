"""Guests that another release has kept: they are gone on with, left to it as they are, or come back by themselves."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagetide.commands.daemon.ctl import ctl_command
from pagetide.host.daemon.control import handle
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.service_manager import ServiceManager
from pagetide.host.device.kept_file import KeptFile, new_kept_file, read_head
from pagetide.host.device.kept_head import HEAD_BYTES, KeptHead
from pagetide.host.device.kept_state import (
    DeviceKept,
    GuestKept,
    RegionKept,
    SessionKept,
    UnreadableStateError,
    decode_kept,
    encode_kept,
)
from pagetide.host.memory.ledger import LEDGER_WORDS, REFAULTED_BYTES, REPORTS, WORD_NAMES
from pagetide.linux import sealed_memfd
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.state import BackendState, VringState
from tests.host.guest.served_guest import ServedGuest
from tests.host.server_at_times import ServerAtTimes

PAGE = 100
VERSION = "pagetide.host.device.kept_head.VERSION"
FIRST_VERSION = bytes.fromhex(
    "98a3766d31ad2f72756e2f766d312e736f636b9697cf000000010000000020cd02000fffc3919acc80950000cd1000cd2000cd30"
    "0007c3c3c3c30304ff98c41001010101010101010101010101010101c3c2c30203910481040791929400ce00400000cf00000100"
    "00000000000594cd10000005cc8006c20cc4047061727491086309"
)


class Store:
    """A service manager's descriptor store, as far as one guest needs it, and one daemon after the other on it."""

    def __init__(self, folder: Path) -> None:
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "notify"))
        self._manager = ServiceManager({"NOTIFY_SOCKET": str(folder / "notify"), "FDSTORE": "9"})
        ours, theirs = socket.socketpair()
        keeper = Keeper(self._manager)
        self.daemon = ServerAtTimes(keeper)
        keep = keeper.begin(theirs.fileno())
        assert keep is not None
        self._ends = [os.dup(fd) for fd in keep.box.fds]

        def attach() -> ServedGuest:
            attached = self.daemon.server.adopt(theirs, name="vm1", keep=keep)
            attached.keep_state()
            return ServedGuest(ours)

        self.guest = self.daemon.serving(attach)

    def replace(self) -> None:
        """Have the next daemon take what is kept."""
        self.daemon.close()
        keeper = Keeper(self._manager)
        keeper.take({"guest-1": [os.dup(fd) for fd in self._ends]})
        self.daemon = ServerAtTimes(keeper)
        assert self.daemon.server.succession is not None
        self.daemon.server.succession.take_back()

    @property
    def left_count(self) -> int:
        """How many are left as they are."""
        assert self.daemon.server.succession is not None
        return self.daemon.server.succession.left_count

    @property
    def has_let_go(self) -> bool:
        """Whether the store was told to keep the guest no more; then nothing here keeps it either."""
        while select.select([self._told], [], [], 0)[0]:
            if b"FDSTOREREMOVE=1\nFDNAME=guest-1" in self._told.recv(4096):
                self._forget()
                return True
        return False

    def close(self) -> None:
        """Leave nothing behind."""
        self.daemon.close()
        self.guest.close()
        self._manager.close()
        self._told.close()
        self._forget()

    def _forget(self) -> None:
        for fd in self._ends:
            os.close(fd)
        self._ends = []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store, and a daemon that serves a guest."""
    store = Store(tmp_path)
    yield store
    store.close()


def hung_up(guest: ServedGuest) -> bool:
    """Whether the daemon has closed the connection."""
    poll = select.poll()
    poll.register(guest.channel.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def test_a_guest_of_another_release_is_left_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A release that cannot read it says so and touches nothing; the one before goes on with the same connection."""
    store.daemon.serving(lambda: store.guest.report([(PAGE, 1)]))
    with monkeypatch.context() as patched:
        patched.setattr(VERSION, 2)
        store.replace()
        (record,) = (each for each in caplog.records if "not served, and left as it is" in each.getMessage())
        assert record.__dict__["guest"] == "vm1"
        assert "kept in version 1" in record.getMessage()
        assert store.left_count == 1
        store.guest.submit([(PAGE + 2, 1)])
        store.daemon.server.run_once(0)
    store.replace()
    store.daemon.serving(store.guest.wait_used)
    assert [(guest.name, guest.ledger.words[REPORTS]) for guest in store.daemon.server.guests] == [("vm1", 2)]
    assert not store.has_let_go


@pytest.mark.parametrize("speaks", [True, False], ids=["speaks", "hangs up"])
def test_a_left_guest_that_speaks_or_goes_is_let_go(
    store: Store, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A front-end that would wait for an answer is not kept waiting: QEMU does nothing else meanwhile."""
    monkeypatch.setattr(VERSION, 2)
    store.replace()
    assert not store.has_let_go
    if speaks:
        os.write(store.guest.channel.fileno(), encode(Message(Request.GET_QUEUE_NUM)))
    else:
        store.guest.channel.close()
    store.daemon.server.run_once(0)
    assert store.has_let_go
    assert store.left_count == 0
    assert not speaks or hung_up(store.guest)


def test_a_front_end_that_reconnects_is_let_go_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what is in flight, so a daemon that knows nothing of it loses nothing."""

    def give() -> None:
        base = store.guest.channel.stop_queue(store.guest.index)
        inflight, fd = store.guest.channel.get_inflight(5, 128) or (None, -1)
        assert inflight is not None
        store.guest.channel.set_inflight(inflight, fd)
        os.close(fd)
        store.guest.start_queue(base)
        store.guest.report([(PAGE, 1)])

    store.daemon.serving(give)
    monkeypatch.setattr(VERSION, 2)
    store.replace()
    assert store.has_let_go
    assert hung_up(store.guest)


def test_it_can_be_asked_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctl check` of a release that cannot read what the running daemon keeps fails, and names the guests."""
    store.daemon.server.listen_control(tmp_path / "control")

    def check() -> int:
        return store.daemon.serving(lambda: ctl_command("check", None, (), tmp_path / "control", json=False))

    assert check() == 0
    assert capsys.readouterr() == ("this release goes on with all guests of the running daemon: 1\n", "")
    monkeypatch.setattr(VERSION, 2)
    assert check() == 1
    assert "cannot go on with vm1: it was kept in version 1" in capsys.readouterr().err
    assert b'"name":"vm1","version":1' in handle(b'{"command": "kept"}', store.daemon.server)


def test_an_account_with_other_words_is_gone_on_with() -> None:
    """By the words' names, whatever their order; what is not counted here is left out, what was not there is 0."""
    theirs = KeptHead(words=3, word_names=("refaulted_bytes", "unheard_of", "reports"), name="vm1", comes_back=True)
    fd = new_kept_file()
    os.pwrite(fd, theirs.encode(), 0)
    os.pwrite(fd, np.array([7, 8, 9], np.int64).tobytes(), os.fstat(fd).st_size - 4096)
    again_fd = os.dup(fd)
    for _ in range(2):
        kept = KeptFile(os.dup(fd))
        assert (kept.words[REFAULTED_BYTES], kept.words[REPORTS], kept.words.sum()) == (7, 9, 16)
        assert kept.head == KeptHead(name="vm1", comes_back=True)
        kept.close()
    os.close(fd)
    os.pwrite(again_fd, theirs._replace(words=0, word_names=()).encode(), 0)
    kept = KeptFile(again_fd)  # killed amid the change of order
    assert (kept.words.sum(), len(kept.words), kept.head.word_names) == (0, LEDGER_WORDS, WORD_NAMES)
    kept.close()


def test_a_first_page_of_the_first_release_is_read() -> None:
    """It ends with the number of words, and the file with the last word; a page that is none is refused."""
    fd = sealed_memfd("pagetide-state", 4096 + 2 * 65536 + LEDGER_WORDS * 8)
    os.pwrite(fd, b"pagetide" + (1).to_bytes(4, "little") + LEDGER_WORDS.to_bytes(4, "little"), 0)
    assert read_head(fd) == (KeptHead(word_names=()), "")
    kept = KeptFile(fd)
    assert kept.head == KeptHead(word_names=())
    assert kept.head.lack == ""
    assert kept.head._replace(words=LEDGER_WORDS + 1).lack
    kept.write(b"state", "vm1", comes_back=False)
    assert (kept.read(), kept.head.name) == (b"state", "vm1")
    kept.close()
    with pytest.raises(UnreadableStateError, match="no guest of a pagetide daemon's"):
        KeptHead.decode(bytes(HEAD_BYTES))


def test_what_the_first_version_kept_is_read() -> None:
    """Whoever changes what is kept, so that another release cannot read it, changes VERSION: these bytes are of 1."""
    vring = VringState(128, (0, 0, 4096, 8192, 12288), 7, True, True, True, True, 3, 4, -1)
    session = SessionKept(
        BackendState(1 << 32, 1 << 5, 1 << 9, 15, -1, True, [vring]),
        DeviceKept(b"\1" * 16, True, False, True, 2, 3, [4], {4: 7}),
        [RegionKept((0, 1 << 22, 1 << 40, 0), 5)],
        (4096, 0, 5, 128),
        6,
        False,
    )
    assert decode_kept(FIRST_VERSION) == GuestKept("vm1", "/run/vm1.sock", session, 12, b"part", [8], 99, 9)
    assert encode_kept(decode_kept(FIRST_VERSION)) == FIRST_VERSION
