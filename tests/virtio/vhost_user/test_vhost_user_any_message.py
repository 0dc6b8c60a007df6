"""The back-end and messages that nobody should send: no descriptor is lost or given back twice, whatever comes."""

import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pagetide.virtio.vhost_user.backend import VhostUserBackend
from pagetide.virtio.vhost_user.events import (
    DeviceReset,
    InflightGiven,
    MemoryRegionAdded,
    MemoryTableSet,
    QueueStarted,
)
from pagetide.virtio.vhost_user.messages import (
    FLAG_NEED_REPLY,
    FLAG_REPLY,
    Message,
    RemoteProtocolError,
    Request,
    encode,
)
from pagetide.virtio.vhost_user.payloads import (
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    MemoryRegion,
    decode_config,
    decode_u64,
    encode_config,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.virtio.vhost_user.fake_link import FakeLink

REGION = MemoryRegion(0, 1 << 30, 0, 0)
NEGOTIATE = Message(Request.SET_PROTOCOL_FEATURES, payload=U64.pack(PROTOCOL_FEATURES))

payloads = (
    st.binary(max_size=72)
    | st.builds(VRING_STATE.pack, st.integers(0, 4), st.integers(0, 64))
    | st.builds(U64.pack, st.integers(0, 0x1FF))
    | st.just(encode_single_region(REGION))
    | st.integers(0, 3).map(lambda count: encode_mem_table([REGION] * count))
    | st.builds(
        lambda offset, size: encode_config(ConfigSpace(offset, size, 0, bytes(size))), *[st.integers(0, 40)] * 2
    )
    | st.builds(lambda queue: VRING_ADDRESS.pack(queue, 0, 1, 2, 3, 0), st.integers(0, 4))
)
messages = st.tuples(
    st.sampled_from(Request) | st.integers(0, 99),
    st.sampled_from([0, FLAG_NEED_REPLY, FLAG_NEED_REPLY, FLAG_REPLY]),
    payloads,
    st.integers(0, 3),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, max_size=30))
def test_every_descriptor_is_given_back_once_whatever_comes(sent: list[tuple[int, int, bytes, int]]) -> None:
    """Each descriptor leaves exactly once: to be closed, or with an event about memory; and each reply can be sent."""
    backend = VhostUserBackend(0, 3, bytearray(16))
    backend.take(NEGOTIATE)
    came: list[int] = []
    left: list[int] = []
    for request, flags, payload, fd_count in sent:
        fds = tuple(range(100 + len(came), 100 + len(came) + fd_count))
        came += fds
        message = Message(request, flags, payload, fds)
        with contextlib.suppress(RemoteProtocolError):
            for event in backend.take(message):
                if isinstance(event, MemoryTableSet):
                    left += event.fds
                elif isinstance(event, MemoryRegionAdded | InflightGiven):
                    left.append(event.fd)
            reply = backend.answer(message)
            assert reply is None or len(encode(reply)) >= 12
        left += backend.take_unneeded_fds()
    assert sorted(left + backend.close()) == came


def test_the_descriptor_of_a_malformed_rem_mem_reg_is_given_back_once() -> None:
    """It may come with a descriptor that is not needed, and be refused besides: that is still one close."""
    backend = VhostUserBackend(0, 3, bytearray(16))
    backend.take(NEGOTIATE)
    with pytest.raises(RemoteProtocolError, match="5 bytes"):
        backend.take(Message(Request.REM_MEM_REG, payload=bytes(5), fds=(50,)))
    assert backend.take_unneeded_fds() == [50]


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 16), (15, 1), (16, 0), (8, 16), (20, 4), (0, 256), (4092, 4), (0xFFFF_FFFF, 8)]
)
def test_a_reply_to_get_config_is_as_long_as_its_request(offset: int, size: int) -> None:
    """What is beyond the configuration space reads as zeros: a front-end may end at an error that a driver provokes."""
    link = FakeLink(0, config=bytes(range(1, 17)))
    link.deliver(NEGOTIATE)
    link.frontend.protocol_features = PROTOCOL_FEATURES
    request = encode_config(ConfigSpace(offset, size, 0, bytes(size)))
    there = bytes(range(1, 17))[offset : offset + size]
    expected = ConfigSpace(offset, size, 0, there + bytes(size - len(there)))
    assert decode_config(link.call(Request.GET_CONFIG, request)) == expected


def prepare_disabled_queue(link: FakeLink) -> None:
    """Tell all of queue 0 but that it is enabled."""
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 0))
    link.call(Request.SET_VRING_NUM, VRING_STATE.pack(0, 32))
    link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(0, 0, 0x1000, 0x3000, 0x2000, 0))
    link.call(Request.SET_VRING_KICK, U64.pack(0), (10,))


@pytest.mark.parametrize(
    ("request_", "payload"),
    [(Request.RESET_DEVICE, b""), (Request.SET_STATUS, U64.pack(0)), (Request.RESET_OWNER, b"")],
)
def test_a_queue_that_was_disabled_at_a_reset_does_not_start_where_it_was(request_: Request, payload: bytes) -> None:
    """Being enabled after a reset starts nothing, and the kick of before is to be closed."""
    link = FakeLink(0)
    link.deliver(NEGOTIATE)
    link.frontend.protocol_features = PROTOCOL_FEATURES
    prepare_disabled_queue(link)
    link.call(request_, payload)
    assert link.closed == [10]
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    assert link.events == [DeviceReset(())]


@pytest.mark.parametrize(("request_", "starts"), [(Request.RESET_DEVICE, False), (Request.RESET_OWNER, True)])
def test_only_a_reset_of_the_device_forgets_where_queues_are(request_: Request, starts: bool) -> None:
    """After RESET_DEVICE a kick alone starts nothing; RESET_OWNER only stops queues and keeps what they were told."""
    link = FakeLink(0)
    link.deliver(NEGOTIATE)
    link.frontend.protocol_features = PROTOCOL_FEATURES
    prepare_disabled_queue(link)
    link.call(request_)
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    link.call(Request.SET_VRING_KICK, U64.pack(0), (11,))
    assert any(isinstance(event, QueueStarted) for event in link.events) == starts


def test_only_a_reset_clears_needs_reset() -> None:
    """A front-end that sets the status that it knew of does not take it away (virtio 1.2, 2.1.1)."""
    link = FakeLink(0)
    link.deliver(NEGOTIATE)
    link.frontend.protocol_features = PROTOCOL_FEATURES
    link.backend.status = 0x4F
    link.call(Request.SET_STATUS, U64.pack(0x0F))
    assert decode_u64(link.call(Request.GET_STATUS)) == 0x4F
    link.call(Request.SET_STATUS, U64.pack(0))
    assert decode_u64(link.call(Request.GET_STATUS)) == 0


def test_a_reset_of_the_device_clears_its_status() -> None:
    """NEEDS_RESET does not outlive the reset that it asked for (virtio 1.2, 2.1.2)."""
    link = FakeLink(0)
    link.deliver(NEGOTIATE)
    link.frontend.protocol_features = PROTOCOL_FEATURES
    link.backend.status = 0x4F
    link.call(Request.RESET_DEVICE)
    assert decode_u64(link.call(Request.GET_STATUS)) == 0
