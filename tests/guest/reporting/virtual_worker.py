"""A worker in virtual time that drives a design, with a host that answers as a test wants."""

from collections.abc import Callable

import numpy as np

from pagetide.guest.allocator.recount import Block
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    DROPPED_PAGES,
    HINT_COUNT,
    ISOLATED,
    ISOLATED_BLOCKS,
    ISOLATED_BLOCKS_MAX,
    NR_VCPUS,
    REPORTED_PAGES,
    vcpu_base,
)
from pagetide.guest.reporting.design import Batch, Design
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.reporting.settings import ReportingSettings

Host = Callable[[Batch], bool]


class VirtualWorker:
    """Joins a zone, a design and a host; keeps what was reported and checks each batch on its way.

    Attributes:
        now_s: the virtual clock.
        reported: every batch that the host took, as lists of (frame, order).
        looks_by_clock: whether a pass begins at a time that does not depend on when something was freed.
    """

    looks_by_clock = False

    def __init__(self, name: str, zone: Zone, settings: ReportingSettings, host: Host = lambda _: True) -> None:
        self.zone, self.settings, self.host = zone, settings, host
        self.design: Design = make_design(name, zone, settings)
        self.now_s = 0.0
        self.passes = 0
        self.reported: list[list[tuple[int, int]]] = []
        self.design.start(self.now_s)

    def free(self, pfn: int, order: int, vcpu: int = 0) -> None:
        """Free a block as a vCPU does: with a full batch of hints it reports before it goes on."""
        self.zone.free(pfn, order, vcpu)
        self.report_if_full()

    def report_if_full(self) -> None:
        if self.design.synchronous:
            words = self.zone.words
            while (
                any(
                    words[vcpu_base(vcpu) + HINT_COUNT] >= self.settings.capacity
                    for vcpu in range(int(words[NR_VCPUS]))
                )
                and self.step()
            ):
                pass

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.zone.tick(self.now_s)

    def step(self) -> bool:
        """Ask for one batch at the current time and have it reported; whether there was one."""
        if take_wake(self.zone.words):
            self.design.woken(self.now_s)
        batch = self.next_batch(self.now_s)
        if batch is None:
            return False
        blocks = [(int(packed) >> 4, int(packed) & 15) for packed in batch]
        self._check_batch(blocks)
        before = batch.copy()
        taken = self.host(batch)
        assert np.array_equal(before, batch), "nobody touches a batch while the host has it"
        if taken:
            self.reported.append(blocks)
        self.done(batch, taken)
        return True

    @property
    def due_s(self) -> float | None:
        """When the next pass is due."""
        return self.design.due_s

    @property
    def at_rest(self) -> bool:
        """Whether the design wants nothing until something is freed."""
        return self.design.at_rest

    def next_batch(self, now_s: float) -> Batch | None:
        """The next batch, if there is one."""
        return self.design.next_batch(now_s)

    def done(self, batch: Batch, taken: bool) -> None:
        """The host has dealt with a batch."""
        self.design.done(batch, taken, self.now_s)

    @property
    def blocks_max(self) -> int:
        """How many blocks may be out of the allocator at once."""
        return self.settings.capacity

    @property
    def blocks_out(self) -> int:
        """Blocks that the host has now."""
        return int(self.zone.words[ISOLATED_BLOCKS])

    @property
    def blocks_out_max(self) -> int:
        """Most of them at once so far."""
        return int(self.zone.words[ISOLATED_BLOCKS_MAX])

    @property
    def reported_pages(self) -> int:
        """Free pages that the host has discarded."""
        return int(self.zone.words[REPORTED_PAGES])

    def _check_batch(self, blocks: list[tuple[int, int]]) -> None:
        assert 0 < len(blocks) <= self.settings.capacity
        assert self.zone.words[ISOLATED_BLOCKS] == len(blocks)
        isolated = {(b.pfn, b.order) for b in self.zone.blocks() if b.kind == ISOLATED}
        assert isolated == set(blocks), "a batch is exactly what is isolated"
        assert all(order >= self.settings.order for _, order in blocks)

    def run_pass(self) -> None:
        """Let the clock reach the time that is due, and report until there is no batch."""
        if take_wake(self.zone.words):
            self.design.woken(self.now_s)
        assert self.due_s is not None
        self.tick(max(0.0, self.due_s - self.now_s))
        self.passes += 1
        while self.step():
            pass

    def settle(self, passes_max: int = 200) -> None:
        """Let time pass until the design wants nothing more."""
        if take_wake(self.zone.words):
            self.design.woken(self.now_s)
        while not self.at_rest:
            self.run_pass()
            assert self.passes <= passes_max, "the design does not come to rest"

    def unreported(self) -> list[Block]:
        """Free blocks that should have been reported and were not."""
        return [b for b in self.zone.blocks() if b.kind == BUDDY and b.order >= self.settings.order and not b.reported]

    def check_nothing_is_lost(self) -> None:
        """What is unreported at rest is what the design says that it leaves, or what it counted as dropped."""
        unreported = sorted((1 << b.order for b in self.unreported()), reverse=True)
        kept = unreported[self.design.leftover_blocks_max :]
        assert sum(kept) <= (self.zone.words[DROPPED_PAGES] if self.design.drops_hints else 0)
