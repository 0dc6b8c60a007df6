"""Whatever is called in whatever order, the two vhost-user state machines agree, or refuse."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagetide.virtio.vhost_user.events import (
    DeviceReset,
    MemoryRegionAdded,
    MemoryRegionRemoved,
    MemoryTableSet,
    QueueStarted,
    QueueStopped,
)
from pagetide.virtio.vhost_user.messages import (
    ProtocolFeature,
    Request,
)
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.virtio.vhost_user.fake_link import FakeLink
from tests.virtio.vhost_user.negotiated import CALL, ERR, FEATURES, KICK, REGION


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
