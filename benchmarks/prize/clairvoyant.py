"""What could be had by whoever knows the future: a bound on footprint and CPU time for a stream.

Allocating the page that was freed last makes the times for which pages stay free as unequal as they can be: the pages
at the bottom of the stack stay free for longest. Who knows those times discards a page at once if it stays free for
long enough, and leaves it alone otherwise; every choice of *long enough* is a point of the curve. A page costs its
share of a discard of 2 MiB, and a fault if it is ever touched again; calls, walks, reports and memory that is in the
wrong place cost nothing.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.jit import kernel
from pagetide.machine.costs import BackingCosts
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES
from pagetide.workload.stream import Stream

_LONG_ENOUGH_S = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0)


class Bound(NamedTuple):
    """A point of the curve.

    Attributes:
        held_bytes: what the host holds on average: what the guest uses, and what is free and was left alone.
        cpu_s: what discarding the rest costs.
    """

    held_bytes: float
    cpu_s: float


@kernel
def _stays(
    kind: npt.NDArray[np.uint8],
    order: npt.NDArray[np.uint8],
    at_s: npt.NDArray[np.float64],
    freed_s: npt.NDArray[np.float64],
    freed_pages: npt.NDArray[np.int64],
    stay_s: npt.NDArray[np.float64],
    stay_pages: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """For how long pages stay free, in `stay_s` and `stay_pages`; how many stays there are, and what is left free."""
    top = 0
    stays = 0
    for index in range(kind.shape[0]):
        pages = 1 << order[index]
        if kind[index] != ALLOCATE:
            freed_s[top] = at_s[index]
            freed_pages[top] = pages
            top += 1
            continue
        while pages > 0 and top > 0:
            taken = min(pages, freed_pages[top - 1])
            stay_s[stays] = at_s[index] - freed_s[top - 1]
            stay_pages[stays] = taken
            stays += 1
            pages -= taken
            freed_pages[top - 1] -= taken
            top -= int(freed_pages[top - 1] == 0)
    return stays, top


def bounds(stream: Stream, costs: BackingCosts) -> list[Bound]:
    """The curve of a stream, from who discards everything to who discards little."""
    count = stream.nr_operations
    freed_s, freed_pages = np.zeros(count), np.zeros(count, np.int64)
    stay_s, stay_pages = np.zeros(2 * count), np.zeros(2 * count, np.int64)
    stays, left = _stays(stream.kind, stream.order, stream.at_s, freed_s, freed_pages, stay_s, stay_pages)
    for_s = np.concatenate([stay_s[:stays], stream.end_s - freed_s[:left]])
    pages = np.concatenate([stay_pages[:stays], freed_pages[:left]])
    discard_s = int(costs.page_ps()[_kind_of_2_mib()]) / 1e12
    cost_s = np.where(np.arange(len(pages)) < stays, discard_s + costs.fault.ns / 1e9, discard_s)
    blocks = np.where(stream.kind == ALLOCATE, 1, -1) * (1 << stream.order.astype(np.int64))
    used_page_s = float((blocks.cumsum()[:-1] * np.diff(stream.at_s)).sum())
    used_page_s += float(blocks.sum()) * (stream.end_s - float(stream.at_s[-1]))
    found = []
    for enough_s in _LONG_ENOUGH_S:
        chosen = for_s >= enough_s
        held_page_s = used_page_s + float((for_s * pages)[~chosen].sum())
        held_bytes = held_page_s / stream.end_s * PAGE_SIZE_BYTES
        found.append(Bound(held_bytes, float((cost_s * pages)[chosen].sum())))
    return found


def _kind_of_2_mib() -> int:
    return (HUGE_PAGE_BYTES // PAGE_SIZE_BYTES).bit_length() - 1
