"""Whether a figure of a process grows by itself: a linear fit over time and over how many guests there are."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_WARM_SHARE = 0.15
"""Of the time, at the beginning: caches fill."""
_BLOCKS = 24
"""Neighbouring values are much alike, so each of so many blocks counts as one."""
_CONFIDENCE = 0.95

_Figures = Sequence[float] | NDArray[np.float64]


def in_bytes(figure: str) -> bool:
    """Whether a figure, by its name, is a size in bytes; otherwise it is a number of something."""
    return "rss" in figure.casefold()


class Growth(NamedTuple):
    """What a figure did by itself.

    Attributes:
        start: what it was after the warm-up, on average over a block.
        end: and in the last block.
        per_hour: by how much it grew.
        by_per_hour: the interval's half.
        hours: over how long.
    """

    start: float
    end: float
    per_hour: float
    by_per_hour: float
    hours: float

    @property
    def least(self) -> float:
        """By how much it has grown at least in all that time; not positive if it may not have grown at all."""
        return (self.per_hour - self.by_per_hour) * self.hours


def growth(times_s: _Figures, values: _Figures, guests: _Figures) -> Growth:
    """Fit `a + b time + c guests` by least squares to means of blocks, with the interval of b at 95 %.

    Raises:
        ValueError: there are too few values.
    """
    warm = int(len(times_s) * _WARM_SHARE)
    columns = np.array([times_s, values, guests], np.float64)[:, warm:]
    if columns.shape[1] < _BLOCKS:
        raise ValueError(f"{columns.shape[1]} values are too few for {_BLOCKS} blocks")
    hours, figure, there = np.array([block.mean(1) for block in np.array_split(columns, _BLOCKS, axis=1)]).T
    hours = (hours - hours[0]) / 3600
    known = np.column_stack([np.ones_like(hours), hours, there - there.mean()])
    # Where always as many guests were there, the last column says nothing: the pseudo-inverse leaves it out.
    inverse = np.linalg.pinv(known.T @ known)
    fitted = inverse @ known.T @ figure
    freedom = _BLOCKS - int(np.linalg.matrix_rank(known))
    residual = figure - known @ fitted
    error = math.sqrt(float(residual @ residual) / freedom * float(inverse[1, 1]))
    return Growth(figure[0], figure[-1], float(fitted[1]), error * _student(freedom), float(hours[-1]))


def _student(freedom: int) -> float:
    """Student's t for the interval, by the first terms of its expansion (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
