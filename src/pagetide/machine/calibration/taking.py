"""Measures what it costs a host to take frames from a table by itself, besides discarding them (`shared`)."""

import time
from typing import NamedTuple

import numpy as np

from pagetide.host.device.taking import FrameTaker
from pagetide.host.memory.ledger import Ledger
from pagetide.memory.frame_table import FRAME_PAGES, FRAMES, FREE, TAKEN, table_words
from pagetide.memory.region_map import RegionMap

_LOOKED = 8192
_TAKEN = 2048
_BATCH = 32


class TakingNs(NamedTuple):
    """Nanoseconds, an entry a stretch in each list; the names are those of TakingCosts."""

    batch: list[float]
    frame: list[float]
    look: list[float]


def measure_taking(stretches: int) -> TakingNs:
    """Look at frames that are all taken, and take free ones of no region at all, one at a time and 32 at a time."""
    found = TakingNs([], [], [])
    for _ in range(1 + stretches):
        pass_ns = _spent_ns(_LOOKED, TAKEN, 1)
        one_ns, many_ns = (_spent_ns(_TAKEN, FREE, size) / _TAKEN for size in (1, _BATCH))
        # With batches of n a frame takes batch / n + frame + look.
        batch_ns = (one_ns - many_ns) * _BATCH / (_BATCH - 1)
        look_ns = max(0.0, pass_ns - batch_ns) / _LOOKED
        found.batch.append(batch_ns)
        found.look.append(look_ns)
        found.frame.append(one_ns - batch_ns - look_ns)
    return TakingNs(*(each[1:] for each in found))


def _spent_ns(frames: int, state: int, batch_frames: int) -> int:
    """What one pass over so many frames in this state takes."""
    table = np.zeros(table_words(frames * FRAME_PAGES), np.int64)
    table[FRAMES : FRAMES + frames] = state
    taker = FrameTaker(table, frames, RegionMap([]), Ledger(), capacity=batch_frames)
    start_ns = time.thread_time_ns()
    while taker.take() is not None:
        pass
    return time.thread_time_ns() - start_ns
