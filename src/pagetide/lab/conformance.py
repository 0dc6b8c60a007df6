"""Vectors for a virtio-balloon device's reporting queue, run on any device by our own driver's ring.

The other queues (inflate, deflate, statistics, hinting) get tables of their own beside `VECTORS`.

A vector is what a driver reports, and what must become of it. Effects are read from the memory file: which bytes are
gone, and that everything else is intact. Where stock QEMU 7.2 is known to differ, the vector says how and why; QEMU
has no test of page reporting of its own.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagetide.guest.driver import BalloonTransport
from pagetide.machine.devices import DeviceUnderTest
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import CONFIG_POISON_VAL, Feature, Queue, queues
from pagetide.virtio.ring import DESC_BYTES, place_ring
from pagetide.virtio.ring_driver import DriverRing

RAM_BYTES = 256 << 20
"""Memory of the guest that the vectors need."""

_SIZE = 32
_RING_GPA = 1 << 20
_RING_BYTES = 1 << 20
_DATA = 64 << 20
_PATIENCE_S = 5.0
_BROKEN_AFTER_S = 0.25
_BASE = Feature.VERSION_1 | Feature.STATS_VQ | Feature.REPORTING
_ALL = _BASE | Feature.EVENT_IDX | Feature.INDIRECT_DESC


class Outcome(NamedTuple):
    """What became of a report.

    Attributes:
        acknowledged: the device gave the element back.
        gone_bytes: how much memory the host no longer holds.
        broken: the device wants a reset.
    """

    acknowledged: bool
    gone_bytes: int
    broken: bool = False

    def __str__(self) -> str:
        """For the table."""
        if self.broken:
            return "needs reset"
        return ("" if self.acknowledged else "not acknowledged, ") + f"{format_size(self.gone_bytes)} gone"


class Vector(NamedTuple):
    """One report and what must become of it.

    Attributes:
        name: what it tries.
        buffers: (guest-physical address, length) of each descriptor.
        expected: what must become of it.
        reason: under which our device's ledger accounts for what was not discarded.
        writable: whether the descriptors are device-writable, as they must be.
        features: what the driver wants.
        times: how often the element is reported, with fresh memory only the first time.
        poison: value for `poison_val`, with PAGE_POISON.
        busy: whether the device is reset with a full ring just before. QEMU 7.2 under qtest has dealt with a kick when
            it answers it, so there this shows only that the reset is clean.
        qemu: what QEMU 7.2 does instead.
        why: why it does so.
    """

    name: str
    buffers: tuple[tuple[int, int], ...]
    expected: Outcome
    reason: str = ""
    writable: bool = True
    features: Feature = _ALL
    times: int = 1
    poison: int = 0
    busy: bool = False
    qemu: Outcome | None = None
    why: str = ""


def _one(length_bytes: int) -> tuple[tuple[int, int], ...]:
    return ((_DATA, length_bytes),)


def _scattered(length_bytes: int) -> tuple[tuple[int, int], ...]:
    return tuple((_DATA + 2 * index * length_bytes, length_bytes) for index in range(_SIZE))


_PAGE = PAGE_SIZE_BYTES
_MIB = 1 << 20
_NOTHING = Outcome(acknowledged=True, gone_bytes=0)
_BREAKS = Outcome(acknowledged=False, gone_bytes=0, broken=True)


def _gone(gone_bytes: int) -> Outcome:
    return Outcome(acknowledged=True, gone_bytes=gone_bytes)


VECTORS: tuple[Vector, ...] = (
    *(
        Vector(f"one block of {format_size(size_bytes)}", _one(size_bytes), _gone(size_bytes))
        for size_bytes in (_PAGE, 16 * _PAGE, 2 * _MIB, 4 * _MIB, 128 * _MIB)
    ),
    Vector("a chain of 32 scattered 4 KiB", _scattered(_PAGE), _gone(32 * _PAGE), features=_BASE),
    Vector("an indirect table of 32 scattered 4 KiB", _scattered(_PAGE), _gone(32 * _PAGE)),
    Vector("an indirect table of 32 scattered 2 MiB", _scattered(2 * _MIB), _gone(64 * _MIB)),
    Vector("a chain of 32 scattered 2 MiB", _scattered(2 * _MIB), _gone(64 * _MIB), features=_BASE),
    Vector("event index, no indirect", _one(_MIB), _gone(_MIB), features=_BASE | Feature.EVENT_IDX),
    Vector("the same block twice in one element", _one(_MIB) * 2, _gone(_MIB), reason="repeated"),
    Vector("adjacent blocks, the later one first", ((_DATA + _MIB, _MIB), (_DATA, _MIB)), _gone(2 * _MIB)),
    Vector("70 000 elements: the ring's indices wrap", _one(_PAGE), _gone(_PAGE), times=70_000),
    Vector("70 000 elements, no event index", _one(_PAGE), _gone(_PAGE), features=_BASE, times=70_000),
    Vector("a reset while a full ring is worked on", _one(2 * _MIB), _gone(2 * _MIB), busy=True),
    Vector(
        "numbering: queue 2 without statistics",
        _one(_MIB),
        _gone(_MIB),
        features=_BASE & ~Feature.STATS_VQ,
        qemu=Outcome(acknowledged=False, gone_bytes=0),
        why="QEMU always has a statistics queue, and so queue 3 reports whether or not STATS_VQ is accepted",
    ),
    Vector("an address off the page", ((_DATA + 512, _PAGE),), _NOTHING, reason="unaligned"),
    Vector("a length off the page", _one(_PAGE + 512), _NOTHING, reason="unaligned"),
    Vector("device-readable descriptors", _one(_MIB), _NOTHING, reason="device_readable", writable=False),
    Vector(
        "a descriptor of length zero",
        ((_DATA, 0),),
        _NOTHING,
        qemu=_BREAKS,
        why="QEMU takes a zero-sized buffer for a broken driver",
    ),
    Vector(
        "across the end of RAM",
        ((RAM_BYTES - _MIB, 2 * _MIB),),
        _NOTHING,
        reason="out_of_range",
        qemu=_BREAKS,
        why="QEMU maps at most one page outside of RAM, and gives the device up for more",
    ),
    Vector(
        "outside of RAM",
        ((4 * RAM_BYTES, _MIB),),
        _NOTHING,
        reason="out_of_range",
        qemu=_BREAKS,
        why="QEMU maps at most one page outside of RAM, and gives the device up for more",
    ),
    Vector("one page outside of RAM", ((4 * RAM_BYTES, _PAGE),), _NOTHING, reason="out_of_range"),
    Vector(
        "wrapping around 2^64",
        ((-_PAGE, 2 * _PAGE),),
        _NOTHING,
        reason="out_of_range",
        qemu=_gone(_PAGE),
        why="QEMU maps the last page of the address space, goes on at 0 and discards the guest's first page",
    ),
    Vector(
        "poisoned pages",
        _one(_MIB),
        _NOTHING,
        reason="poisoned",
        features=_ALL | Feature.PAGE_POISON,
        poison=0xAA,
    ),
    Vector("page poison negotiated, value zero", _one(_MIB), _gone(_MIB), features=_ALL | Feature.PAGE_POISON),
)
"""Every vector, in the order in which they run."""


class Result(NamedTuple):
    """A vector on one device.

    Attributes:
        name: the vector's.
        expected: what this device must do with it.
        found: what it did; None if the device does not offer what the vector needs.
        passed: whether that is right.
        note: why a device differs, or what was wrong.
    """

    name: str
    expected: str
    found: str | None
    passed: bool
    note: str


def run_vectors(device: DeviceUnderTest, *, is_qemu: bool = False) -> Iterator[Result]:
    """Run every vector on a device, each after a reset."""
    for vector in VECTORS:
        yield _run(vector, device, is_qemu)


def _run(vector: Vector, device: DeviceUnderTest, is_qemu: bool) -> Result:
    expected, note = vector.expected, ""
    if is_qemu and vector.qemu is not None:
        expected, note = vector.qemu, vector.why
    if vector.busy:
        _leave_busy(device, vector)
    transport = device.connect()
    features = transport.negotiate(int(vector.features))
    for needed in (Feature.REPORTING, Feature.PAGE_POISON):
        if vector.features & needed and not features & needed:
            missing = f"{needed.name} is not offered"
            return Result(vector.name, str(expected), None, needed is not Feature.REPORTING, missing)
    device.ram.words[:: PAGE_SIZE_BYTES // 8] = 1
    ring, index = _start(device, transport, features)
    if vector.features & Feature.PAGE_POISON:
        transport.write_config(CONFIG_POISON_VAL, vector.poison)
    transport.driver_ok()
    before_bytes, before = resident_bytes(device.ram.fd), device.skipped_bytes()
    patience_s = _PATIENCE_S if expected.acknowledged else _BROKEN_AFTER_S
    acknowledged = _report(device, transport, ring, index, vector, patience_s)
    broken = not acknowledged and device.broken
    found = Outcome(acknowledged, before_bytes - resident_bytes(device.ram.fd), broken)
    problem = "" if _is_intact(device, vector, found) else "memory that was not reported was changed"
    if before is not None and vector.reason and not _accounted(device, vector, before):
        problem = f"the ledger does not count {vector.reason}"
    return Result(vector.name, str(expected), str(found), found == expected and not problem, problem or note)


def _leave_busy(device: DeviceUnderTest, vector: Vector) -> None:
    """Give the device a full ring of 4 MiB blocks, and do not wait."""
    transport = device.connect()
    features = transport.negotiate(int(vector.features))
    device.ram.words[:: PAGE_SIZE_BYTES // 8] = 1
    if not features & Feature.REPORTING:
        return
    ring, index = _start(device, transport, features)
    transport.driver_ok()
    for place in range(_SIZE):
        ring.add_element(np.array([_DATA + place * 4 * _MIB]), np.array([4 * _MIB]), writable=True)
    ring.publish()
    transport.kick(index)


def _start(device: DeviceUnderTest, transport: BalloonTransport, features: int) -> tuple[DriverRing, int]:
    """A fresh reporting queue that the device knows of, and its index."""
    ring = _ring(device, features)
    index = queues(features).index(Queue.REPORTING)
    place = place_ring(_SIZE, _RING_GPA)
    transport.start_queue(index, _SIZE, place.desc_gpa, place.avail_gpa, place.used_gpa)
    return ring, index


def _report(
    device: DeviceUnderTest,
    transport: BalloonTransport,
    ring: DriverRing,
    index: int,
    vector: Vector,
    patience_s: float,
) -> bool:
    """Report the vector's element as often as it wants, as many at once as the ring holds; whether all came back."""
    gpas, lengths = np.array(vector.buffers, np.int64).T.copy()
    left = vector.times
    while left > 0:
        added = 0
        while added < left and ring.add_element(gpas, lengths, writable=vector.writable) is not None:
            added += 1
        assert added > 0, "the ring holds every vector's element"
        if ring.publish():
            transport.kick(index)
        if not _await(device, ring, added, patience_s):
            return False
        left -= added
    return True


def _ring(device: DeviceUnderTest, features: int) -> DriverRing:
    place = place_ring(_SIZE, _RING_GPA)
    tables_gpa = _RING_GPA + _RING_BYTES // 2
    assert place.end_gpa <= tables_gpa <= _RING_GPA + _RING_BYTES - _SIZE * _SIZE * DESC_BYTES
    return DriverRing(
        _SIZE,
        ram_address=device.ram.address,
        desc_gpa=place.desc_gpa,
        avail_gpa=place.avail_gpa,
        used_gpa=place.used_gpa,
        event_idx=bool(features & Feature.EVENT_IDX),
        table_descs=_SIZE if features & Feature.INDIRECT_DESC else 0,
        tables_gpa=tables_gpa,
    )


def _await(device: DeviceUnderTest, ring: DriverRing, count: int, patience_s: float) -> bool:
    """Wait until this many elements are back; False if the device breaks, or does not answer."""
    start_s = time.monotonic()
    got = len(ring.take_used())
    while got < count:
        waited_s = time.monotonic() - start_s
        if waited_s > patience_s or (waited_s > _BROKEN_AFTER_S and device.broken):
            return False
        if not ring.arm_call():
            device.wait(_BROKEN_AFTER_S)
        got += len(ring.take_used())
    return True


def _is_intact(device: DeviceUnderTest, vector: Vector, found: Outcome) -> bool:
    """Whether every page outside of the report still holds what was written to it."""
    expected = np.ones(RAM_BYTES // PAGE_SIZE_BYTES, bool)
    if found.gone_bytes:
        for gpa, length_bytes in vector.buffers:
            expected[max(gpa, 0) // PAGE_SIZE_BYTES : (gpa + length_bytes) // PAGE_SIZE_BYTES] = False
    same = (device.ram.words[:: PAGE_SIZE_BYTES // 8] == 1) == expected
    same[_RING_GPA // PAGE_SIZE_BYTES : (_RING_GPA + _RING_BYTES) // PAGE_SIZE_BYTES] = True
    return bool(same.all())


def _accounted(device: DeviceUnderTest, vector: Vector, before: dict[str, int]) -> bool:
    after = device.skipped_bytes()
    assert after is not None
    return after.get(vector.reason, 0) > before.get(vector.reason, 0)
