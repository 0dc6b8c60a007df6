"""What a design is: something that decides which free blocks are reported, and when.

A design is driven by a worker that it knows nothing about, live or simulated:

1. `start`; `woken` whenever the free path raised WAKE.
2. At `due_s` or later the worker asks `next_batch` again and again; each batch is given to the host, on the virtqueue
   that `queue` names, and handed back to `done`, before the next is asked for, until there is none. What becomes of the
   blocks then is the design's: reported ones go back to the allocator, inflated ones stay in the balloon.
3. `stop` switches it off, at any time at which no batch is out; `start` switches it on again.

Time comes in as an argument; a design never waits and never asks for it. Isolating and putting back is the zone's
business.
"""

from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.virtio.balloon import Queue

Batch = npt.NDArray[np.int64]
"""Isolated blocks, each `pfn << 4 | order`."""

Oom = Literal["none", "wait", "cap", "swap"]
"""What keeps blocks that are out for reporting from making an allocation fail (S15 of the thread).

`none`: nothing does. `wait`: an allocation waits for them before it fails. `cap`: no more than `in_flight_max_bytes`
are out. `swap`: spare blocks take their place (Tsirkin's hinting buffer).
"""

Pace = Literal["drain", "linux"]
"""How much of the free lists a pass goes through: until nothing is left, or about a sixteenth of each list."""

Wake = Literal["merge", "threshold", "timer"]
"""What makes the worker run (S17): a free block of the reporting order, that many of them, or the clock alone."""


class ReportingSettings(NamedTuple):
    """How a design is tuned; each takes what fits it.

    Attributes:
        order: the smallest block that is reported.
        delay_s: how long after a request a pass begins; None is the design's own.
        capacity: blocks in a batch at most.
        pace: `drain` until nothing is left, or `linux`, about a sixteenth of each list a pass.
        cool_s: how long a block must have been free before it is reported.
        wake: what makes the worker run; None is the design's own.
        wake_blocks: how many unreported blocks `threshold` waits for.
        oom: what is done against false OOMs.
        in_flight_max_bytes: for `cap`, the most that is out at once; for `swap`, the most that is kept as spares.
        hints_max: length of a vCPU's array of hints, for designs that have one.
        drop_share: share of its hints that `hybrid` may drop before it scans.
        keep_s: for how long what `pool` keeps would last at the rate of allocations of late.
        idle_s: the least time for which `pool` keeps what was freed.
    """

    order: int = 9
    delay_s: float | None = None
    capacity: int = 32
    pace: Pace = "drain"
    cool_s: float = 0.0
    wake: Wake | None = None
    wake_blocks: int = 16
    oom: Oom = "wait"
    in_flight_max_bytes: int = 64 << 20
    hints_max: int = 256
    drop_share: float = 0.01
    keep_s: float = 5.0
    idle_s: float = 3.0


class Design(Protocol):
    """The interface of every design; tests/guest/reporting/test_design_conformance.py says what holds for each.

    Attributes:
        queue: the virtqueue on which the batch that is out travels.
        synchronous: the vCPU whose free filled a batch reports it itself, and waits for the host.
        leftover_blocks_max: reportable blocks that it may leave unreported at rest; more only with dropped hints.
        at_rest: it wants nothing until something is freed, though it may look by the clock meanwhile.
        drops_hints: it may lose hints, and counts those in the zone's DROPPED_HINTS and DROPPED_PAGES.
    """

    synchronous: ClassVar[bool]
    drops_hints: ClassVar[bool]

    @property
    def queue(self) -> Queue:
        """The virtqueue on which the batch that is out travels: `reporting`, or one of the balloon's."""

    @property
    def leftover_blocks_max(self) -> int:
        """Reportable blocks that it may leave unreported at rest."""

    @property
    def due_s(self) -> float | None:
        """When the worker is to ask for a batch; None while nothing is wanted."""

    @property
    def at_rest(self) -> bool:
        """Whether it wants nothing until something is freed; from any thread."""

    def start(self, now_s: float) -> None:
        """Begin: what is free already is to be reported, too."""

    def stop(self) -> None:
        """End: the free path asks for nothing any more. No batch is out."""

    def woken(self, now_s: float) -> None:
        """The free path raised WAKE."""

    def next_batch(self, now_s: float) -> Batch | None:
        """Isolate the next blocks to report; None when there is nothing to do before the new `due_s`."""

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Take back the batch that `next_batch` gave: the host has it (`reported`) or it failed."""
