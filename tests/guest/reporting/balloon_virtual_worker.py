"""A worker in virtual time for `balloon`, whose host always wants all of the guest's free memory.

So what the suite calls reported is in the balloon. Four things are a balloon's own, and all in this file: a batch has
256 pages whatever the capacity; pages in it are not free, so a guest that needs them must have them back first
(`allocate` deflates on OOM); it looks by the clock for ever, so it rests when it is as the host wants it; and what is
told on the deflate queue is no report.
"""

from pagetide.guest.allocator.recount import Block
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import BALLOON, BALLOON_PAGES, BUDDY, FREE_PAGES, MOVABLE
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.balloon import PFNS_A_BATCH, Balloon
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.virtio.balloon import Queue
from tests.guest.reporting.virtual_worker import Host, VirtualWorker


class _RelievedZone(Zone):
    """A zone whose failing allocations deflate a balloon, as GuestRun has them do."""

    balloon: Balloon

    def allocate(self, order: int, vcpu: int = 0, migratetype: int = MOVABLE) -> int | None:
        pfn = super().allocate(order, vcpu, migratetype)
        while pfn is None and self.balloon.deflate_on_oom(order):
            pfn = super().allocate(order, vcpu, migratetype)
        return pfn


class BalloonVirtualWorker(VirtualWorker):
    """Has everything that is free inflated, and nothing deflated but what an allocation needs."""

    looks_by_clock = True

    def __init__(self, name: str, zone: Zone, settings: ReportingSettings, host: Host = lambda _: True) -> None:
        self._out = self._out_max = 0
        super().__init__(name, zone, settings, host)
        assert isinstance(self.design, Balloon)
        zone.__class__ = _RelievedZone
        zone.balloon = self.design  # type: ignore[attr-defined]

    @property
    def _balloon(self) -> Balloon:
        assert isinstance(self.design, Balloon)
        return self.design

    @property
    def due_s(self) -> float | None:
        """It looks again and again; when the balloon is as wanted, a test need not wait for that."""
        words = self.zone.words
        return self.design.due_s if words[FREE_PAGES] or self.blocks_out else None

    @property
    def at_rest(self) -> bool:
        """Whether the balloon is as wanted."""
        return self.due_s is None

    def next_batch(self, now_s: float) -> Batch | None:
        """Want everything, and inflate; what is told on the deflate queue on the way is acknowledged."""
        words = self.zone.words
        self._balloon.wanted_pages = int(words[FREE_PAGES] + words[BALLOON_PAGES])
        batch = self.design.next_batch(now_s)
        while batch is not None and self._balloon.queue is Queue.DEFLATE:
            self.design.done(batch, True, now_s)
            batch = self.design.next_batch(now_s)
        self._out = 0 if batch is None else len(batch)
        self._out_max = max(self._out_max, self._out)
        return batch

    def done(self, batch: Batch, taken: bool) -> None:
        """Have the pages in the balloon, or back."""
        super().done(batch, taken)
        self._out = 0

    def _check_batch(self, blocks: list[tuple[int, int]]) -> None:
        assert 0 < len(blocks) <= PFNS_A_BATCH
        assert set(blocks) == {(b.pfn, b.order) for b in self.zone.blocks() if b.kind == BALLOON}

    @property
    def blocks_max(self) -> int:
        return PFNS_A_BATCH

    @property
    def blocks_out(self) -> int:
        return self._out

    @property
    def blocks_out_max(self) -> int:
        return self._out_max

    @property
    def reported_pages(self) -> int:
        return int(self.zone.words[BALLOON_PAGES])

    def unreported(self) -> list[Block]:
        return [block for block in self.zone.blocks() if block.kind == BUDDY]
