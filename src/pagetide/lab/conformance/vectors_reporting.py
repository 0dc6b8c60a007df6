"""The reporting queue (virtio 1.2, 5.5.6.7): blocks of every size and kind, whole and wrong."""

from collections.abc import Callable

from pagetide.lab.conformance.bench import (
    ALL,
    BASE,
    DATA,
    MIB,
    PAGE,
    RAM_BYTES,
    SIZE,
    Bench,
    Buffers,
)
from pagetide.lab.conformance.vector import Vector
from pagetide.units import format_size
from pagetide.virtio.balloon import CONFIG_POISON_VAL, Feature, Queue

_NOTHING = "0 B gone"
_BREAKS = "needs reset"
_OUTSIDE = "QEMU maps at most one page outside of RAM, and gives the device up for more"


def _report(
    buffers: Buffers,
    *,
    features: Feature = ALL,
    writable: bool = True,
    times: int = 1,
    poison: int = 0,
    gone: bool = True,
) -> Callable[[Bench], str]:
    """Report one element, some times over, as often at once as the ring holds it."""

    def play(bench: Bench) -> str:
        needed = [feature for feature in (Feature.REPORTING, Feature.PAGE_POISON) if feature & features]
        bench.negotiate(features, *needed)
        queue = bench.queue(Queue.REPORTING)
        if features & Feature.PAGE_POISON:
            bench.transport.write_config(CONFIG_POISON_VAL, poison)
        bench.transport.driver_ok()
        for gpa, length_bytes in buffers if gone else ():
            bench.may_change(gpa, length_bytes)
        left, back = times, True
        while left > 0 and back:
            added = 0
            while added < left and queue.add(buffers, writable=writable):
                added += 1
            assert added > 0, "the ring holds every vector's element"
            queue.publish()
            back = queue.come_back(added)
            left -= added
        return bench.outcome(back=back)

    return play


def _one(length_bytes: int) -> Buffers:
    return ((DATA, length_bytes),)


def _scattered(length_bytes: int) -> Buffers:
    return tuple((DATA + 2 * index * length_bytes, length_bytes) for index in range(SIZE))


def _gone(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} gone"


def _vector(
    name: str, buffers: Buffers, gone_bytes: int, counted: str = "", *, features: Feature = ALL, times: int = 1
) -> Vector:
    play = _report(buffers, features=features, times=times, gone=gone_bytes > 0)
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
    _vector("70 000 elements: the ring's indices wrap", _one(PAGE), PAGE, times=70_000),
    _vector("70 000 elements, no event index", _one(PAGE), PAGE, features=BASE, times=70_000),
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
        _report(((-PAGE, 2 * PAGE),)),
        _NOTHING,
        "skipped_out_of_range_bytes",
        _gone(PAGE),
        "QEMU maps the last page of the address space, goes on at 0 and discards the guest's first page",
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
