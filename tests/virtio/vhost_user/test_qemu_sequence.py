"""What QEMU 11.1.3 sends for a generic device, recorded from a real guest, at device_add, device_del and device_add."""

from pagetide.virtio.vhost_user.events import (
    CallReplaced,
    Event,
    FeaturesSet,
    MemoryRegionAdded,
    QueueStarted,
    QueueStopped,
    SessionBegun,
)
from pagetide.virtio.vhost_user.messages import FLAG_NEED_REPLY, Message, Request
from pagetide.virtio.vhost_user.payloads import (
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    VringAddress,
    encode_single_region,
)
from tests.virtio.vhost_user.fake_link import FakeLink

OFFERED = 0x17000002E
QUEUES = 5
PROTOCOL = 0x1B229
REGION = MemoryRegion(0, 1 << 30, 0x7F1ABBFFF000, 0)


class Qemu:
    """Plays the recorded messages; descriptors are numbers, each used once."""

    def __init__(self) -> None:
        self.link = FakeLink(OFFERED, queue_count=QUEUES)
        self._next_fd = 100

    def send(self, request: Request, payload: bytes = b"", *, fds: int = 0, ack: bool = False) -> None:
        """One message, with REPLY_ACK's flag where QEMU sets it."""
        given = tuple(range(self._next_fd, self._next_fd + fds))
        self._next_fd += fds
        message = Message(request, FLAG_NEED_REPLY if ack else 0, payload, given)
        taken = self.link.backend.take(message)
        self.link.events += taken
        self.link.closed += self.link.backend.take_unneeded_fds()
        assert (self.link.backend.answer(message) is not None) == (ack or request.name.startswith("GET_"))

    def plug(self) -> None:
        """The device is made, with or without a guest that looks at it."""
        self.send(Request.GET_FEATURES)
        self.send(Request.GET_PROTOCOL_FEATURES)
        self.send(Request.SET_PROTOCOL_FEATURES, U64.pack(PROTOCOL))
        self.send(Request.GET_QUEUE_NUM)
        self.send(Request.GET_MAX_MEM_SLOTS)
        self.send(Request.SET_BACKEND_REQ_FD, fds=1, ack=True)
        self.send(Request.SET_OWNER)
        self.send(Request.GET_FEATURES)
        for queue in range(QUEUES):
            self.send(Request.SET_VRING_CALL, U64.pack(queue), fds=1, ack=True)
            self.send(Request.SET_VRING_ERR, U64.pack(queue), fds=1, ack=True)

    def start(self, *, status: bool, region: bool) -> None:
        """The driver is ready: QEMU asks for the status, and sets it and shares memory unless it did so before."""
        self.send(Request.SET_FEATURES, U64.pack(OFFERED))
        self.send(Request.GET_STATUS)
        if status:
            self.send(Request.SET_STATUS, U64.pack(8))
        if region:
            self.send(Request.ADD_MEM_REG, encode_single_region(REGION), fds=1, ack=True)
        for queue in range(QUEUES):
            self.send(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 128))
            self.send(Request.SET_VRING_BASE, VRING_STATE.pack(queue, 0))
            self.send(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*place(queue)))
            self.send(Request.SET_VRING_KICK, U64.pack(queue), fds=1, ack=True)
            self.send(Request.SET_VRING_CALL, U64.pack(queue), fds=1, ack=True)
        for queue in range(QUEUES):
            self.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue, 1), ack=True)
        for queue in range(QUEUES):
            self.send(Request.SET_VRING_CALL, U64.pack(queue), fds=1, ack=True)

    def stop(self) -> None:
        """The virtual machine is stopped, or the device is removed: no reset is told, and no memory removed."""
        for queue in range(QUEUES):
            self.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue, 0), ack=True)
        for queue in range(QUEUES):
            self.send(Request.GET_VRING_BASE, VRING_STATE.pack(queue, 0))

    def events(self) -> list[Event]:
        """What came of the messages since this was asked, apart from calls."""
        events: list[Event] = [event for event in self.link.events if not isinstance(event, CallReplaced)]
        self.link.events.clear()
        return events


def place(queue: int) -> VringAddress:
    """Where a queue is, and its used ring's guest-physical address, which QEMU gives as the log's."""
    base = REGION.user_address + 0x1000_0000 * (queue + 1)
    return VringAddress(queue, 0, base, base + 0x940, base + 0x800, base - REGION.user_address + 0x940)


def test_a_device_that_is_removed_and_added_begins_a_new_session() -> None:
    """SET_OWNER on the open connection begins a session without memory, queues, status or the old descriptors."""
    qemu = Qemu()
    qemu.plug()
    assert qemu.events() == []
    qemu.start(status=True, region=True)
    features, added, *started = qemu.events()
    assert features == FeaturesSet(OFFERED)
    assert isinstance(added, MemoryRegionAdded)
    assert [event.queue for event in started if isinstance(event, QueueStarted)] == list(range(QUEUES))
    assert qemu.link.backend.config_changed() is not None

    qemu.stop()
    assert qemu.events() == [QueueStopped(queue) for queue in range(QUEUES)]
    assert qemu.link.backend.config_changed() is None
    assert qemu.link.backend.vrings.any_was_started

    qemu.plug()
    assert qemu.events() == [SessionBegun(())]
    backend = qemu.link.backend
    assert (backend.status, int(backend.protocol_features), backend.has_channel) == (0, PROTOCOL, True)
    assert not backend.vrings.any_was_started
    assert backend.config_changed() is None

    qemu.start(status=True, region=True)
    assert sum(isinstance(event, QueueStarted) for event in qemu.events()) == QUEUES
    assert backend.config_changed() is not None
    kept = {added.fd, qemu.link.backend.vrings.call_fd(0)}
    assert not kept & set(qemu.link.closed), "memory's descriptors are the caller's, and what is in use stays open"
    assert len(set(qemu.link.closed)) == len(qemu.link.closed)


def test_a_guest_that_goes_on_shares_no_memory_anew() -> None:
    """After stop and cont the queues start again in the same session, with what was shared before."""
    qemu = Qemu()
    qemu.plug()
    qemu.start(status=True, region=True)
    qemu.stop()
    qemu.events()
    qemu.start(status=False, region=False)
    events = qemu.events()
    assert events[0] == FeaturesSet(OFFERED)
    assert sum(isinstance(event, QueueStarted) for event in events) == QUEUES
    assert len(events) == 1 + QUEUES


def test_a_session_that_is_taken_over_midway_leaves_its_queues() -> None:
    """An owner that comes while queues are started: they are stopped, and every descriptor is given up once."""
    qemu = Qemu()
    qemu.plug()
    qemu.start(status=True, region=True)
    qemu.events()
    vrings = qemu.link.backend.vrings
    held = [vrings.call_fd(queue) for queue in range(QUEUES)] + [vrings.err_fd(queue) for queue in range(QUEUES)]
    qemu.plug()
    assert qemu.events() == [SessionBegun(tuple(range(QUEUES)))]
    assert set(held) <= set(qemu.link.closed)
    assert len(set(qemu.link.closed)) == len(qemu.link.closed)
