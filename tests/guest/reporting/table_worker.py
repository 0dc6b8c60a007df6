"""A host in virtual time that takes frames from the table of a guest whose design is `shared`."""

import numpy as np

from pagetide.guest.allocator.recount import Block
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import BUDDY, NR_PAGES
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.host.device.taking import begin_batch, end_batch, recover
from pagetide.memory.frame_table import (
    FRAME_ORDER,
    FRAME_PAGES,
    FRAMES,
    FREE,
    STATE_MASK,
    TAKEN,
    TAKING,
    TAKING_MAX,
    TAKING_NOW,
)
from tests.guest.reporting.virtual_worker import Host, VirtualWorker


class TableWorker(VirtualWorker):
    """Looks at the table every delay, and takes what is free, batch by batch, instead of being reported to."""

    looks_by_clock = True

    def __init__(self, name: str, zone: Zone, settings: ReportingSettings, host: Host = lambda _: True) -> None:
        self.table, self.frames = zone.frame_table, int(zone.words[NR_PAGES]) // FRAME_PAGES
        self._picked, self._count = np.zeros(settings.capacity, np.int64), np.zeros(1, np.int64)
        self._position = 0
        self._look_s = settings.delay_s or 0.0
        super().__init__(name, zone, settings, host)

    def frames_that_are(self, state: int) -> list[int]:
        """The frames in this state."""
        return [int(f) for f in np.flatnonzero(self.table[FRAMES : FRAMES + self.frames] & STATE_MASK == state)]

    @property
    def due_s(self) -> float | None:
        """The host looks again and again; when there is nothing to take, a test need not wait for that."""
        return max(self._look_s, self.now_s) if self.frames_that_are(FREE) else None

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to take."""
        return self.due_s is None

    def next_batch(self, now_s: float) -> Batch | None:
        """Make the next frames TAKING."""
        if now_s < self._look_s:
            return None
        self._position = int(begin_batch(self.table, self._position, self.frames, self._picked, self._count))
        count = int(self._count[0])
        if count == 0:
            self._position, self._look_s = 0, now_s + (self.settings.delay_s or 0.0)
            return None
        return self._picked[:count] << (FRAME_ORDER + 4) | FRAME_ORDER

    def done(self, batch: Batch, taken: bool) -> None:
        """Make them TAKEN, or have another host find them TAKING."""
        if taken:
            end_batch(self.table, self._picked, len(batch))
        else:
            recover(self.table, self.frames)
            self._position, self._look_s = 0, self.now_s + (self.settings.delay_s or 0.0)

    def _check_batch(self, blocks: list[tuple[int, int]]) -> None:
        assert 0 < len(blocks) <= self.settings.capacity
        assert self.blocks_out == len(blocks)
        assert {frame << FRAME_ORDER for frame in self.frames_that_are(TAKING)} == {pfn for pfn, _ in blocks}
        self.zone.check()  # what is offered, is being taken or taken is free

    @property
    def blocks_out(self) -> int:
        return int(self.table[TAKING_NOW])

    @property
    def blocks_out_max(self) -> int:
        return int(self.table[TAKING_MAX])

    @property
    def reported_pages(self) -> int:
        return len(self.frames_that_are(TAKEN)) * FRAME_PAGES

    def unreported(self) -> list[Block]:
        taken = set(self.frames_that_are(TAKEN))
        large = [block for block in self.zone.blocks() if block.kind == BUDDY and block.order >= FRAME_ORDER]
        pfns = [pfn for block in large for pfn in range(block.pfn, block.pfn + (1 << block.order), FRAME_PAGES)]
        return [Block(pfn, FRAME_ORDER, BUDDY, False) for pfn in pfns if pfn >> FRAME_ORDER not in taken]
