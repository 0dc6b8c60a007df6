"""The reader of the vCPUs' arrays of hints, and the sweep that finds what no hint names."""

from pagetide.guest.allocator.by_position import sweep, take_hints
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, LEFT, PASS_OVER_MAX, YOUNG
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import HINT_COUNT, NR_PAGES, NR_VCPUS, vcpu_base
from pagetide.guest.reporting.passes import Outgoing


class HintArrays:
    """Fills a batch from all vCPUs' arrays."""

    def __init__(self, zone: Zone, out: Outgoing) -> None:
        """Read the zone's arrays into this batch."""
        self._zone, self._out = zone, out
        self._vcpus = range(int(zone.words[NR_VCPUS]))

    def full(self, hints: int) -> bool:
        """Whether an array has at least so many hints."""
        return any(self._zone.words[vcpu_base(vcpu) + HINT_COUNT] >= hints for vcpu in self._vcpus)

    def fill(self, hints_min: int = 1) -> int:
        """Isolate what hints name, from arrays with at least so many, until the batch is full; how many were used."""
        words, out = self._zone.words, self._out
        total = 0
        for vcpu in self._vcpus:
            while (
                words[vcpu_base(vcpu) + HINT_COUNT] >= hints_min
                and out.steps[FILLED] < len(out.blocks)
                and not out.steps[BLOCKED]
            ):
                used = int(take_hints(words, self._zone.pages, vcpu, out.blocks, out.steps))
                total += used
                if not used:
                    break
        out.filled = int(out.steps[FILLED])
        return total


class Sweep:
    """Goes over all frames once, by position, and isolates what is free and unreported.

    Attributes:
        over: whether it is done; so it is before `begin`.
    """

    def __init__(self, zone: Zone, out: Outgoing) -> None:
        """Sweep this zone into this batch."""
        self._zone, self._out = zone, out
        self.over = True
        self._pfn = 0
        self._met_young = False

    def begin(self) -> None:
        """Begin at the first frame."""
        self.over = self._met_young = False
        self._pfn = 0

    def begin_again(self) -> None:
        """Begin anew if blocks were too young when it came by: no hint names them. For when a pass begins."""
        if self._met_young:
            self.begin()

    def fill(self) -> None:
        """Isolate on, until the batch is full or the sweep is over."""
        words, out = self._zone.words, self._out
        while not self.over and not out.steps[BLOCKED] and out.steps[FILLED] < len(out.blocks):
            out.steps[LEFT] = PASS_OVER_MAX
            young = int(out.steps[YOUNG])
            self._pfn = int(sweep(words, self._zone.pages, self._pfn, out.blocks, out.steps))
            self._met_young |= bool(out.steps[YOUNG] > young)
            self.over = bool(self._pfn >= words[NR_PAGES])
        out.filled = int(out.steps[FILLED])
