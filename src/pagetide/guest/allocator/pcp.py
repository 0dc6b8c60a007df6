"""Per-CPU lists: each vCPU's own blocks in front of the buddy allocator, a list an order and a migratetype.

Follows Linux's mm/page_alloc.c (6.12). Lists are for the orders up to PAGE_ALLOC_COSTLY_ORDER and for the huge page's
(`pcp_allowed_order`, since 5.14); PCP_ORDERS has a bit for each. A list is a stack, refilled with `batch` pages, but
never with fewer than two blocks (`nr_pcp_alloc`). PCP_COUNT has the pages of all lists. Once they are as many as
PCP_LIMIT, a free gives some back, those of its own list first, and of each list those freed longest ago
(`free_pcppages_bulk`): as many as were freed lately (PCP_FREED, which an allocation halves), at least a batch, and a
batch is left (`nr_pcp_free`). The limit begins at PCP_HIGH and grows up to PCP_HIGH_MAX with refills, and with frees
that come one after the other (`nr_pcp_high`, since 6.7). It falls, and PCP_HIGH is enough, while the zone has less
than its high watermark, and when block after block is freed that is larger than a page and smaller than a huge page
(`free_high` in `free_unref_page_commit`). Reporting drains nothing before a pass, neither here nor there.
With migratetypes an allocation takes from its type's list, and a block that is freed goes to that of its pageblock's
type, which may be another one by the time that it goes back.

Divergences: each type has a list of the huge page's order (Linux has one of movable blocks and one of others); lists
grow to PCP_MAX_PAGES unless a zone is made with more; they are given back a batch under each hold of the zone lock, and
a refill is never more than a batch (Linux doubles both, for up to 2016 pages); a drain sets the limit back (in Linux an
eighth of it decays every second); nothing is reclaimed. A block that was reported keeps its mark on a list with
KEEP_MARKS, for nobody touched it. The lists of a vCPU have one lock, which only a drain from outside ever contends for.
Lock order: the lists' lock, then the zone's.
"""

from typing import Any

from pagetide.guest.allocator.buddy import return_block, take_block
from pagetide.guest.allocator.lists.migratetypes import nr_migratetypes
from pagetide.guest.allocator.request import notify_free
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    END,
    FREE_PAGES,
    LIST_WORDS,
    MIGRATETYPE_SHIFT,
    MOVABLE,
    NR_LISTS,
    NR_VCPUS,
    OLDEST,
    PCP,
    PCP_BATCH,
    PCP_COUNT,
    PCP_FRACTION,
    PCP_FREED,
    PCP_HIGH,
    PCP_HIGH_MAX,
    PCP_LIMIT,
    PCP_LISTS,
    PCP_LOCK,
    PCP_ORDERS,
    PCP_RINGS,
    PCP_ROOM,
    RECORD_WORDS,
    REPORTED,
    STATE,
    TYPE_WORDS,
    TYPED_PCP_ORDERS,
    VCPU_WORDS,
    WMARK_HIGH,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import inline_kernel, kernel
from pagetide.units import COSTLY_ORDER, PAGEBLOCK_ORDER

LINUX_PCP_ORDERS = (*range(COSTLY_ORDER + 1), PAGEBLOCK_ORDER)
"""The orders that have per-CPU lists in Linux since 5.14, with transparent huge pages."""

PCP_BATCH_PAGES = 63
"""Pages moved between a per-CPU list and the buddy allocator at once (`zone_batchsize` of a zone over 1 GiB)."""

PCP_MAX_PAGES = 4096
"""Pages that a vCPU's lists grow to at most, unless a zone is made with more."""

_FREED_MAX_BATCHES = 32
_VCPU_0 = vcpu_base(0)
_NOT_NEGATIVE = (1 << 48) - 1
"""What an index is masked with so that the compiler knows its sign, and leaves out what an element would cost else."""


def linux_pcp_high(nr_pages: int, low_pages: int, vcpus: int, batch: int, most: int) -> tuple[int, int]:
    """Linux's PCP_HIGH and PCP_HIGH_MAX, in pages, or `most` where they would be more.

    A vCPU's share of the low watermark, but at least four batches; and its share of an eighth of the zone
    (mm/page_alloc.c, `zone_highsize`, 6.12).
    """
    high = max(low_pages // vcpus, batch << 2)
    return min(high, most), min(max(nr_pages // PCP_FRACTION // vcpus, high), most)


@inline_kernel
def has_list(words: Any, order: int) -> bool:
    """Whether blocks of this order have per-CPU lists, with migratetypes or without."""
    return (words[PCP_ORDERS] | words[TYPED_PCP_ORDERS]) >> order & 1 != 0  # type: ignore[no-any-return]


@inline_kernel
def list_of(order: int) -> int:
    """Which of a vCPU's lists has the blocks of this order (`order_to_pindex`)."""
    return min(order, NR_LISTS - 1) & _NOT_NEGATIVE


@inline_kernel
def order_of(number: int) -> int:
    """The order of the blocks on a list (`pindex_to_order`)."""
    return number if number < NR_LISTS - 1 else PAGEBLOCK_ORDER


@inline_kernel
def _base_of(vcpu: int) -> int:
    """Index in `words` of a vCPU's block."""
    return _VCPU_0 + vcpu * VCPU_WORDS & _NOT_NEGATIVE


@inline_kernel
def lists_base(base: int, migratetype: int) -> int:
    """Index in `words` from which a migratetype's lists and rings are where zone_layout.py has them."""
    return base + migratetype * TYPE_WORDS


@inline_kernel
def place_of(words: Any, lists: int, number: int, index: int) -> int:
    """Where in `words` a list has a block: each list's ring has half the room of the one before."""
    room, rings = words[lists + PCP_ROOM] & _NOT_NEGATIVE, words[lists + PCP_RINGS] & _NOT_NEGATIVE
    return rings + 2 * room - (2 * room >> number) + (index & (room - 1 >> number))  # type: ignore[no-any-return]


@inline_kernel
def pcp_take(words: Any, pages: Any, vcpu: int, order: int) -> int:
    """Allocate one movable block from this vCPU's list of the order, refilling it when empty; -1 if there is none."""
    base = _base_of(vcpu)
    return _take(words, pages, base, base, order, ALLOCATED)


@inline_kernel
def pcp_take_typed(words: Any, pages: Any, vcpu: int, order: int, migratetype: int) -> int:
    """The same with the list of a migratetype."""
    base = _base_of(vcpu)
    return _take(words, pages, base, lists_base(base, migratetype), order, ALLOCATED | migratetype << MIGRATETYPE_SHIFT)


@inline_kernel
def _take(words: Any, pages: Any, base: int, lists: int, order: int, state: int) -> int:
    number = list_of(order)
    place = PCP_LISTS + LIST_WORDS * number
    lock(words, base + PCP_LOCK)
    if words[base + PCP_FREED] > 0:
        words[base + PCP_FREED] >>= 1
    end = words[lists + place + END]
    if end == words[lists + place + OLDEST]:
        pfn = _refill(words, pages, base, lists, order, state)
    else:
        pfn = words[place_of(words, lists, number, end - 1)] & _NOT_NEGATIVE
        words[lists + place + END] = end - 1
        words[base + PCP_COUNT] -= 1 << order
        pages[pfn * RECORD_WORDS + STATE] = state | order
    unlock(words, base + PCP_LOCK)
    return pfn


@inline_kernel
def pcp_return(words: Any, pages: Any, vcpu: int, pfn: int, order: int) -> None:
    """Free one block, which the caller has checked to be allocated, to this vCPU's list of its order."""
    base = _base_of(vcpu)
    _return(words, pages, vcpu, base, base, pfn, order, MOVABLE)


@inline_kernel
def pcp_return_typed(words: Any, pages: Any, vcpu: int, pfn: int, order: int, migratetype: int) -> None:
    """The same with the list of a migratetype."""
    base = _base_of(vcpu)
    _return(words, pages, vcpu, base, lists_base(base, migratetype), pfn, order, migratetype)


@inline_kernel
def _return(words: Any, pages: Any, vcpu: int, base: int, lists: int, pfn: int, order: int, migratetype: int) -> None:
    number = list_of(order)
    place = PCP_LISTS + LIST_WORDS * number
    lock(words, base + PCP_LOCK)
    pages[pfn * RECORD_WORDS + STATE] = PCP | order
    end = words[lists + place + END]
    words[place_of(words, lists, number, end)] = pfn
    words[lists + place + END] = end + 1
    count = words[base + PCP_COUNT] + (1 << order)
    words[base + PCP_COUNT] = count
    freed = words[base + PCP_FREED]
    if freed < _FREED_MAX_BATCHES * words[PCP_BATCH]:
        freed += 1 << order
        words[base + PCP_FREED] = freed
    if count >= words[PCP_HIGH] or (freed > words[PCP_BATCH] and 0 < order <= COSTLY_ORDER):
        _trim(words, pages, vcpu, order, migratetype)
    unlock(words, base + PCP_LOCK)


@kernel
def _trim(words: Any, pages: Any, vcpu: int, order: int, migratetype: int) -> None:
    """Give back what a vCPU's lists have too much of, after a block of this order and type was freed to them."""
    base = _base_of(vcpu)
    count, freed, limit = words[base + PCP_COUNT], words[base + PCP_FREED], words[base + PCP_LIMIT]
    batch, high = words[PCP_BATCH], words[PCP_HIGH]
    left = 0
    if 0 < order <= COSTLY_ORDER and freed > batch + high // 2:
        words[base + PCP_LIMIT] = max(limit - _FREED_MAX_BATCHES * batch, high)
        left = min(count, _FREED_MAX_BATCHES * batch)
    elif count >= high and words[FREE_PAGES] < words[WMARK_HIGH]:
        words[base + PCP_LIMIT] = max(limit - max(freed, batch), high)
        left = max(batch, min(freed, count - batch))
    elif count >= limit:
        words[base + PCP_LIMIT] = max(limit, min(freed + batch, words[PCP_HIGH_MAX]))
        left = max(batch, min(freed, limit - batch))
    while left > 0 and words[base + PCP_COUNT] > 0:
        left -= _drain(words, pages, vcpu, list_of(order), migratetype, min(left, batch))


@kernel
def pcp_drain(words: Any, pages: Any, vcpu: int) -> None:
    """Give all of a vCPU's lists back to the buddy allocator, a batch under each hold of the zone lock."""
    base = _base_of(vcpu)
    lock(words, base + PCP_LOCK)
    while words[base + PCP_COUNT] > 0:
        _drain(words, pages, vcpu, 0, 0, words[PCP_BATCH])
    words[base + PCP_LIMIT] = words[PCP_HIGH]
    words[base + PCP_FREED] = 0
    unlock(words, base + PCP_LOCK)


@kernel
def pcp_drain_all(words: Any, pages: Any) -> None:
    """Drain every vCPU's lists, as an allocation does before it fails (`drain_all_pages`)."""
    for vcpu in range(words[NR_VCPUS]):
        pcp_drain(words, pages, vcpu)


@kernel
def pcp_blocks(words: Any, vcpu: int) -> int:
    """How many blocks a vCPU's lists have."""
    base = _base_of(vcpu)
    blocks = 0
    for migratetype in range(nr_migratetypes(words)):
        lists = lists_base(base, migratetype)
        for number in range(NR_LISTS):
            place = PCP_LISTS + LIST_WORDS * number
            blocks += words[lists + place + END] - words[lists + place + OLDEST]
    return blocks


@kernel
def _refill(words: Any, pages: Any, base: int, lists: int, order: int, state: int) -> int:
    """Allocate a block, and further ones onto its list, which is empty; the block's first frame, or -1."""
    batch = words[PCP_BATCH]
    if batch > 1:
        batch = max(batch >> order, 2)
    number = list_of(order)
    oldest = batch - 1
    lock(words, ZONE_LOCK)
    if words[FREE_PAGES] >= words[WMARK_HIGH]:
        words[base + PCP_LIMIT] = min(words[base + PCP_LIMIT] + words[PCP_BATCH], words[PCP_HIGH_MAX])
    first = take_block(words, pages, order, state)
    following = first
    while following >= 0 and oldest > 0:
        following = take_block(words, pages, order, state ^ (ALLOCATED ^ PCP))
        if following >= 0:
            oldest -= 1
            words[place_of(words, lists, number, oldest)] = following
    unlock(words, ZONE_LOCK)
    # The stack grows upwards and blocks come out in the order in which the buddy allocator gave them.
    words[lists + PCP_LISTS + LIST_WORDS * number + OLDEST] = oldest
    words[lists + PCP_LISTS + LIST_WORDS * number + END] = batch - 1
    words[base + PCP_COUNT] += batch - 1 - oldest << order
    return first


@kernel
def _drain(words: Any, pages: Any, vcpu: int, number: int, migratetype: int, most: int) -> int:
    """Give blocks back until they are so many pages or none is left, from this list on; how many pages they were."""
    base = _base_of(vcpu)
    lists = lists_base(base, migratetype)
    most = min(most, words[base + PCP_COUNT])
    drained = 0
    lock(words, ZONE_LOCK)
    while drained < most:
        place = PCP_LISTS + LIST_WORDS * number
        oldest = words[lists + place + OLDEST]
        if oldest == words[lists + place + END]:
            migratetype += 1
            if migratetype >= nr_migratetypes(words):
                migratetype, number = 0, (number + 1) % NR_LISTS
            lists = lists_base(base, migratetype)
            continue
        order = order_of(number)
        pfn = words[place_of(words, lists, number, oldest)]
        words[lists + place + OLDEST] = oldest + 1
        words[base + PCP_COUNT] -= 1 << order
        drained += 1 << order
        marked = pages[pfn * RECORD_WORDS + STATE] & REPORTED != 0
        merged = return_block(words, pages, pfn, order, False, marked)
        head = pfn & ~((1 << merged) - 1)
        if not pages[head * RECORD_WORDS + STATE] & REPORTED:
            notify_free(words, vcpu, head, merged)
    unlock(words, ZONE_LOCK)
    return drained
