"""A connection is abandoned at each of its steps, and its successor goes on: no message is lost or answered twice."""

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest

from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.server import Server
from pagetide.host.device.kept_state import UnreadableStateError
from pagetide.host.guest.descriptor_box import DescriptorBox
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kept_connection import KeptConnection
from pagetide.virtio.balloon import CONFIG_ACTUAL
from pagetide.virtio.vhost_user.messages import HEADER_BYTES, Message, MessageReader, Request, encode
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_STATE,
    ConfigSpace,
    Inflight,
    decode_config,
    encode_config,
    encode_inflight,
)
from pagetide.virtio.vhost_user.transport import receive_some, send_some


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in between catches it."""


class Steps:
    """Counts what a daemon does that outlives it, and kills it before a given one, or right after it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.kill_at = 0, -1
        for owner, name in (
            (Keep, "write"), (Keep, "add_reply"), (Keep, "send_replies"), (Keep, "replies_sent"), (Keep, "note"),
            (KeptConnection, "_take"), (DescriptorBox, "_send"), (os, "sendfile"),
            (KeptConnection, "resume"), (KeptConnection, "_send_with_fd"),
        ):  # fmt: skip
            patch.setattr(owner, name, self._counted(getattr(owner, name)))
        patch.setattr("pagetide.host.guest.kept_connection.send_some", self._counted(send_some))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def counted(*arguments: Any, **named: Any) -> Any:
            self.one()
            result = step(*arguments, **named)
            self.one()
            return result

        return counted

    def one(self) -> None:
        """A step."""
        self.count += 1
        if self.count == self.kill_at:
            raise KilledError


def config_request(request: Request, data: bytes) -> Message:
    """A message about `actual`."""
    return Message(request, payload=encode_config(ConfigSpace(CONFIG_ACTUAL, 4, 0, data)))


def conversation(eventfd: int) -> list[tuple[Message, bytes | None]]:
    """Messages, some with descriptors, and what their replies must end with."""
    one, two = (number.to_bytes(4, "little") for number in (1, 2))
    return [
        (Message(Request.SET_OWNER), None),
        (Message(Request.SET_PROTOCOL_FEATURES, payload=U64.pack(1 << 9 | 1 << 12)), None),
        (config_request(Request.SET_CONFIG, one), None),
        (config_request(Request.GET_CONFIG, bytes(4)), one),
        (Message(Request.SET_VRING_CALL, payload=U64.pack(2), fds=(eventfd,)), None),
        (Message(Request.SET_VRING_CALL, payload=U64.pack(1 | NO_FD)), None),
        (Message(Request.SET_VRING_CALL, payload=U64.pack(1), fds=(eventfd,)), None),
        (Message(Request.SET_VRING_BASE, payload=VRING_STATE.pack(2, 77)), None),
        (Message(Request.GET_INFLIGHT_FD, payload=encode_inflight(Inflight(0, 0, 4, 16))), b""),
        (config_request(Request.SET_CONFIG, two), None),
        (Message(Request.GET_VRING_BASE, payload=VRING_STATE.pack(2, 0)), VRING_STATE.pack(2, 77)),
        (config_request(Request.GET_CONFIG, bytes(4)), two),
    ]


How = Literal["one by one", "all at once", "without waiting for a successor"]
"""How a front-end says what it has to say; the last one reads, and says the next, before there is a successor."""

Spoil = Callable[[pytest.MonkeyPatch, Steps], None]
"""Takes something away that a kept connection needs."""


class Daemons:
    """One server after the other, in this process, with the same keeps."""

    def __init__(self, steps: Steps, sock: socket.socket, meanwhile: Callable[[], None]) -> None:
        self.steps, self.meanwhile = steps, meanwhile
        keeper = Keeper()
        keep = keeper.begin(sock.fileno())
        assert keep is not None
        self.server = Server(keeper=keeper)
        guest = self.server.adopt(sock, keep=keep)
        guest.keep_state()
        self.ends = [os.dup(fd) for fd in keep.box.fds]

    def serve(self) -> None:
        """Serve what there is; killed amid it, the next one goes on."""
        for _ in range(6):
            try:
                self.server.run_once(0)
            except KilledError:
                self._replace()

    def _replace(self) -> None:
        self._abandon()
        self.meanwhile()
        keeper = Keeper()
        keeper.take({"guest-1": [os.dup(fd) for fd in self.ends]})
        self.server = Server(keeper=keeper)
        assert self.server.succession is not None
        assert self.server.succession.take_back() == 1

    def _abandon(self) -> None:
        """Close what a killed process has open, and do nothing else."""
        assert self.server.succession is not None
        self.server.succession.let_go()
        self.server.close()

    def close(self) -> None:
        """End the last one."""
        self._abandon()
        for fd in self.ends:
            os.close(fd)


class FrontEnd:
    """Says a conversation, and keeps what it is answered."""

    def __init__(self, sock: socket.socket, talk: list[tuple[Message, bytes | None]]) -> None:
        self._sock, self._talk = sock, talk
        self._said = 0
        self._reader = MessageReader()
        self.replies: list[Message] = []

    def say(self) -> bool:
        """The next message; whether there was one."""
        if self._said == len(self._talk):
            return False
        message, _ = self._talk[self._said]
        self._said += 1
        assert send_some(self._sock, encode(message), message.fds) == HEADER_BYTES + len(message.payload)
        return True

    def hear(self) -> None:
        """Whatever has come; a descriptor that came is closed at once."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _ = receive_some(self._sock, self._reader.wanted_bytes)
                assert data, "the connection is closed"
                self._reader.receive(data, fds)
                reply = self._reader.next_message()
                if reply is not None:
                    self.replies.append(reply)
                    assert len(reply.fds) == (reply.request == Request.GET_INFLIGHT_FD)
                    for fd in reply.fds:
                        os.close(fd)

    def go_on(self) -> None:
        """Say more once all is answered."""
        self.hear()
        if len(self.replies) == sum(end is not None for _, end in self._talk[: self._said]):
            self.say()

    def check(self) -> None:
        """Each request has one reply, the right one."""
        wanted = [(message.request, end) for message, end in self._talk if end is not None]
        assert [reply.request for reply in self.replies] == [request for request, _ in wanted]
        for reply, (request, end) in zip(self.replies, wanted, strict=True):
            told = decode_config(reply.payload).data if request == Request.GET_CONFIG else reply.payload
            assert told.endswith(end)


def play(patch: pytest.MonkeyPatch, kill_at: int, how: How = "one by one", spoil: Spoil | None = None) -> int:
    """Have the conversation with a daemon that is killed once; how many steps there were."""
    ours, theirs = socket.socketpair()
    eventfd = os.eventfd(0, os.EFD_CLOEXEC)
    with contextlib.ExitStack() as resources, patch.context() as patched:
        resources.callback(os.close, eventfd)
        resources.enter_context(ours)
        steps = Steps(patched)
        patched.setattr(time, "thread_time", lambda: 0.0)  # nothing is dear, so no guest has to rest
        if spoil is not None:
            spoil(patched, steps)
        ours.setblocking(False)
        front_end = FrontEnd(ours, conversation(eventfd))
        daemons = Daemons(steps, theirs, front_end.go_on if how == "without waiting for a successor" else lambda: None)
        resources.callback(daemons.close)
        steps.count, steps.kill_at = 0, kill_at
        while front_end.say():
            if how != "all at once":
                daemons.serve()
        for _ in range(6):
            daemons.serve()
        front_end.hear()
        front_end.check()
        return steps.count


@pytest.mark.parametrize("how", get_args(How))
def test_every_request_is_answered_once_wherever_the_daemon_is_killed(
    how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each write, take and send."""
    steps = play(monkeypatch, -1, how)
    assert steps > 100
    for kill_at in range(1, steps + 1):
        play(monkeypatch, kill_at, how)


def without_marks(patch: pytest.MonkeyPatch, steps: Steps) -> None:
    """What was taken from the socket is told by one number for all states."""
    assert steps.count == 0
    patch.setattr("pagetide.host.guest.kept_connection._mark", lambda _: 0)


def with_plain_sends(patch: pytest.MonkeyPatch, steps: Steps) -> None:
    """A reply is sent by one call, and noted as sent by another."""

    def send_replies(keep: Keep, connection_fd: int) -> None:
        if keep.unsent_bytes:
            os.write(connection_fd, keep.unread_reply())
            steps.one()
            keep.replies_gone()

    patch.setattr(Keep, "send_replies", send_replies)


@pytest.mark.parametrize("spoil", [without_marks, with_plain_sends])
def test_the_test_above_can_fail(spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the kernel counts in the same call, some kill has a message lost or answered twice."""
    steps = play(monkeypatch, -1, spoil=spoil)
    failed = 0
    for kill_at in range(1, steps + 1):
        try:
            play(monkeypatch, kill_at, spoil=spoil)
        except AssertionError:
            failed += 1
    assert failed


def test_a_guest_that_another_version_kept_is_let_go_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A state that cannot be read is an error for who takes over, and a line in the log of who was started anew."""
    for strict in (True, False):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            keep = Keeper().begin(theirs.fileno())
            assert keep is not None
            ends = [os.dup(fd) for fd in keep.box.fds]
            keep.close()
            keeper = Keeper()
            keeper.strict = strict
            with monkeypatch.context() as patched:
                patched.setattr("pagetide.host.device.kept_head.VERSION", 2)
                keeper.take({"guest-1": ends})
                if strict:
                    with pytest.raises(UnreadableStateError, match=r"version 1 .* reads version 2"):
                        keeper.take_guests()
                else:
                    assert keeper.take_guests() == []
                    assert "let go: it was kept in version 1" in caplog.text
