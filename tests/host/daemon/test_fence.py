"""Whatever raises in the work for one guest, or for one request, ends that alone: the loop goes on for the others."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from pagetide.host.daemon import server as server_module
from pagetide.host.daemon.server import Server
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.effects import Effects
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from tests.host.good_and_bad import BAD, GOOD, GoodAndBad
from tests.host.guest.served_guest import wait_readable
from tests.host.guest_ring import RING_PAGES


class Rig(GoodAndBad):
    """A server with two sockets, a guest at each, and the control socket."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server.listen_control(folder / "control")

    def ask(self) -> bytes:
        """The answer to a control request."""
        with self.connect("control") as client:
            client.sendall(b'{"command":"list"}\n')
            wait_readable(client.fileno())
            return client.recv(1 << 16)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """One of them."""
    with closing(Rig(tmp_path)) as rig:
        yield rig


def _go_on(rig: Rig) -> None:
    server = rig.server
    while not server._costs.is_resting(rig.bad_guest):
        server._guests.charge(rig.bad_guest, 1.0)
    server._costs.clock_s = server._costs.rests_until_s(rig.bad_guest)
    server.run_once(0)


def _rest(rig: Rig) -> None:
    for _ in range(100):
        if rig.bad_guest in rig.server.guests:
            rig.server._guests.charge(rig.bad_guest, 1.0)


def _talk(rig: Rig) -> None:
    with socket.socket(fileno=rig.bad.channel.fileno()) as sock:
        sock.send(encode(Message(Request.SET_OWNER)))
        sock.detach()
    rig.server.run_once(0)


def _hang_up(rig: Rig) -> None:
    rig.bad.channel.close()
    rig.server.run_once(0)
    rig.server.run_once(0)


def _kick(rig: Rig) -> None:
    rig.bad_guest.serve_apart(True)
    rig.bad.submit([(RING_PAGES, 1)])
    rig.server.run_once(0)


def _look(rig: Rig) -> None:
    rig.server.look_for_refaults(rig.bad_guest)


WAYS: dict[str, Callable[[Rig], None]] = {
    "talk": _talk,
    "turn": _kick,
    "rest": _rest,
    "go_on": _go_on,
    "finish": lambda rig: rig.server.finish(),
    "request_statistics": lambda rig: rig.server.request_statistics(),
    "look_for_refaults": _look,
}


def _broken(monkeypatch: pytest.MonkeyPatch, guest: AttachedGuest, method: str) -> None:
    """Let a method raise for one guest."""
    whole = getattr(AttachedGuest, method)

    def raises(self: AttachedGuest, *words: object) -> object:
        if self is guest:
            raise RuntimeError("a mistake of ours")
        return whole(self, *words)

    monkeypatch.setattr(AttachedGuest, method, raises)


@pytest.mark.parametrize("method", WAYS)
def test_an_exception_costs_one_guest_its_connection(rig: Rig, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest for which it was raised is gone, the other is served, and a new one is welcome."""
    if method == "talk":  # which the loop got when the guest was attached
        monkeypatch.setattr(rig.bad_guest._session, "talk", _raises)
    else:
        _broken(monkeypatch, rig.bad_guest, method)
    rig.good.submit([(RING_PAGES, 1)])
    WAYS[method](rig)
    assert [guest.name for guest in rig.server.guests] == [GOOD]
    rig.serving(rig.good.wait_used)
    rig.attach(BAD).close()


def test_a_guest_that_cannot_be_closed_is_gone_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be given back stays, and nothing waits for it."""
    with monkeypatch.context() as patch:
        patch.setattr(AttachedGuest, "close", _raises)
        _hang_up(rig)
    assert [guest.name for guest in rig.server.guests] == [GOOD]
    rig.serving(lambda: rig.good.report([(RING_PAGES, 1)]))
    rig.bad_guest.close()


def test_one_part_that_cannot_be_closed_keeps_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is unmapped and the connection closed, though a queue could not be left."""
    with monkeypatch.context() as patch:
        patch.setattr(Effects, "leave_queue", _raises)
        _hang_up(rig)
    rig.serving(lambda: rig.good.report([(RING_PAGES, 1)]))
    assert rig.bad_guest.ram_bytes == 0
    assert rig.bad_guest.fileno() == -1


def test_a_request_that_raises_is_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told, and the next request is answered as ever."""
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "handle", _raises)
        assert b"an error in pagetide, please report it: RuntimeError" in rig.serving(rig.ask)
    assert b'"error":null' in rig.serving(rig.ask)


def test_a_guest_that_cannot_be_taken_is_hung_up_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, and takes the next one."""
    with monkeypatch.context() as patch:
        patch.setattr(Server, "adopt", _raises)
        with rig.connect(BAD) as sock:
            rig.server.run_once(0)
            assert sock.recv(1) == b""
    rig.attach(BAD).close()


def _raises(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a mistake of ours")
