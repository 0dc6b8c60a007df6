"""Time series made short enough to draw, with their extremes kept."""

import numpy as np
import numpy.typing as npt

_Column = npt.NDArray[np.float64]


def thinned(t_s: _Column, values: list[_Column], points: int) -> npt.NDArray[np.int64]:
    """Indices to keep: of each of `points` stretches of time the first, the last, and each column's least and largest.

    So nothing that was reached is lost, however short it was. At most `points * (2 + 2 * len(values))` are kept.

    Args:
        t_s: float64 times, rising.
        values: float64 columns as long.
        points: how many stretches.
    """
    assert points >= 1
    if len(t_s) <= 2 * points:
        return _without_flat(np.arange(len(t_s)), values) if len(t_s) else np.arange(0)
    edges = np.linspace(t_s[0], t_s[-1], points + 1)
    starts = np.unique(np.searchsorted(t_s, edges[:-1]))
    starts = starts[starts < len(t_s)]
    ends = np.append(starts[1:], len(t_s))
    kept = {0, len(t_s) - 1}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept |= {start, end - 1}
        for column in values:
            stretch = column[start:end]
            if not np.isnan(stretch).all():
                kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
    return _without_flat(np.array(sorted(kept)), values)


def _without_flat(kept: npt.NDArray[np.int64], values: list[_Column]) -> npt.NDArray[np.int64]:
    """Without those at which every column is what it was just before and is just after."""
    changes = np.zeros(len(kept), bool)
    changes[[0, -1]] = True
    for column in values:
        steps = np.diff(column[kept]) != 0
        changes[1:] |= steps
        changes[:-1] |= steps
    return kept[changes]
