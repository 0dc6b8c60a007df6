"""What a scenario is: a guest of a few pages, what two vCPUs do in it, and what goes wrong."""

import re
from typing import NamedTuple

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.guest.allocator.zone_layout import LISTED_SHIFT, MOVABLE, RECLAIMABLE, UNMOVABLE
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.host.device.queues.element import TURN_PUNCHES_MAX

_ALLOCATION = re.compile(r"a(?P<order>\d)(?P<type>[ur]?)")
_MIGRATETYPES = {"": MOVABLE, "u": UNMOVABLE, "r": RECLAIMABLE}


class Scenario(NamedTuple):
    """What two vCPUs do, and in how small a guest.

    Attributes:
        programs: for each vCPU its operations: `aN` allocates a block of order N, and `aNu` or `aNr` one that cannot be
            moved or is reclaimable; `f` frees the oldest it has.
        settings: of the design.
        nr_pages: in the zone.
        order_max: the largest block.
        pcp_batch: pages moved to and from a per-CPU list at once.
        pcp_high: pages at which a vCPU's lists give some back, at first and at most.
        pcp_orders: the orders of blocks that have per-CPU lists.
        migratetypes: whether the zone keeps to them.
        watermark_min: pages that an allocation leaves.
        settled: whether all that is free was reported before the vCPUs begin.
        may_run_out: whether an allocation may find the memory out for reporting.
        waits_before_oom: whether an allocation that fails waits for what is out for reporting.
        ring_finely: whether ring operations are explored access by access, or are a step each.
        wakes_finely: whether the flag with which the worker is woken is explored access by access.
        elements_per_turn: the device's budget.
        punches_max: holes that the device punches in a turn, which may so end within an element.
        piece_pages: pages that one hole has at most; the next one begins at a multiple of them.
        ring_full: whether there is no room in the queue at first, so that reports fail at once.
        targets: how many pages the host wants in the balloon, one after the other.
        switches: whether the design is switched off at some time, and on again once it is off.
        flips: whether it is switched on again at any time after that.
        killed: whether the host's process is killed at some time, and another one takes over.
    """

    programs: tuple[str, str]
    settings: ReportingSettings
    nr_pages: int = 8
    order_max: int = 2
    pcp_batch: int = 1
    pcp_high: tuple[int, int] = (2, 2)
    pcp_orders: tuple[int, ...] = (0,)
    migratetypes: bool = False
    watermark_min: int = 0
    settled: bool = False
    may_run_out: bool = False
    waits_before_oom: bool = True
    ring_finely: bool = False
    wakes_finely: bool = False
    elements_per_turn: int = 2
    punches_max: int = TURN_PUNCHES_MAX
    piece_pages: int = 1 << 20
    ring_full: bool = False
    targets: tuple[int, ...] = ()
    switches: bool = False
    flips: bool = False
    killed: bool = False


def operations_of(program: str) -> list[dict[str, int]]:
    """The operations that a program such as `a1 a0 f f` stands for.

    Raises:
        ValueError: a word is not `aN`, `aNu`, `aNr` or `f`, or frees what was not allocated.
    """
    operations: list[dict[str, int]] = []
    held: list[tuple[int, int]] = []
    for word in program.split():
        if word == "f" and held:
            slot, order = held.pop(0)
            operations.append({"kind": FREE, "order": order, "slot": slot})
        elif (found := _ALLOCATION.fullmatch(word)) is not None:
            slot, order = len(operations), int(found["order"])
            held.append((slot, order))
            wanted = order | _MIGRATETYPES[found["type"]] << LISTED_SHIFT
            operations.append({"kind": ALLOCATE, "order": wanted, "slot": slot})
        else:
            raise ValueError(f"{word!r} in {program!r} is no operation: aN allocates a block of order N, f frees one")
    return operations
