"""What each guest had over the last day: every look of the last hour, and one in ten seconds of the day.

Sizes are kept in pages, 4 bytes each, up to 16 TiB. What only grows is kept as what it grew by, so that it can be added
up over any time. A guest takes 0.5 MB; of more than `GUESTS_MAX` guests who has gone for longest is forgotten, and of
those that are there the last that came have no history.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pagetide.operate.watch.seen import Seen
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

LEVELS = ("held_bytes", "used_bytes", "target_bytes", "balloon_bytes")
"""What is kept as it was."""

GROWING = ("reported_bytes", "returned_bytes", "refaulted_bytes")
"""What is kept as what it grew by since the look before, or the ten seconds before."""

NAMES = (*LEVELS, *GROWING)

FINE_LOOKS = 7200
"""Looks of which all is kept: an hour at two a second."""

COARSE_S = 10.0
"""How long each part of the day is."""

COARSE_PARTS = 8640
"""How many there are: a day."""

GUESTS_MAX = 160
"""Of how many guests there is a history."""

POINTS_MAX = 1200
"""Most points of a curve."""

FORGOTTEN_S = 86400.0
"""How long a guest that has gone is remembered."""

_ABSENT = 0xFFFFFFFF
_LEVELS = len(LEVELS)

_Words = npt.NDArray[np.uint32]


class _Ring:
    """So many rows by time, the oldest overwritten."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.t_s = np.full(rows, -np.inf)
        self.count = 0
        self._of: dict[str, _Words] = {}

    def begin(self, t_s: float) -> None:
        """Begin a row in which nobody is yet."""
        place = self.count % self.rows
        self.t_s[place] = t_s
        for words in self._of.values():
            words[:, place] = _ABSENT
        self.count += 1

    def put(self, name: str, values: _Words) -> None:
        """Have a guest in the row that was begun last."""
        if name not in self._of:
            self._of[name] = np.full((len(NAMES), self.rows), _ABSENT, np.uint32)
        self._of[name][:, (self.count - 1) % self.rows] = values

    def forget(self, name: str) -> None:
        """Keep nothing of a guest."""
        self._of.pop(name, None)

    def between(self, name: str, from_s: float, to_s: float) -> tuple[npt.NDArray[np.float64], _Words]:
        """The times of rows, in order, and a guest's values in them, a row a name; nothing of one who is not kept."""
        order = np.arange(max(0, self.count - self.rows), self.count) % self.rows
        times = self.t_s[order]
        order = order[(times >= from_s) & (times < to_s)]
        words = self._of.get(name)
        if words is None:
            return np.zeros(0), np.zeros((len(NAMES), 0), np.uint32)
        return self.t_s[order], words[:, order]

    @property
    def nbytes(self) -> int:
        """What all of it takes."""
        return self.t_s.nbytes + sum(words.nbytes for words in self._of.values())


class History:
    """That of all guests."""

    def __init__(self) -> None:
        """Know of nobody."""
        self._fine, self._coarse = _Ring(FINE_LOOKS), _Ring(COARSE_PARTS)
        self._last: dict[str, Seen] = {}
        self._grown: dict[str, npt.NDArray[np.int64]] = {}
        self._seen_s: dict[str, float] = {}
        self._part_s = -np.inf

    @property
    def nbytes(self) -> int:
        """What the curves take."""
        return self._fine.nbytes + self._coarse.nbytes

    def add(self, t_s: float, vms: Sequence[Seen]) -> None:
        """Keep a look; time goes on from look to look. In one of which a guest is stale, it is not known."""
        self._fine.begin(t_s)
        is_part = t_s - self._part_s >= COARSE_S
        if is_part:
            self._coarse.begin(t_s)
            self._part_s = t_s
        for name in [name for name, seen_s in self._seen_s.items() if t_s - seen_s > FORGOTTEN_S]:
            self._forget(name)
        last, self._last = self._last, {}
        there = {seen.name for seen in vms}
        for seen in vms:
            if not self._has_room(seen.name, there):
                continue
            self._seen_s[seen.name] = t_s
            if seen.is_stale:  # what it has grown by is counted with its next look
                self._last[seen.name] = last.get(seen.name, seen)
                continue
            self._last[seen.name] = seen
            levels = [_pages(getattr(seen, name)) for name in LEVELS]
            grown = _growth(last.get(seen.name), seen)
            self._fine.put(seen.name, _row(seen, levels, grown))
            so_far = self._grown.get(seen.name, 0) + grown
            if is_part:
                self._coarse.put(seen.name, _row(seen, levels, so_far))
                so_far = np.zeros(len(GROWING), np.int64)
            self._grown[seen.name] = so_far
        self._grown = {name: grown for name, grown in self._grown.items() if name in self._last}

    def _has_room(self, name: str, there: Collection[str]) -> bool:
        """Whether there is a place for a guest, or one can be had of somebody who is not there."""
        if name in self._seen_s or len(self._seen_s) < GUESTS_MAX:
            return True
        gone = [each for each in self._seen_s if each not in there]
        if gone:
            self._forget(min(gone, key=self._seen_s.__getitem__))
        return bool(gone)

    def _forget(self, name: str) -> None:
        del self._seen_s[name]
        for kept in (self._fine, self._coarse):
            kept.forget(name)

    def curves(self, name: str, span_s: float) -> dict[str, Any]:
        """A guest's curves over the time up to the last look, in at most `POINTS_MAX` points.

        Returns:
            `t_s`, and by each of `NAMES` a list of bytes, or None where it is not known; of what grows, by how much.
        """
        end_s = float(self._fine.t_s[(self._fine.count - 1) % FINE_LOOKS]) + 1e-6
        if self._fine.count == 0:
            return {"t_s": [], **{each: [] for each in NAMES}}
        oldest_s = float(self._fine.t_s[(self._fine.count - min(self._fine.count, FINE_LOOKS)) % FINE_LOOKS])
        ring = self._fine if end_s - span_s >= oldest_s or self._fine.count <= FINE_LOOKS else self._coarse
        times, words = ring.between(name, end_s - span_s, end_s)
        times, words = _thinned(times, words)
        values = [[None if word == _ABSENT else int(word) << PAGE_SHIFT for word in row] for row in words.tolist()]
        return {"t_s": times.round(3).tolist(), **dict(zip(NAMES, values, strict=True))}


def _pages(size_bytes: int | None) -> int:
    return _ABSENT if size_bytes is None else min(size_bytes // PAGE_SIZE_BYTES, _ABSENT - 1)


def _row(seen: Seen, levels: list[int], grown: npt.NDArray[np.int64]) -> _Words:
    """What is kept of a look; what a VM that is not our daemon's returns nobody counts."""
    known = np.minimum(grown, _ABSENT) if seen.is_ours else np.full(len(GROWING), _ABSENT)
    return np.concatenate([levels, known]).astype(np.uint32)


def _growth(before: Seen | None, now: Seen) -> npt.NDArray[np.int64]:
    """In pages; of an account that began anew since the look before, nothing is known and 0 is kept."""
    if before is None or before.account != now.account:
        return np.zeros(len(GROWING), np.int64)
    grown = [(getattr(now, name) or 0) - (getattr(before, name) or 0) for name in GROWING]
    return np.array([min(max(0, each >> PAGE_SHIFT), _ABSENT - 1) for each in grown], np.int64)


def _thinned(times: npt.NDArray[np.float64], words: _Words) -> tuple[npt.NDArray[np.float64], _Words]:
    """Fewer points: the last of each few, with all that it grew by in them."""
    each = -(-len(times) // POINTS_MAX)
    if each <= 1:
        return times, words
    starts = np.arange(0, len(times), each)
    ends = np.append(starts[1:], len(times)) - 1
    levels = words[:_LEVELS, ends]
    is_known = words[_LEVELS:] != _ABSENT
    grown = np.where(is_known, words[_LEVELS:], 0).astype(np.int64)
    sums = np.minimum(np.add.reduceat(grown, starts, axis=1), _ABSENT - 1)
    sums[(levels[0] == _ABSENT) | ~np.logical_or.reduceat(is_known, starts, axis=1)] = _ABSENT
    return times[ends], np.concatenate([levels, sums.astype(np.uint32)])
