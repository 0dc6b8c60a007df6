"""What the two vhost-user state machines refuse, of each other and of themselves."""

import pytest

from pagetide.virtio.vhost_user.events import (
    MemoryTableSet,
)
from pagetide.virtio.vhost_user.frontend import RefusedError, VhostUserFrontend
from pagetide.virtio.vhost_user.messages import (
    FLAG_REPLY,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Request,
)
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_STATE,
    encode_mem_table,
    encode_single_region,
)
from tests.virtio.vhost_user.fake_link import FakeLink
from tests.virtio.vhost_user.negotiated import CALL, FEATURES, KICK, REGION, negotiated


def test_a_request_that_failed_is_refused_at_its_acknowledgement() -> None:
    """With REPLY_ACK the front-end learns which request the back-end could not do."""
    link = negotiated()
    link.refuses = lambda event: isinstance(event, MemoryTableSet)
    with pytest.raises(RefusedError, match="SET_MEM_TABLE"):
        link.call(Request.SET_MEM_TABLE, encode_mem_table([REGION]), (9,))
    link.call(Request.SET_FEATURES, U64.pack(FEATURES))


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Message(99), "request 99 is not known"),
        (Message(Request.SET_LOG_BASE, payload=bytes(16)), "SET_LOG_BASE belongs"),
        (Message(Request.SET_FEATURES, payload=U64.pack(1 << 63)), "not offered"),
        (Message(Request.SET_PROTOCOL_FEATURES, payload=U64.pack(1 << 63)), "not offered"),
        (Message(Request.SET_FEATURES, payload=b""), "0 bytes, not 8"),
        (Message(Request.SET_FEATURES, FLAG_REPLY, U64.pack(0)), "marked as a reply"),
        (Message(Request.SET_VRING_NUM, payload=VRING_STATE.pack(3, 32)), "no queue 3"),
        (Message(Request.GET_VRING_BASE, payload=VRING_STATE.pack(1 << 31, 0)), "no queue"),
        (Message(Request.SET_VRING_ENABLE, payload=VRING_STATE.pack(0, 2)), "neither 0 nor 1"),
        (Message(KICK, payload=U64.pack(0)), "0 descriptors"),
        (Message(KICK, payload=U64.pack(NO_FD), fds=(50,)), "1 descriptors"),
        (Message(CALL, payload=U64.pack(0), fds=(50, 51)), "2 file descriptors"),
        (Message(Request.SET_MEM_TABLE, payload=encode_mem_table([REGION]), fds=()), "1 regions with 0"),
        (Message(Request.SET_MEM_TABLE, payload=encode_mem_table([]), fds=(50,)), "0 regions with 1"),
        (Message(Request.ADD_MEM_REG, payload=encode_single_region(REGION)), "without its file descriptor"),
        (Message(Request.SET_INFLIGHT_FD, payload=bytes(24)), "without its file descriptor"),
        (Message(Request.GET_INFLIGHT_FD, payload=bytes(25)), "25 bytes"),
        (Message(Request.GET_INFLIGHT_FD, payload=bytes(19)), "19 bytes"),
        (Message(Request.SET_BACKEND_REQ_FD), "without its file descriptor"),
        (Message(Request.SET_BACKEND_REQ_FD, payload=bytes(8), fds=(50,)), "payload of 8 bytes"),
        (Message(Request.GET_FEATURES, payload=bytes(8)), "GET_FEATURES with a payload of 8 bytes"),
        (Message(Request.RESET_DEVICE, payload=bytes(1)), "payload of 1 bytes"),
        (Message(Request.SET_OWNER, fds=(50,)), "SET_OWNER with 1"),
        (Message(Request.GET_CONFIG, payload=bytes(5)), "5 bytes"),
    ],
)
def test_a_front_end_that_breaks_a_rule_is_told_which(message: Message, sentence: str) -> None:
    """Each broken rule is an error that names it, and every descriptor that came along is given back to be closed."""
    link = negotiated()
    with pytest.raises(RemoteProtocolError, match=sentence):
        link.deliver(message)
    assert sorted(link.closed) == sorted(message.fds)


@pytest.mark.parametrize(
    "request_", [Request.GET_CONFIG, Request.ADD_MEM_REG, Request.SET_STATUS, Request.GET_QUEUE_NUM]
)
def test_a_request_needs_its_protocol_feature(request_: Request) -> None:
    """Without the feature the back-end refuses it, and our own front-end does not even send it."""
    link = FakeLink(FEATURES)
    with pytest.raises(LocalProtocolError, match=request_.name):
        link.call(request_)
    with pytest.raises(RemoteProtocolError, match=request_.name):
        link.deliver(Message(request_))


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Message(Request.GET_FEATURES, 0, bytes(8)), "not a reply"),
        (Message(Request.GET_QUEUE_NUM, FLAG_REPLY, bytes(8)), "where one to GET_FEATURES was due"),
    ],
)
def test_a_back_end_that_answers_something_else_is_told(reply: Message, sentence: str) -> None:
    """A reply must be one, and to the request whose turn it is."""
    frontend = VhostUserFrontend()
    frontend.request(Request.GET_FEATURES)
    with pytest.raises(RemoteProtocolError, match=sentence):
        frontend.take(reply)


def test_a_reply_that_nobody_asked_for_is_refused() -> None:
    """An answer without a question is the back-end's error."""
    with pytest.raises(RemoteProtocolError, match="nobody made"):
        VhostUserFrontend().take(Message(Request.GET_FEATURES, FLAG_REPLY, bytes(8)))
