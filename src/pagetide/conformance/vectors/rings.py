"""The ring itself (virtio 1.2, 2.7): sizes, both ways to tell of many buffers, notification, and broken rings.

All on the reporting queue, where what a device made of a ring is seen in memory.
"""

import struct
from collections.abc import Callable, Sequence

from pagetide.conformance.vectors.bench import (
    ALL,
    BASE,
    BUFFERS,
    DATA,
    MIB,
    NEEDS_RESET,
    PAGE,
    PATIENCE_S,
    SILENCE_S,
    Bench,
    NotOfferedError,
)
from pagetide.conformance.vectors.vector import Vector
from pagetide.units import format_size
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.ring import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE

_W, _NEXT, _INDIRECT = DESC_F_WRITE, DESC_F_NEXT, DESC_F_INDIRECT
_BREAKS = NEEDS_RESET
_INDIRECT_DESC = (Feature.INDIRECT_DESC,)
_NEVER_CHECKED = "QEMU looks for INDIRECT in an element's first descriptor only, and takes this one for a buffer"

Descriptors = Sequence[tuple[int, int, int, int]]


def _raw(
    descriptors: Descriptors,
    *,
    table: Descriptors = (),
    heads: Sequence[int] = (0,),
    idx: int = 1,
    features: Feature = ALL,
    gone: bool = False,
) -> Callable[[Bench], str]:
    """Hand over this descriptor table, and this indirect table at BUFFERS."""

    def play(bench: Bench) -> str:
        is_indirect = any(flags & _INDIRECT for _, _, flags, _ in (*descriptors, *table))
        bench.negotiate(features, Feature.REPORTING, *(_INDIRECT_DESC if is_indirect and features & ALL == ALL else ()))
        queue = bench.queue(Queue.REPORTING)
        bench.transport.driver_ok()
        if gone:
            bench.may_change(DATA, 4 * MIB)
        bench.write(BUFFERS, b"".join(struct.pack("<QIHH", *descriptor) for descriptor in table) or b"\0")
        queue.give_raw(descriptors, heads, idx)
        # The ring's own driver half published nothing, so the used ring is read as it is.
        back = bench.wait_for(lambda: queue.used_bytes()[2:4] != b"\0\0")
        return bench.outcome(back=back)

    return play


def _sized(size: int) -> Callable[[Bench], str]:
    """Fill a ring of this size twice over."""

    def play(bench: Bench) -> str:
        bench.negotiate(BASE | Feature.EVENT_IDX, Feature.REPORTING)
        size_max = bench.transport.queue_size_max(queues(bench.features).index(Queue.REPORTING))
        if size_max is not None and size_max < size:
            raise NotOfferedError(f"the device's queue takes at most {size_max} descriptors")
        queue = bench.queue(Queue.REPORTING, size)
        bench.transport.driver_ok()
        bench.may_change(DATA, 2 * size * PAGE)
        for turn in range(2):
            for place in range(size):
                assert queue.add([(DATA + (turn * size + place) * PAGE, PAGE)], writable=True)
            queue.publish()
            if not queue.come_back(size):
                return bench.outcome(back=False)
        return bench.outcome(back=True)

    return play


def _asks_for_kicks(features: Feature) -> Callable[[Bench], str]:
    """Is a device that has emptied its ring to be kicked for what comes next?"""

    def play(bench: Bench) -> str:
        queue = bench.start(Queue.REPORTING, features, Feature.REPORTING, features & Feature.EVENT_IDX)
        bench.may_change(DATA, MIB)
        kicks = []
        for _ in range(3):
            queue.add([(DATA, MIB)], writable=True)
            kicks.append(queue.ring.publish())
            if kicks[-1]:
                bench.transport.kick(queue.index)
            if not queue.come_back():
                return bench.outcome(back=False)
        return "kicked every time" if all(kicks[1:]) else "not kicked"

    return play


def _calls(features: Feature) -> Callable[[Bench], str]:
    """Is the driver called when it asks for it, and left alone when it does not (2.7.7.2)?"""

    def play(bench: Bench) -> str:
        queue = bench.start(Queue.REPORTING, features, Feature.REPORTING, features & Feature.EVENT_IDX)
        bench.may_change(DATA, 2 * MIB)
        while bench.device.wait(SILENCE_S):
            pass
        queue.ring.arm_call()
        queue.give([(DATA, MIB)], writable=True)
        asked = bench.device.wait(PATIENCE_S)
        back = queue.come_back_unasked()
        queue.ring.disarm_call()
        while bench.device.wait(SILENCE_S):
            pass
        queue.give([(DATA + MIB, MIB)], writable=True)
        back = back and queue.come_back_unasked()
        unasked = bench.device.wait(SILENCE_S)
        calls = f"{'called' if asked else 'not called'}, then {'called' if unasked else 'not called'}"
        return f"{calls}, {bench.outcome(back=back)}"

    return play


def _vector(name: str, play: Callable[[Bench], str], expected: str, qemu: str = "", why: str = "") -> Vector:
    return Vector("ring", name, play, expected, "", qemu, why)


VECTORS: tuple[Vector, ...] = (
    *(
        _vector(f"a queue of {size}", _sized(size), f"{format_size(2 * size * PAGE)} gone")
        for size in (1, 2, 16, 32, 128, 1024)
    ),
    _vector("an emptied ring is to be kicked, by flag", _asks_for_kicks(BASE), "kicked every time"),
    _vector(
        "an emptied ring is to be kicked, by event index",
        _asks_for_kicks(BASE | Feature.EVENT_IDX),
        "kicked every time",
    ),
    _vector(
        "a call when it is asked for, by flag",
        _calls(BASE),
        "called, then not called, 2 MiB gone",
    ),
    _vector(
        "a call when it is asked for, by event index",
        _calls(BASE | Feature.EVENT_IDX),
        "called, then not called, 2 MiB gone",
    ),
    _vector(
        "readable buffers before writable ones: only these are discarded",
        _raw([(DATA + MIB, MIB, _NEXT, 1), (DATA, MIB, _W, 0)], gone=True),
        "1 MiB gone",
    ),
    _vector(
        "a writable buffer before a readable one",
        _raw([(DATA, MIB, _W | _NEXT, 1), (DATA + MIB, MIB, 0, 0)], gone=True),
        "1 MiB gone",
        _BREAKS,
        "a driver's breach of 2.7.4.2, for which QEMU gives the device up; ours goes by each descriptor's flag",
    ),
    _vector(
        "a chain that ends in an indirect table (2.7.5.3.2)",
        _raw(
            [(DATA, MIB, _W | _NEXT, 1), (BUFFERS, 32, _INDIRECT, 0)],
            table=[(DATA + MIB, MIB, _W | _NEXT, 1), (DATA + 2 * MIB, MIB, _W, 0)],
            gone=True,
        ),
        "3 MiB gone",
        _BREAKS,
        _NEVER_CHECKED + ", readable after a writable one",
    ),
    _vector("a chain that loops", _raw([(DATA, MIB, _W | _NEXT, 1), (DATA, MIB, _W | _NEXT, 0)]), _BREAKS),
    _vector(
        "a chain of more than 2^32 bytes, as kernels with 64 KiB pages report",
        _raw(
            [(BUFFERS, 80, _INDIRECT, 0)],
            table=[(1 << 40, 0xFFFF_F000, _W | _NEXT, n + 1) for n in range(4)] + [(DATA, MIB, _W, 0)],
            gone=True,
        ),
        "1 MiB gone",
        _BREAKS,
        "QEMU takes such chains, too, but gives the device up for what is outside of RAM",
    ),
    _vector("a next beyond the table", _raw([(DATA, MIB, _W | _NEXT, 32)]), _BREAKS),
    _vector("a head beyond the table", _raw([(DATA, MIB, _W, 0)], heads=[32]), _BREAKS),
    _vector(
        "an available idx far ahead",
        _raw([(DATA, MIB, _W, 0)], idx=1000, gone=True),
        _BREAKS,
        "1 MiB gone",
        "QEMU takes what it finds in the ring until it has caught up",
    ),
    _vector(
        "an indirect table within an indirect table",
        _raw([(BUFFERS, 16, _INDIRECT, 0)], table=[(BUFFERS + PAGE, 16, _INDIRECT, 0)]),
        _BREAKS,
        "0 B gone",
        _NEVER_CHECKED,
    ),
    _vector(
        "an indirect descriptor with a next",
        _raw([(BUFFERS, 16, _INDIRECT | _NEXT, 1), (DATA + MIB, MIB, _W, 0)], table=[(DATA, MIB, _W, 0)], gone=True),
        _BREAKS,
        "1 MiB gone",
        "QEMU ignores NEXT beside INDIRECT, which 2.7.5.3.1 forbids the driver",
    ),
    _vector("an indirect table of 24 bytes", _raw([(BUFFERS, 24, _INDIRECT, 0)], table=[(DATA, MIB, _W, 0)]), _BREAKS),
    _vector("an empty indirect table", _raw([(BUFFERS, 0, _INDIRECT, 0)]), _BREAKS),
    _vector(
        "an indirect table that loops",
        _raw([(BUFFERS, 32, _INDIRECT, 0)], table=[(DATA, MIB, _W | _NEXT, 1), (DATA, MIB, _W | _NEXT, 0)]),
        _BREAKS,
    ),
    _vector("an indirect table outside of RAM", _raw([(1 << 40, 32, _INDIRECT, 0)]), _BREAKS),
    _vector(
        "an indirect table without INDIRECT_DESC",
        _raw([(BUFFERS, 16, _INDIRECT, 0)], table=[(DATA, MIB, _W, 0)], features=BASE, gone=True),
        _BREAKS,
        "1 MiB gone",
        "QEMU does not ask whether the feature was negotiated",
    ),
)
