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

from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.virtio.balloon import Queue

Batch = npt.NDArray[np.int64]
"""Isolated blocks, each `pfn << 4 | order`."""


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
