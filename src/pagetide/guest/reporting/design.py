"""What a design is: something that decides which free blocks are reported, and when.

A design is driven by a worker that it knows nothing about, live or simulated:

1. `start` once; `woken` whenever the free path raised WAKE. 2. At `due_s` or later the worker asks `next_batch` again
and again; each batch is reported to the host and handed back to
   `done`, before the next is asked for, until there is none.

Time comes in as an argument; a design never waits and never asks for it. Isolating and putting back is the zone's
business.
"""

from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Batch = npt.NDArray[np.int64]
"""Isolated blocks, each `pfn << 4 | order`."""


class ReportingSettings(NamedTuple):
    """How a design is tuned.

    Attributes:
        order: the smallest block that is reported.
        delay_s: how long after a request a pass begins.
        capacity: blocks in a batch at most.
        pace: `drain` until nothing is left, or `linux`, about a sixteenth of each list a pass.
    """

    order: int = 9
    delay_s: float = 2.0
    capacity: int = 32
    pace: Literal["drain", "linux"] = "drain"


class Design(Protocol):
    """The interface of every design; the conformance suite in tests/guest says what holds for each."""

    @property
    def due_s(self) -> float | None:
        """When the worker is to ask for a batch; None while nothing is wanted."""

    def start(self, now_s: float) -> None:
        """Begin: what is free already is to be reported, too."""

    def woken(self, now_s: float) -> None:
        """The free path raised WAKE."""

    def next_batch(self, now_s: float) -> Batch | None:
        """Isolate the next blocks to report; None when there is nothing to do before the new `due_s`."""

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Take back the batch that `next_batch` gave: the host has it (`reported`) or it failed."""
