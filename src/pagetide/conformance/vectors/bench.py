"""The bench on which vectors run: a guest's memory, its driver played step by step, and what became of the memory.

Memory is laid out once for all: queues from 1 MiB on, 1 MiB each; buffers that a driver fills from 16 MiB on; what is
reported or inflated from 64 MiB on. Every page begins with a mark, and at the end of a vector every page that it did
not give away must still have it.
"""

import struct
import time
from collections.abc import Callable, Sequence

import numpy as np

from pagetide.conformance.devices.device_under_test import DeviceUnderTest, Probe
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, RING_ENTRIES, RING_IDX, RingPlace, place_ring
from pagetide.virtio.vhost_user.frontend import RefusedError
from pagetide.virtio.vhost_user.messages import RemoteProtocolError
from pagetide.virtio.vhost_user.transport import PeerGoneError

RAM_BYTES = 256 << 20
"""Memory of the guest that the vectors need."""

PAGE = PAGE_SIZE_BYTES
MIB = 1 << 20
SIZE = 32
"""Descriptors in a queue, unless a vector wants another number."""
BUFFERS = 16 * MIB
DATA = 64 * MIB
"""Guest-physical address of the first page that vectors give away."""

PATIENCE_S = 5.0
"""How long to wait for what must come."""
SILENCE_S = 0.25
"""How long to wait for what must not come."""

REFUSALS = (OSError, PeerGoneError, RefusedError, RemoteProtocolError)
"""How a device behind a socket refuses something: in words, or by hanging up."""

NEEDS_RESET = "needs reset"
"""What becomes of an element that breaks a device."""
NOTHING_DONE = "not acknowledged, 0 B gone"
"""What becomes of one that a device leaves alone."""

_LOOK_AGAIN_S = 0.005
_GLANCE_S = 0.02
_SIZE_MIN = 2

BASE = Feature.VERSION_1 | Feature.STATS_VQ | Feature.FREE_PAGE_HINT | Feature.REPORTING
"""Every queue. QEMU has queues for all that it offers, accepted or not, and numbers them so."""
ALL = BASE | Feature.EVENT_IDX | Feature.INDIRECT_DESC

Buffers = Sequence[tuple[int, int]]
"""(guest-physical address, length) of each descriptor of an element."""

_QUEUES_GPA = 1 * MIB
_QUEUE_BYTES = 1 * MIB
_TABLES_BYTES_MAX = _QUEUE_BYTES // 2
_WORDS = PAGE // 8


class NotOfferedError(Exception):
    """The device does not offer what the vector needs; the message names it."""


class GuestQueue:
    """A started queue of the played driver.

    Attributes:
        index: the queue's.
        place: where it is.
        ring: its driver half.
        written_bytes: how much the device says it has written to what is back.
    """

    def __init__(self, bench: "Bench", index: int, size: int, features: int, *, spare: bool) -> None:
        """Lay the queue out; `spare` puts it elsewhere than an earlier one of the same index."""
        self._bench = bench
        self.index = index
        self.size = size
        self.written_bytes = 0
        base = _QUEUES_GPA + (5 * spare + index) * _QUEUE_BYTES
        assert base + _QUEUE_BYTES <= BUFFERS
        self.place: RingPlace = place_ring(size, base)
        tables_gpa = base + _QUEUE_BYTES - _TABLES_BYTES_MAX
        table_descs = min(size, SIZE) if features & Feature.INDIRECT_DESC else 0
        assert size * table_descs * DESC_BYTES <= _TABLES_BYTES_MAX
        assert self.place.end_gpa <= tables_gpa
        self.ring = DriverRing(
            size,
            ram_address=bench.device.ram.address,
            place=self.place,
            event_idx=bool(features & Feature.EVENT_IDX),
            table_descs=table_descs,
            tables_gpa=tables_gpa,
        )
        bench.may_change(base, _QUEUE_BYTES)

    def add(self, buffers: Buffers, *, writable: bool) -> bool:
        """Add one element, unseen by the device yet; whether there was room."""
        gpas, lengths = np.array(buffers, np.int64).reshape(-1, 2).T.copy()
        return self.ring.add_element(gpas, lengths, writable=writable) is not None

    def publish(self) -> None:
        """Show the device what was added, and kick it if it wants that."""
        if self.ring.publish():
            self._bench.transport.kick(self.index)

    def give(self, buffers: Buffers, *, writable: bool) -> None:
        """Give the device one element."""
        assert self.add(buffers, writable=writable), "the queue has room"
        self.publish()

    def give_bytes(self, data: bytes, *, at: int = 0) -> None:
        """Give the device one readable buffer with these bytes."""
        self._bench.write(BUFFERS + at, data)
        self.give([(BUFFERS + at, len(data))], writable=False)

    def give_raw(self, descriptors: Sequence[tuple[int, int, int, int]], heads: Sequence[int], idx: int) -> None:
        """Write (address, length, flags, next) to the descriptor table, heads to the available ring, and kick."""
        for number, descriptor in enumerate(descriptors):
            self._bench.write(self.place.desc_gpa + number * DESC_BYTES, struct.pack("<QIHH", *descriptor))
        self._bench.write(self.place.avail_gpa + RING_ENTRIES, struct.pack(f"<{len(heads)}H", *heads))
        self._bench.write(self.place.avail_gpa + RING_IDX, struct.pack("<H", idx))
        self._bench.transport.kick(self.index)

    def come_back_unasked(self, count: int = 1) -> bool:
        """The same for a driver that asks for no calls, and looks again and again."""
        return self._bench.spin_until(lambda: self._took(count))

    def come_back(self, count: int = 1, patience_s: float = PATIENCE_S) -> bool:
        """Wait until this many elements are back; False if the device breaks, or does not answer."""
        return self._bench.wait_for(lambda: self._took(count), patience_s, self.ring.arm_call)

    def stays(self) -> bool:
        """Whether nothing comes back for a moment."""
        return not self.come_back(patience_s=SILENCE_S)

    def used_bytes(self) -> bytes:
        """The used ring's bytes as they are."""
        return self._bench.read(self.place.used_gpa, self.place.end_gpa - self.place.used_gpa)

    _taken = 0

    def _took(self, count: int) -> bool:
        used = self.ring.take_used()
        self.written_bytes += sum(length_bytes for _, length_bytes in used)
        self._taken += len(used)
        if self._taken < count:
            return False
        self._taken -= count
        return True


class Bench:
    """One device, and the driver that is played on it.

    Attributes:
        transport: the way to the device.
        features: what was negotiated.
        is_connected: whether the device has answered since the vector began.
    """

    transport: Probe
    features: Feature
    is_connected: bool

    def __init__(self, device: DeviceUnderTest) -> None:
        """Play on this device."""
        self.device = device
        self.ram = device.ram.words.view(np.uint8)
        self._marks = device.ram.words[::_WORDS]
        self._expected = np.ones(len(self._marks), bool)

    def begin(self) -> None:
        """Before each vector: mark every page, and expect every mark to stay."""
        self.is_connected = False
        self._marks[self._marks != 1] = 1
        self._expected[:] = True
        self._before_bytes = resident_bytes(self.device.ram.fd)

    def connect(self) -> Probe:
        """A new way to the device; whatever was before is over."""
        self.transport = self.device.connect()
        assert self.transport.offered >= 0  # a device that answers is there
        self.is_connected = True
        return self.transport

    def negotiate(self, features: Feature = ALL, *needed: Feature) -> Feature:
        """Connect and agree on features.

        Raises:
            NotOfferedError: the device does not offer one of those needed.
        """
        self.features = Feature(self.connect().negotiate(int(features)))
        for feature in needed:
            if feature & ~self.features:
                raise NotOfferedError(f"{feature.name} is not offered")
        return self.features

    def queue(self, kind: Queue, size: int = SIZE, *, spare: bool = False) -> GuestQueue:
        """Start a queue, under the number that virtio 1.2, 5.5.2, read densely, gives it.

        Raises:
            NotOfferedError: there is no such queue with what was negotiated.
        """
        numbers = queues(self.features)
        name = kind.name.lower().replace("_", " ")
        if kind not in numbers:
            raise NotOfferedError(f"a {name} queue is not offered")
        queue = GuestQueue(self, numbers.index(kind), size, self.features, spare=spare)
        count = self.transport.queue_count
        if count is not None and queue.index >= count:
            raise NotOfferedError(f"a {name} queue would be number {queue.index}, and there are {count}")
        try:
            self.transport.start_queue(queue.index, size, *queue.place[:3])
        except REFUSALS as error:
            if size > _SIZE_MIN and self._takes(queue.index, _SIZE_MIN):
                raise NotOfferedError(f"the device takes no queue of {size} descriptors") from error
            if count is None and queue.index and self._takes(0, size):
                raise NotOfferedError(f"there is no queue {queue.index}, or none that can be asked for") from error
            raise
        return queue

    def _takes(self, index: int, size: int) -> bool:
        """Whether the device takes a queue of this number and size, after it has refused another."""
        try:
            self.connect().negotiate(int(self.features))
            place = GuestQueue(self, index, size, self.features, spare=False).place
            self.transport.start_queue(index, size, *place[:3])
        except REFUSALS:
            return False
        return True

    def start(self, kind: Queue, features: Feature = ALL, *needed: Feature) -> GuestQueue:
        """Negotiate, start one queue, and say that the driver is ready."""
        self.negotiate(features, *needed)
        queue = self.queue(kind)
        self.transport.driver_ok()
        return queue

    def write(self, gpa: int, data: bytes) -> None:
        """Write to guest memory; these pages' marks need not stay."""
        self.ram[gpa : gpa + len(data)] = np.frombuffer(data, np.uint8)
        self.may_change(gpa, len(data))

    def read(self, gpa: int, size_bytes: int) -> bytes:
        """Read guest memory."""
        return self.ram[gpa : gpa + size_bytes].tobytes()

    def may_change(self, gpa: int, size_bytes: int) -> None:
        """Expect nothing of these pages any more."""
        self._expected[gpa // PAGE : -(-(gpa + size_bytes) // PAGE)] = False

    def gone_bytes(self) -> int:
        """How much less memory the host holds than when the vector began."""
        return self._before_bytes - resident_bytes(self.device.ram.fd)

    def wait_for(
        self, condition: Callable[[], bool], patience_s: float = PATIENCE_S, arm: Callable[[], bool] | None = None
    ) -> bool:
        """Wait until this is so; False if the device breaks, or patience runs out."""
        start_s, look_after_s = time.monotonic(), _GLANCE_S
        while not condition():
            waited_s = time.monotonic() - start_s
            if waited_s > patience_s:
                return False
            if waited_s > look_after_s:  # seldom: a device need not answer a driver that asks without end
                if self.device.broken:
                    return False
                look_after_s = 2 * waited_s
            if arm is None:
                self.device.wait(_LOOK_AGAIN_S)
            elif not arm():
                self.device.wait(min(SILENCE_S, patience_s))
        return True

    def spin_until(self, condition: Callable[[], bool]) -> bool:
        """Look again and again until this is so; False when patience has run out."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > give_up_s:
                return False
        return True

    def outcome(self, *, back: bool) -> str:
        """What became of an element: gone memory, whether it came back, or that the device is broken."""
        if not back and self.device.broken:
            return NEEDS_RESET if not self.gone_bytes() else f"{NEEDS_RESET}, {format_size(self.gone_bytes())} gone"
        return ("" if back else "not acknowledged, ") + f"{format_size(self.gone_bytes())} gone"

    def is_intact(self) -> bool:
        """Whether every page that was not given away still has its mark; reading fills no holes that count."""
        return bool((self._marks[self._expected] == 1).all())
