"""The two vhost-user state machines, joined by a fake link."""

import pytest

from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user.events import (
    ConfigWritten,
    DeviceReset,
    FeaturesSet,
    InflightAsked,
    InflightGiven,
    MemoryRegionAdded,
    MemoryTableSet,
    QueueStarted,
    QueueStopped,
)
from pagetide.virtio.vhost_user.messages import (
    F_PROTOCOL_FEATURES,
    Message,
    ProtocolFeature,
    RemoteProtocolError,
    Request,
)
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    decode_config,
    decode_inflight,
    decode_u64,
    decode_vring_state,
    encode_config,
    encode_inflight,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.virtio.vhost_user.fake_link import FakeLink
from tests.virtio.vhost_user.negotiated import CALL, ERR, FEATURES, KICK, REGION, negotiated, start


def test_what_is_offered_can_be_read() -> None:
    """Features, protocol features, queues, memory slots and status answer what the back-end was made with."""
    link = negotiated()
    assert decode_u64(link.call(Request.GET_FEATURES)) == FEATURES | F_PROTOCOL_FEATURES
    assert decode_u64(link.call(Request.GET_PROTOCOL_FEATURES)) == PROTOCOL_FEATURES
    assert decode_u64(link.call(Request.GET_QUEUE_NUM)) == 3
    assert decode_u64(link.call(Request.GET_MAX_MEM_SLOTS)) >= 8
    link.call(Request.SET_STATUS, U64.pack(11))
    assert decode_u64(link.call(Request.GET_STATUS)) == 11


def test_umls_order_starts_a_queue() -> None:
    """Call before size and features, features twice, a padded table, no SET_VRING_ENABLE: the kick starts the queue."""
    link = FakeLink(FEATURES)
    link.call(Request.SET_OWNER)
    link.call(Request.GET_FEATURES)
    link.call(Request.SET_PROTOCOL_FEATURES, U64.pack(PROTOCOL_FEATURES))
    link.frontend.protocol_features = PROTOCOL_FEATURES
    link.call(Request.SET_BACKEND_REQ_FD, fds=(7,))
    link.call(CALL, U64.pack(0), (8,))
    link.call(Request.SET_FEATURES, U64.pack(FEATURES))
    link.call(Request.SET_FEATURES, U64.pack(FEATURES))
    link.call(Request.SET_MEM_TABLE, encode_mem_table([REGION]).ljust(72, b"\0"), (9,))
    address = start(link)
    assert link.events == [
        FeaturesSet(FEATURES),
        FeaturesSet(FEATURES),
        MemoryTableSet((REGION,), (9,)),
        QueueStarted(0, 32, address, 10),
    ]
    assert (link.backend.vrings.call_fd(0), link.backend.vrings.err_fd(0)) == (8, -1)


def test_qemus_order_starts_a_queue() -> None:
    """Regions one by one, call and error for every ring before the features, then one queue, enabled explicitly."""
    link = negotiated()
    for queue in range(3):
        link.call(CALL, U64.pack(queue), (20 + queue,))
        link.call(ERR, U64.pack(queue), (30 + queue,))
    link.call(Request.SET_FEATURES, U64.pack(FEATURES))
    holes = [MemoryRegion(0, 0xA0000, 1 << 40, 0), MemoryRegion(0xC0000, 1 << 20, (1 << 40) + 0xC0000, 0xC0000)]
    for fd, region in enumerate(holes, 40):
        link.call(Request.ADD_MEM_REG, encode_single_region(region), (fd,))
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(2, 0))
    address = start(link, 2)
    assert not any(isinstance(event, QueueStarted) for event in link.events)
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(2, 1))
    assert link.events[1:] == [
        *(MemoryRegionAdded(region, fd) for fd, region in enumerate(holes, 40)),
        QueueStarted(2, 32, address, 10),
    ]
    assert (link.backend.vrings.call_fd(2), link.backend.vrings.err_fd(2)) == (22, 32)


def test_the_base_of_a_stopped_queue_is_where_it_stood() -> None:
    """GET_VRING_BASE stops the queue and answers what the device said; the queue then starts there, or where told."""
    link = negotiated()
    start(link, base=5)
    assert link.backend.vrings.base(0) == 5

    def stand_at_9(event: object) -> bool:
        if isinstance(event, QueueStopped):
            link.backend.vrings.stopped_at(event.queue, 9)
        return False

    link.refuses = stand_at_9
    assert decode_vring_state(link.call(Request.GET_VRING_BASE, VRING_STATE.pack(0, 0))) == (0, 9)
    assert link.closed == [10]
    link.call(KICK, U64.pack(0), (11,))
    assert link.backend.vrings.base(0) == 9
    assert [type(event) for event in link.events[-2:]] == [QueueStopped, QueueStarted]
    link.call(Request.SET_VRING_BASE, VRING_STATE.pack(0, 3))
    link.call(KICK, U64.pack(0), (12,))
    assert link.backend.vrings.base(0) == 3, "a base that was given counts, not where the queue stood"


def test_a_queue_that_is_redefined_stops_until_the_next_kick() -> None:
    """A new address stops a started queue; the same address again changes nothing."""
    link = negotiated()
    address = start(link)
    link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
    assert [type(event) for event in link.events] == [QueueStarted]
    link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address._replace(desc=0x9000)))
    link.call(KICK, U64.pack(0), (11,))
    assert link.events[1:] == [QueueStopped(0), QueueStarted(0, 32, address._replace(desc=0x9000), 11)]


def test_a_new_kick_restarts_a_queue() -> None:
    """A second kick descriptor stops the queue and starts it with the new one; the old one is to be closed."""
    link = negotiated()
    address = start(link)
    link.call(KICK, U64.pack(0), (11,))
    assert link.events[-2:] == [QueueStopped(0), QueueStarted(0, 32, address, 11)]
    assert link.closed == [10]
    link.call(KICK, U64.pack(0 | NO_FD))
    assert link.events[-1] == QueueStopped(0)
    assert link.closed == [10, 11]


@pytest.mark.parametrize("request_", [Request.RESET_OWNER, Request.RESET_DEVICE])
def test_a_reset_stops_every_queue(request_: Request) -> None:
    """The event names the queues that were started, and they begin at 0 next time."""
    link = negotiated()
    start(link, 0, 4, 10)
    start(link, 2, 4, 12)
    link.call(request_)
    assert link.events[-1] == DeviceReset((0, 2))
    assert link.backend.vrings.base(0) == 0
    assert sorted(link.closed) == [10, 12]


def test_status_zero_is_a_reset() -> None:
    """Writing 0 to the device status resets the device (virtio 1.2, 2.1.2)."""
    link = negotiated()
    start(link)
    link.call(Request.SET_STATUS, U64.pack(15))
    link.call(Request.SET_STATUS, U64.pack(0))
    assert link.events[-1] == DeviceReset((0,))


def test_the_configuration_is_read_and_written() -> None:
    """A read gives the bytes that are there, and a write is an event."""
    link = negotiated()
    link.backend.config[0:4] = b"abcd"
    answer = link.call(Request.GET_CONFIG, encode_config(ConfigSpace(1, 4, 0, bytes(4))))
    assert decode_config(answer).data == b"bcd\0"
    link.call(Request.SET_CONFIG, encode_config(ConfigSpace(4, 4, 0, b"wxyz")))
    assert link.events == [ConfigWritten(ConfigSpace(4, 4, 0, b"wxyz"))]
    link.call(Request.SET_CONFIG, encode_config(ConfigSpace(14, 4, 0, b"wxyz")))
    link.call(Request.SET_CONFIG, encode_config(ConfigSpace(16, 4, 0, b"wxyz")))
    assert link.events[1:] == [ConfigWritten(ConfigSpace(14, 2, 0, b"wx"))]


def test_a_changed_configuration_is_told_on_the_back_ends_channel() -> None:
    """Without the channel nobody is told; with it the message goes to its descriptor."""
    link = negotiated()
    start(link)
    assert link.backend.config_changed() is None
    link.call(Request.SET_BACKEND_REQ_FD, fds=(7,))
    assert link.backend.config_changed() == (7, Message(2))
    link.call(Request.SET_BACKEND_REQ_FD, fds=(8,))
    assert link.closed == [7]
    link.call(Request.SET_PROTOCOL_FEATURES, U64.pack(PROTOCOL_FEATURES & ~ProtocolFeature.BACKEND_REQ))
    assert link.closed == [7, 8]
    assert link.backend.config_changed() is None


@pytest.mark.parametrize(
    ("request_", "payload"),
    [
        (Request.GET_VRING_BASE, VRING_STATE.pack(0, 0)),
        (Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 0)),
        (KICK, U64.pack(NO_FD)),
        (Request.RESET_OWNER, b""),
        (Request.RESET_DEVICE, b""),
        (Request.SET_STATUS, U64.pack(0)),
        (Request.SET_STATUS, U64.pack(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)),
    ],
)
def test_a_changed_configuration_is_told_only_to_a_driver_that_is_there(request_: Request, payload: bytes) -> None:
    """Not before a queue is started, nor once all are stopped, by whatever message, nor before a DRIVER_OK to come."""
    link = negotiated()
    link.call(Request.SET_BACKEND_REQ_FD, fds=(7,))
    assert link.backend.config_changed() is None
    start(link)
    assert link.backend.config_changed() is not None
    link.call(request_, payload)
    assert link.backend.config_changed() is None
    start(link, kick_fd=11)
    link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
    link.call(Request.SET_STATUS, U64.pack(0xF))
    assert link.backend.config_changed() is not None


def test_a_status_of_features_ok_alone_passes_nothing_on() -> None:
    """QEMU 11's generic device sets FEATURES_OK and never DRIVER_OK; its driver is there when its queues are."""
    link = negotiated()
    link.call(Request.SET_BACKEND_REQ_FD, fds=(7,))
    link.call(Request.SET_STATUS, U64.pack(Status.FEATURES_OK))
    start(link)
    assert link.backend.config_changed() is not None


def test_in_flight_memory_is_asked_for_and_given() -> None:
    """The reply carries what the device made, or nothing if it could not; what is given is an event."""
    link = negotiated()
    asked, made = Inflight(0, 0, 5, 128), Inflight(8192, 0, 5, 128)

    def make(event: object) -> bool:
        if isinstance(event, InflightAsked):
            link.backend.inflight_made(made, 77)
        return False

    link.refuses = make
    for succeeded in (True, False):
        message = link.frontend.request(Request.GET_INFLIGHT_FD, encode_inflight(asked))
        for event in link.backend.take(message):
            assert event == InflightAsked(5, 128)
            make(event)
        reply = link.backend.answer(message, succeeded=succeeded)
        assert reply is not None
        assert reply.fds == ((77,) if succeeded else ())
        assert decode_inflight(link.frontend.take(reply)) == (made if succeeded else Inflight(0, 0, 0, 0))
    link.call(Request.SET_INFLIGHT_FD, encode_inflight(made), (60,))
    assert link.events == [InflightGiven(made, 60)]
    assert link.closed == []
    start(link, 1)
    link.call(Request.GET_VRING_BASE, VRING_STATE.pack(1, 0))
    link.call(Request.SET_INFLIGHT_FD, encode_inflight(made), (61,))
    start(link, 1, kick_fd=11)
    with pytest.raises(RemoteProtocolError, match="SET_INFLIGHT_FD while queue 1 is started"):
        link.call(Request.SET_INFLIGHT_FD, encode_inflight(made), (62,))
    assert link.closed == [10, 62]
