"""The two vhost-user state machines, joined by a fake link."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagetide.virtio.balloon import Feature, Status
from pagetide.virtio.vhost_user.events import (
    ConfigWritten,
    DeviceReset,
    FeaturesSet,
    InflightAsked,
    InflightGiven,
    MemoryRegionAdded,
    MemoryRegionRemoved,
    MemoryTableSet,
    QueueStarted,
    QueueStopped,
)
from pagetide.virtio.vhost_user.frontend import RefusedError, VhostUserFrontend
from pagetide.virtio.vhost_user.messages import (
    F_PROTOCOL_FEATURES,
    FLAG_REPLY,
    LocalProtocolError,
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
    VringAddress,
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

FEATURES = int(Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.REPORTING)
REGION = MemoryRegion(0, 1 << 30, 0, 0)
KICK, CALL, ERR = Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR


def negotiated(features: ProtocolFeature = PROTOCOL_FEATURES) -> FakeLink:
    """A link on which these protocol features are agreed on."""
    link = FakeLink(FEATURES)
    link.call(Request.SET_PROTOCOL_FEATURES, U64.pack(features))
    link.frontend.protocol_features = features
    return link


def start(link: FakeLink, queue: int = 0, base: int = 0, kick_fd: int = 10) -> VringAddress:
    """Start a queue as most front-ends do."""
    address = VringAddress(queue, 0, 0x1000, 0x3000, 0x2000)
    link.call(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 32))
    link.call(Request.SET_VRING_BASE, VRING_STATE.pack(queue, base))
    link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
    link.call(KICK, U64.pack(queue), (kick_fd,))
    return address


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


class Negotiation(RuleBasedStateMachine):
    """Any legal requests, in pieces of any size: the events say what the front-end set, and no descriptor is lost."""

    queues = st.integers(0, 2)

    @initialize(piece_bytes=st.integers(1, 100), features=st.sampled_from([PROTOCOL_FEATURES, ProtocolFeature(0)]))
    def begin(self, piece_bytes: int, features: ProtocolFeature) -> None:
        self.link = FakeLink(FEATURES, piece_bytes=piece_bytes)
        self.link.call(Request.SET_PROTOCOL_FEATURES, U64.pack(features))
        self.link.frontend.protocol_features = features
        self.link.refuses = self.handle
        self.next_fd = 100
        self.sent: list[int] = []
        self.memory_fds: list[int] = []
        self.running: dict[int, tuple[int, int]] = {}
        self.told: dict[int, dict[str, int]] = {queue: {"size": 0, "desc": 0, "on": 1} for queue in range(3)}
        self.kicks: dict[int, int] = {}

    def fd(self) -> int:
        self.next_fd += 1
        self.sent.append(self.next_fd)
        return self.next_fd

    def handle(self, event: object) -> bool:
        if isinstance(event, QueueStarted):
            assert event.queue not in self.running
            self.running[event.queue] = (event.size, event.address.desc)
        elif isinstance(event, QueueStopped):
            del self.running[event.queue]
        elif isinstance(event, DeviceReset):
            for queue in event.stopped:
                del self.running[queue]
        elif isinstance(event, MemoryTableSet):
            self.memory_fds += event.fds
        elif isinstance(event, MemoryRegionAdded):
            self.memory_fds.append(event.fd)
        return False

    @rule(queue=queues, size=st.sampled_from([16, 32]))
    def num(self, queue: int, size: int) -> None:
        self.link.call(Request.SET_VRING_NUM, VRING_STATE.pack(queue, size))
        self.told[queue]["size"] = size

    @rule(queue=queues, desc=st.sampled_from([0x1000, 0x2000]))
    def addr(self, queue: int, desc: int) -> None:
        self.link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(queue, 0, desc, 1, 2, 0))
        self.told[queue]["desc"] = desc

    @rule(queue=queues, request=st.sampled_from([KICK, CALL, ERR]), none=st.sampled_from([False, False, True]))
    def descriptor(self, queue: int, request: Request, none: bool) -> None:
        if none:
            self.link.call(request, U64.pack(queue | NO_FD))
        else:
            self.link.call(request, U64.pack(queue), (self.fd(),))

    @rule(queue=queues)
    def base(self, queue: int) -> None:
        self.link.call(Request.GET_VRING_BASE, VRING_STATE.pack(queue, 0))
        assert queue not in self.running

    @rule(queue=queues, on=st.integers(0, 1))
    def enable(self, queue: int, on: int) -> None:
        self.link.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue, on))
        self.told[queue]["on"] = on

    @rule(count=st.integers(0, 3))
    def memory(self, count: int) -> None:
        table = [MemoryRegion(index << 30, 1 << 30, 0, 0) for index in range(count)]
        self.link.call(Request.SET_MEM_TABLE, encode_mem_table(table), tuple(self.fd() for _ in range(count)))

    @rule()
    def single_region(self) -> None:
        if self.link.frontend.protocol_features:
            self.link.call(Request.ADD_MEM_REG, encode_single_region(REGION), (self.fd(),))
            self.link.call(Request.REM_MEM_REG, encode_single_region(REGION), (self.fd(),))
            assert isinstance(self.link.events[-1], MemoryRegionRemoved)

    @rule()
    def reset(self) -> None:
        self.link.call(Request.RESET_OWNER)
        assert self.running == {}

    @invariant()
    def what_runs_is_what_was_told(self) -> None:
        if hasattr(self, "link"):
            for queue, (size, desc) in self.running.items():
                told = self.told[queue]
                assert (size, desc, 1) == (told["size"], told["desc"], told["on"])

    def teardown(self) -> None:
        if hasattr(self, "link"):
            gone = self.link.closed + self.link.backend.close() + self.memory_fds
            assert sorted(gone) == sorted(self.sent), "every descriptor is given back exactly once"


TestNegotiation = Negotiation.TestCase
TestNegotiation.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
