"""What is explored: the scenarios that every design must pass."""

from pagetide.explorer.ground import FRAME_ORDER
from pagetide.explorer.scenario import Scenario
from pagetide.guest.allocator.zone import TICKS_PER_S
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN, misfit
from pagetide.guest.reporting.settings import ReportingSettings

_SMALL = ReportingSettings(order=2, delay_s=0.0, capacity=1, wake_blocks=1, hints_max=2, idle_s=0.0)

_COOL_S = 0.5 / TICKS_PER_S

SCENARIOS = {
    # Both blocks of the zone are out at once, and somebody needs one: invariant 5.
    "start": Scenario(("a1 f", ""), _SMALL._replace(capacity=2), may_run_out=True, wakes_finely=True),
    # A block and a page of another one come and go while reports are under way; per-CPU lists are drained.
    "zone": Scenario(("a2 f", "a0 f"), _SMALL, settled=True, may_run_out=True),
    # Both blocks may be out, so that an allocation drains another vCPU's list, whose owner uses it and drains it, too.
    "drain": Scenario(
        ("a1", "a0"),
        _SMALL._replace(order=1, capacity=2),
        nr_pages=4,
        order_max=1,
        pcp_batch=2,
        pcp_high=(3, 3),
        may_run_out=True,
    ),
    # Both orders have lists. The block on one is all that is left for the other, unless it is out for reporting.
    "lists": Scenario(
        ("a1 f a0", "a1"),
        _SMALL._replace(order=1, capacity=2),
        nr_pages=4,
        order_max=1,
        pcp_high=(3, 3),
        pcp_orders=(0, 1),
        settled=True,
        may_run_out=True,
    ),
    # What is put back merges with what was freed meanwhile and is not reported.
    "merge": Scenario(("a1 f", ""), _SMALL._replace(order=1), nr_pages=4, may_run_out=True),
    # The handshake of the ring, access by access: every report must be noticed, and its end.
    "ring": Scenario(("", ""), _SMALL, ring_finely=True, elements_per_turn=1),
    # The device's turn ends after one of the two pieces of its element.
    "pieces": Scenario(
        ("a2 a2 f f", ""), _SMALL._replace(capacity=2), settled=True, may_run_out=True, punches_max=1, piece_pages=4
    ),
    # Reports fail, since the queue is full at first: nothing of it may be taken for reported, or be forgotten.
    "full": Scenario(("a2 f", ""), _SMALL._replace(capacity=2), ring_full=True, may_run_out=True),
    # The design is switched off at any time, and on again when it is off, while a block comes and goes.
    "switch": Scenario(("a1 f", ""), _SMALL, nr_pages=4, switches=True, may_run_out=True),
    # It is switched off and on again at any time, perhaps before anybody has noticed.
    "flip": Scenario(("", ""), _SMALL, nr_pages=4, switches=True, flips=True, wakes_finely=True),
    # A block that is freed is reported only when it has been free for a while.
    "cool": Scenario(("a2 f", ""), _SMALL._replace(cool_s=_COOL_S), may_run_out=True),
    "cap": Scenario(("a1 f", ""), _SMALL._replace(oom="cap", in_flight_max_bytes=4 * 4096), may_run_out=True),
    "swap": Scenario(("a2 f", ""), _SMALL._replace(oom="swap"), may_run_out=True),
    # What cannot be moved falls back to movable memory, and claims a pageblock of which a page is in use.
    "types": Scenario(
        ("a0u f", "a0 f"),
        _SMALL._replace(order=0, capacity=1),
        nr_pages=4,
        order_max=1,
        pcp_orders=(0,),
        migratetypes=True,
        may_run_out=True,
    ),
    # As `start`, where nobody waits for what is out (`--oom none`): whoever fails goes on without, and is counted.
    "none": Scenario(("a1 f", ""), _SMALL._replace(capacity=2), may_run_out=True, waits_before_oom=False),
}
"""By name; each for every design that reports batches, but for `cool`, which does not fit `sync`."""

# Pages come and go one by one, and one stays: runs of free ones lie between those in use.
_RUNS = Scenario(("a0 a0 f", ""), _SMALL._replace(order=0, capacity=2), nr_pages=4, may_run_out=True)

# The buddy of a page that is isolated is reported, and so kept apart, in a pageblock that was claimed.
_CLAIMED = SCENARIOS["types"]._replace(programs=("a0u f", ""))

SCENARIOS_POOL = {
    name: chosen._replace(settings=chosen.settings._replace(delay_s=POOL_DELAY_S_MIN))
    for name, chosen in {**SCENARIOS, "runs": _RUNS, "claimed": _CLAIMED}.items()
}
"""By name; for `pool`: those for all, and two with a smallest order below the frames', in which it looks for runs."""

_FRAMES = _SMALL._replace(order=FRAME_ORDER)

_TWO_FRAMES = Scenario(("a1 f", ""), _FRAMES, nr_pages=4, order_max=1, may_run_out=True)

SCENARIOS_SHARED = {
    # Frames that the host has taken are allocated, and freed again, while it takes others.
    "frames": Scenario(("a1 f", "a0 f"), _FRAMES, settled=True),
    # All is free, and the host is about to take two frames at once.
    "take": Scenario(("a1 f", ""), _FRAMES._replace(capacity=2)),
    # The host is killed at some time, perhaps in the middle of a batch, and another one takes over.
    "killed": _TWO_FRAMES._replace(settings=_FRAMES._replace(capacity=2), killed=True),
    # The guest withdraws its frames, of which the host may be discarding some, and offers them again.
    "switch": _TWO_FRAMES._replace(switches=True),
    "cool": Scenario(("a1 f", ""), _FRAMES._replace(cool_s=_COOL_S)),
}
"""By name; for `shared` alone, whose host takes frames of order 1 here instead of 9."""

_TWO_PAGES = Scenario(("", ""), _SMALL, nr_pages=2, order_max=1, settled=True, may_run_out=True)

SCENARIOS_BALLOON = {
    # The host wants three pages and then one, while a block is allocated and freed.
    "inflate": Scenario(("a1 f", ""), _SMALL, targets=(3, 1), may_run_out=True),
    # Half of memory is in the balloon, and two vCPUs want it all: whose allocation fails takes pages out.
    "relief": _TWO_PAGES._replace(programs=("a0 f", "a0"), targets=(1,)),
    # The host wants all of memory in the balloon, and a vCPU wants it all for a block.
    "block": _TWO_PAGES._replace(programs=("a1 f", ""), targets=(1, 2)),
    "ring": Scenario(("", ""), _SMALL, targets=(2, 0), ring_finely=True, elements_per_turn=1),
    "pieces": Scenario(("a1 f", ""), _SMALL, targets=(2,), punches_max=1, piece_pages=1, may_run_out=True),
    "full": Scenario(("a1 f", ""), _SMALL, targets=(2,), ring_full=True, may_run_out=True),
    "switch": Scenario(("a1 f", ""), _SMALL, nr_pages=4, targets=(2,), switches=True, may_run_out=True),
}
"""By name; for `balloon` alone, whose batches are of two pages here instead of 256."""


def scenarios_of(design: str) -> dict[str, Scenario]:
    """The scenarios that fit a design, by name."""
    own = {"shared": SCENARIOS_SHARED, "balloon": SCENARIOS_BALLOON}.get(design)
    if own is not None:  # their frames and batches are smaller than those that anybody may have
        return own
    every = SCENARIOS_POOL if design == "pool" else SCENARIOS
    return {name: chosen for name, chosen in every.items() if misfit(design, chosen.settings) is None}
