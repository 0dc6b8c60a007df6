"""The inflate and deflate queues (virtio 1.2, 5.5.6): arrays of le32 page frame numbers, 4 KiB each."""

from collections.abc import Callable, Sequence

import numpy as np

from pagetide.conformance.vectors.bench import ALL, BUFFERS, DATA, PAGE, RAM_BYTES, Bench
from pagetide.conformance.vectors.vector import Vector
from pagetide.units import format_size
from pagetide.virtio.balloon import CONFIG_POISON_VAL, Feature, Queue

_PFN = DATA // PAGE
_RAM_PFNS = RAM_BYTES // PAGE
_NOTHING = "0 B gone"


def _array(pfns: Sequence[int]) -> bytes:
    return np.array(pfns, "<u4").tobytes()


def _inflate(
    data: bytes,
    *,
    at: int = 0,
    writable: bool = False,
    cuts: Sequence[int] = (),
    may_go: Sequence[int] = (),
    poison: int = 0,
) -> Callable[[Bench], str]:
    """Give the inflate queue one array of bytes, cut into descriptors at these places."""

    def play(bench: Bench) -> str:
        features = ALL | Feature.PAGE_POISON if poison else ALL
        queue = bench.start(Queue.INFLATE, features, features & Feature.PAGE_POISON)
        if poison:
            bench.transport.write_config(CONFIG_POISON_VAL, poison)
        for pfn in may_go:
            bench.may_change(pfn * PAGE, PAGE)
        gpa = BUFFERS + at
        bench.write(gpa, data)
        ends = [*cuts, len(data)]
        starts = [0, *cuts]
        queue.give([(gpa + start, end - start) for start, end in zip(starts, ends, strict=True)], writable=writable)
        return bench.outcome(back=queue.come_back())

    return play


def _vector(name: str, pfns: Sequence[int], counted: str = "", *, gone: Sequence[int] | None = None) -> Vector:
    gone = pfns if gone is None else gone
    found = f"{format_size(len(set(gone)) * PAGE)} gone"
    return Vector("inflate", name, _inflate(_array(pfns), may_go=gone), found, counted)


def _deflate(pfns: Sequence[int], *, inflated: bool) -> Callable[[Bench], str]:
    """Inflate these pages if asked, deflate them, and use them."""

    def play(bench: Bench) -> str:
        bench.negotiate()
        inflate, deflate = bench.queue(Queue.INFLATE), bench.queue(Queue.DEFLATE)
        bench.transport.driver_ok()
        if inflated:
            for pfn in pfns:
                bench.may_change(pfn * PAGE, PAGE)
            inflate.give_bytes(_array(pfns))
            if not inflate.come_back():
                return bench.outcome(back=False)
        before = bench.gone_bytes()
        deflate.give_bytes(_array(pfns), at=PAGE)
        back = deflate.come_back()
        for pfn in pfns if inflated else ():
            bench.write(pfn * PAGE, b"in use again")
        kept = all(bench.read(pfn * PAGE, 12) == b"in use again" for pfn in pfns) if inflated else True
        after = bench.gone_bytes()
        return (
            f"{format_size(before)} gone, {'deflated' if back else 'not acknowledged'}, "
            f"{format_size(after)} gone in use{'' if kept else ', not usable'}"
        )

    return play


VECTORS: tuple[Vector, ...] = (
    _vector("one page", [_PFN]),
    _vector("256 pages, as many as Linux sends", range(_PFN, _PFN + 256)),
    _vector("1024 scattered pages", range(_PFN, _PFN + 2048, 2)),
    _vector("pages from last to first", range(_PFN + 255, _PFN - 1, -1)),
    _vector("the same page twice", [_PFN, _PFN + 7, _PFN], "inflate_skipped_repeated_bytes"),
    _vector("the last page of RAM", [_RAM_PFNS - 1]),
    _vector("the page after RAM, and one within", [_RAM_PFNS, _PFN], "inflate_skipped_out_of_range_bytes", gone=[_PFN]),
    _vector("page frame number 2^32 - 1", [0xFFFF_FFFF, _PFN], "inflate_skipped_out_of_range_bytes", gone=[_PFN]),
    Vector("inflate", "an array off its alignment", _inflate(_array([_PFN]), at=1, may_go=[_PFN]), "4 KiB gone"),
    Vector(
        "inflate",
        "an array in two descriptors",
        _inflate(_array([_PFN, _PFN + 3]), cuts=[4], may_go=[_PFN, _PFN + 3]),
        "8 KiB gone",
    ),
    Vector(
        "inflate",
        "a number cut in two by descriptors",
        _inflate(_array([_PFN]), cuts=[2], may_go=[_PFN]),
        _NOTHING,
        "inflate_malformed",
        "4 KiB gone",
        "ours takes a descriptor that is no whole number of page frame numbers for malformed; no driver sends one",
    ),
    Vector(
        "inflate",
        "an odd number of bytes",
        _inflate(_array([_PFN]) + b"\1\2", may_go=[_PFN]),
        _NOTHING,
        "inflate_malformed",
        "4 KiB gone",
        "as above: QEMU takes the whole numbers and drops the rest without a word",
    ),
    Vector(
        "inflate", "a device-writable array", _inflate(_array([_PFN]), writable=True), _NOTHING, "inflate_malformed"
    ),
    Vector(
        "inflate",
        "page poison does not matter",
        _inflate(_array([_PFN]), may_go=[_PFN], poison=0xAA),
        "4 KiB gone",
    ),
    Vector(
        "inflate",
        "1025 pages in one element",
        _inflate(_array(range(_PFN, _PFN + 1025)), may_go=range(_PFN, _PFN + 1025)),
        _NOTHING,
        "inflate_malformed",
        f"{format_size(1025 * PAGE)} gone",
        "ours takes at most 1024 pages from one element, QEMU any number; Linux sends 256",
    ),
    Vector(
        "deflate",
        "pages that were inflated are usable again",
        _deflate([_PFN, _PFN + 1, _PFN + 9], inflated=True),
        "12 KiB gone, deflated, 0 B gone in use",
        "deflate_reports",
    ),
    Vector(
        "deflate",
        "pages that were never inflated stay as they are",
        _deflate([_PFN, _PFN + 1], inflated=False),
        "0 B gone, deflated, 0 B gone in use",
    ),
    Vector(
        "deflate",
        "a page outside of RAM",
        _deflate([_RAM_PFNS, 0xFFFF_FFFF], inflated=False),
        "0 B gone, deflated, 0 B gone in use",
        "deflate_skipped_out_of_range_bytes",
    ),
)
