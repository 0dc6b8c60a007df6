"""The reporting queue (virtio 1.2, 5.5.6.7): blocks of every size and kind, whole and wrong."""

from collections.abc import Callable

from pagetide.conformance.vectors.bench import (
    ALL,
    BASE,
    DATA,
    MIB,
    PAGE,
    PATIENCE_S,
    RAM_BYTES,
    SIZE,
    Bench,
    Buffers,
)
from pagetide.conformance.vectors.vector import Vector
from pagetide.units import format_size
from pagetide.virtio.balloon import CONFIG_POISON_VAL, Feature, Queue

_NOTHING = "0 B gone"
_WRAPPING = 70_000
_BREAKS = "needs reset"
_OUTSIDE = "QEMU maps at most one page outside of RAM, and gives the device up for more"


def _report(
    buffers: Buffers,
    *,
    features: Feature = ALL,
    writable: bool = True,
    poison: int = 0,
    gone: bool = True,
) -> Callable[[Bench], str]:
    """Report one element."""

    def play(bench: Bench) -> str:
        needed = [feature for feature in (Feature.REPORTING, Feature.PAGE_POISON) if feature & features]
        bench.negotiate(features, *needed)
        queue = bench.queue(Queue.REPORTING)
        if features & Feature.PAGE_POISON:
            bench.transport.write_config(CONFIG_POISON_VAL, poison)
        bench.transport.driver_ok()
        for gpa, length_bytes in buffers if gone else ():
            bench.may_change(gpa, length_bytes)
        queue.give(buffers, writable=writable)
        return bench.outcome(back=queue.come_back())

    return play


def _wraps(features: Feature) -> Callable[[Bench], str]:
    """Report one page in 70 000 elements, as many at once as the ring holds; after each batch it must be gone."""

    def play(bench: Bench) -> str:
        queue = bench.start(Queue.REPORTING, features, Feature.REPORTING, features & Feature.EVENT_IDX)
        for first in range(0, _WRAPPING, SIZE):
            batch = min(SIZE, _WRAPPING - first)
            bench.write(DATA, b"in use again")
            while bench.device.wait(0):
                pass
            is_idle = not queue.ring.arm_call()
            assert is_idle, "everything was taken back"
            for _ in range(batch):
                assert queue.add(_one(PAGE), writable=True), "the ring is empty"
            queue.publish()
            called = bench.device.wait(PATIENCE_S)
            back = queue.come_back(batch)
            if not called or not back or bench.gone_bytes() != PAGE:
                return f"from element {first} on: {bench.outcome(back=back)}{'' if called else ', not called'}"
        return "gone and called, every time"

    return play


def _gone_when_acknowledged(bench: Bench) -> str:
    """Look at the memory at the moment at which the used index moves, long before the call."""
    queue = bench.start(Queue.REPORTING)
    bench.may_change(DATA, 128 * MIB)
    queue.give(_one(128 * MIB), writable=True)
    back = queue.come_back_unasked()
    return bench.outcome(back=back)


def _initialised(buffers: Buffers, gone: Buffers) -> Callable[[Bench], str]:
    """Report one element to a device that tells by the used length what it initialised; `gone` may change."""

    def play(bench: Bench) -> str:
        draft = Feature.DEVICE_INIT_REPORTED
        queue = bench.start(Queue.REPORTING, ALL | draft, Feature.REPORTING, draft)
        for gpa, length_bytes in gone:
            bench.may_change(gpa, length_bytes)
        queue.give(buffers, writable=True)
        back = queue.come_back()
        if queue.written_bytes and any(bench.read(gpa, length_bytes).strip(bytes(1)) for gpa, length_bytes in gone):
            return "told as initialised, and not zeros"
        return f"{'back' if back else bench.outcome(back=back)}, {format_size(queue.written_bytes)} initialised"

    return play


def _nothing_written(bench: Bench) -> str:
    queue = bench.start(Queue.REPORTING)
    bench.may_change(DATA, MIB)
    queue.give(_one(MIB), writable=True)
    return f"{bench.outcome(back=queue.come_back())}, {queue.written_bytes} B written"


def _one(length_bytes: int) -> Buffers:
    return ((DATA, length_bytes),)


def _scattered(length_bytes: int) -> Buffers:
    return tuple((DATA + 2 * index * length_bytes, length_bytes) for index in range(SIZE))


def _gone(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} gone"


def _vector(name: str, buffers: Buffers, gone_bytes: int, counted: str = "", *, features: Feature = ALL) -> Vector:
    play = _report(buffers, features=features, gone=gone_bytes > 0)
    return Vector("reporting", name, play, _gone(gone_bytes), counted)


def _refused(
    name: str, buffers: Buffers, counted: str, *, qemu: str = "", why: str = "", writable: bool = True
) -> Vector:
    play = _report(buffers, writable=writable, gone=False)
    return Vector("reporting", name, play, _NOTHING, counted, qemu, why)


VECTORS: tuple[Vector, ...] = (
    *(
        _vector(f"one block of {format_size(size_bytes)}", _one(size_bytes), size_bytes)
        for size_bytes in (PAGE, 16 * PAGE, 2 * MIB, 4 * MIB, 128 * MIB)
    ),
    _vector("a chain of 32 scattered 4 KiB", _scattered(PAGE), 32 * PAGE, features=BASE),
    _vector("a chain of 32 scattered 2 MiB", _scattered(2 * MIB), 64 * MIB, features=BASE),
    _vector("an indirect table of 32 scattered 4 KiB", _scattered(PAGE), 32 * PAGE),
    _vector("an indirect table of 32 scattered 2 MiB", _scattered(2 * MIB), 64 * MIB),
    _vector("the same block twice in one element", ((DATA, MIB),) * 2, MIB, "skipped_repeated_bytes"),
    _vector("adjacent blocks, the later one first", ((DATA + MIB, MIB), (DATA, MIB)), 2 * MIB),
    Vector("reporting", "70 000 elements: the ring's indices wrap", _wraps(ALL), "gone and called, every time"),
    Vector("reporting", "70 000 elements, no event index", _wraps(BASE), "gone and called, every time"),
    Vector("reporting", "gone when it is acknowledged, not later", _gone_when_acknowledged, _gone(128 * MIB)),
    Vector("reporting", "the used length is what was written: nothing", _nothing_written, "1 MiB gone, 0 B written"),
    Vector(
        "draft",
        "DEVICE_INIT_REPORTED: the used length is all of a report",
        _initialised(((DATA, MIB), (DATA + 4 * MIB, MIB)), ((DATA, MIB), (DATA + 4 * MIB, MIB))),
        "back, 2 MiB initialised",
    ),
    Vector(
        "draft",
        "DEVICE_INIT_REPORTED: nothing is told of a report of which a part stays",
        _initialised(((DATA, MIB), (DATA + 4 * MIB + 512, PAGE)), ((DATA, MIB),)),
        "back, 0 B initialised",
    ),
    _refused("an address off the page", ((DATA + 512, PAGE),), "skipped_unaligned_bytes"),
    _refused("a length off the page", _one(PAGE + 512), "skipped_unaligned_bytes"),
    _refused("device-readable descriptors", _one(MIB), "skipped_device_readable_bytes", writable=False),
    _refused(
        "a descriptor of length zero",
        ((DATA, 0),),
        "zero_length_blocks",
        qemu=_BREAKS,
        why="QEMU takes a zero-sized buffer for a broken driver",
    ),
    _refused(
        "across the end of RAM",
        ((RAM_BYTES - MIB, 2 * MIB),),
        "skipped_out_of_range_bytes",
        qemu=_BREAKS,
        why=_OUTSIDE,
    ),
    _refused("outside of RAM", ((4 * RAM_BYTES, MIB),), "skipped_out_of_range_bytes", qemu=_BREAKS, why=_OUTSIDE),
    _refused("one page outside of RAM", ((4 * RAM_BYTES, PAGE),), "skipped_out_of_range_bytes"),
    Vector(
        "reporting",
        "wrapping around 2^64",
        _report(((-PAGE, 2 * PAGE),), gone=False),
        _NOTHING,
        "skipped_out_of_range_bytes",
        ours_only=True,
    ),
    Vector(
        "reporting",
        "poisoned pages",
        _report(_one(MIB), features=ALL | Feature.PAGE_POISON, poison=0xAA, gone=False),
        _NOTHING,
        "skipped_poisoned_bytes",
    ),
    Vector(
        "reporting",
        "page poison negotiated, value zero",
        _report(_one(MIB), features=ALL | Feature.PAGE_POISON),
        _gone(MIB),
    ),
)
