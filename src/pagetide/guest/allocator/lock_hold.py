"""How long reporting keeps the zone lock: what every vCPU that allocates or frees may have to wait for (S6).

Only holds for isolating and putting back are timed, a batch of blocks each: timing the allocator's own holds, of some
ten nanoseconds, would cost more than they do.
"""

from typing import Any

from pagetide.atomics import monotonic_ns
from pagetide.guest.allocator.zone_layout import HOLDS_TIMED, LOCK_HOLD_NS, LOCK_HOLD_NS_MAX
from pagetide.jit import kernel


@kernel
def hold_begins(words: Any) -> int:
    """The zone lock was taken; the time in nanoseconds, or 0 in a zone whose time is not the clock's."""
    if words[HOLDS_TIMED] == 0:
        return 0
    return monotonic_ns()


@kernel
def hold_ends(words: Any, since_ns: int) -> None:
    """The zone lock is about to be released: account for the time since `hold_begins`."""
    if since_ns > 0:
        held_ns = monotonic_ns() - since_ns
        words[LOCK_HOLD_NS] += held_ns
        words[LOCK_HOLD_NS_MAX] = max(words[LOCK_HOLD_NS_MAX], held_ns)
