"""Allocating and freeing blocks of any order, as a vCPU does it: locks included."""

from typing import Any

from pagetide.guest.allocator.buddy import join_apart, return_block, take_block
from pagetide.guest.allocator.lists.migratetypes import migratetype_of
from pagetide.guest.allocator.pcp import has_list, pcp_drain_all, pcp_return, pcp_return_typed, pcp_take, pcp_take_typed
from pagetide.guest.allocator.request import notify_free
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    FREE_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    LISTED_SHIFT,
    MIGRATETYPE_SHIFT,
    MOVABLE,
    NR_PAGES,
    ORDER_MASK,
    PAGEBLOCKS,
    PCP_ORDERS,
    RECORD_WORDS,
    REPORTED,
    STATE,
    TYPE_MASK,
    TYPED_PCP_ORDERS,
    WMARK_MIN,
    ZONE_LOCK,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import inline_kernel, kernel

_JOINED_AT_ONCE = 1024
"""Blocks that are looked at under one hold of the zone lock: some ten microseconds."""


@inline_kernel
def allocate(words: Any, pages: Any, vcpu: int, wanted: int) -> int:
    """Allocate a block; its first page frame, or -1 if that would break the min watermark.

    What is wanted is an order, and from LISTED_SHIFT on a migratetype, which a zone that does not keep to them ignores.
    Before it fails it drains all per-CPU lists and tries once more, as Linux's slow path does.
    """
    pfn = _allocate_once(words, pages, vcpu, wanted)
    return pfn if pfn >= 0 else _allocate_slowly(words, pages, vcpu, wanted)


@kernel
def _allocate_slowly(words: Any, pages: Any, vcpu: int, wanted: int) -> int:
    pcp_drain_all(words, pages)
    order = wanted & ORDER_MASK
    is_in_pieces = order > 0 and words[FREE_PAGES] - (1 << order) >= words[WMARK_MIN]
    if is_in_pieces and words[KEEP_MARKS] == KEEP_APART:
        join_all(words, pages)
    return _allocate_once(words, pages, vcpu, wanted)


@kernel
def join_all(words: Any, pages: Any) -> None:
    """Merge all blocks that are kept apart by their marks alone, so many under each hold of the zone lock."""
    pfn = 0
    while pfn < words[NR_PAGES]:
        lock(words, ZONE_LOCK)
        pfn = join_apart(words, pages, pfn, _JOINED_AT_ONCE)
        unlock(words, ZONE_LOCK)


@inline_kernel
def _allocate_once(words: Any, pages: Any, vcpu: int, wanted: int) -> int:
    if words[PCP_ORDERS] >> wanted & 1:
        return pcp_take(words, pages, vcpu, wanted)
    return _allocate_otherwise(words, pages, vcpu, wanted)


@kernel
def _allocate_otherwise(words: Any, pages: Any, vcpu: int, wanted: int) -> int:
    """Allocate what has a migratetype, or no per-CPU list."""
    order = wanted & ORDER_MASK
    migratetype = wanted >> LISTED_SHIFT if words[PAGEBLOCKS] != 0 else MOVABLE
    if has_list(words, order):
        return pcp_take_typed(words, pages, vcpu, order, migratetype)
    lock(words, ZONE_LOCK)
    pfn = take_block(words, pages, order, ALLOCATED | migratetype << MIGRATETYPE_SHIFT)
    unlock(words, ZONE_LOCK)
    return pfn


@inline_kernel
def free(words: Any, pages: Any, vcpu: int, pfn: int, order: int) -> int:
    """Free a block; 0, or -1 if no block of that order was allocated there, and then nothing changed."""
    if pfn < 0 or pfn >= words[NR_PAGES]:
        return -1
    if (pages[pfn * RECORD_WORDS + STATE] & (TYPE_MASK | ORDER_MASK | REPORTED)) != ALLOCATED | order:
        return -1
    if words[PCP_ORDERS] >> order & 1:
        pcp_return(words, pages, vcpu, pfn, order)
    else:
        _free_otherwise(words, pages, vcpu, pfn, order)
    return 0


@kernel
def _free_otherwise(words: Any, pages: Any, vcpu: int, pfn: int, order: int) -> None:
    """Free a block of a zone that keeps to migratetypes, or one that has no per-CPU list."""
    if words[TYPED_PCP_ORDERS] >> order & 1:
        pcp_return_typed(words, pages, vcpu, pfn, order, migratetype_of(words, pfn))
        return
    lock(words, ZONE_LOCK)
    merged = return_block(words, pages, pfn, order, False, False)
    notify_free(words, vcpu, pfn & ~((1 << merged) - 1), merged)
    unlock(words, ZONE_LOCK)
