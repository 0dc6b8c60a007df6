"""From what was seen of simulated guests to a response."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import held, highest_use
from pagetide.fleet.guests.response import LEVELS, Response
from pagetide.fleet.learning.observe import STEP_S, Observed
from pagetide.fleet.learning.settings import RAM_BYTES
from pagetide.fleet.usage.canonical import Grid, Usage

_MOVED_SHARE = 0.005
"""A change of use counts if it is at least this share of the most used."""

_RETURNED_SHARE_MIN = 0.01
"""A setting of which less than this share of what falls comes back returns nothing."""

_FADES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""How fast the highest may fade."""

_FITS = 5
"""How often what is left behind is fitted anew, with the falls that then count."""

_SMOOTH = 0.05
"""How much neighbouring levels hold each other where little was seen, beside a weight of 1 for each fall."""

_Column = npt.NDArray[np.float64]


class _Changes(NamedTuple):
    """Changes of use, an entry each, as shares of the most used until then: before it and at the end of its step."""

    used_before: _Column
    used: _Column
    held_before: _Column
    held: _Column
    held_mean: _Column


def fit(name: str, observed: Sequence[Observed]) -> Response:
    """The response with which the model comes closest to what was seen, in the mean square over all steps.

    How fast the highest fades is tried. Given that, what is left behind is the least-squares fit over the ends of all
    steps in which use fell; the time constant is that of all that came back in them together; what growth takes from
    elsewhere is that of all growth while there was enough free and the host got nothing back.
    """
    tried = [_fit(name, observed, fades) for fades in _FADES]
    return min(tried, key=lambda response: _error(response, observed))


def _error(response: Response, observed: Iterable[Observed]) -> float:
    """The mean square of how far the model is off."""
    off = [modelled(one, response) - one.held_mean for one in observed]
    return float(np.square(np.concatenate(off)).mean())


def modelled(observed: Observed, response: Response) -> _Column:
    """What the model says of a guest that was seen: bytes held on average over each step."""
    used = observed.used[np.newaxis].astype(np.float32)
    grid = Grid(0, STEP_S, used.shape[1])
    capacity, valid = np.full_like(used, RAM_BYTES), np.ones(used.shape, np.bool_)
    return held(Usage(grid, ("guest",), capacity, used, valid), response).bytes_by_step


def _fit(name: str, observed: Iterable[Observed], fades: float) -> Response:
    changes = _changes(observed, fades)
    moved = changes.used - changes.used_before
    falls = _Changes(*(column[moved < -_MOVED_SHARE] for column in changes))
    rises = _Changes(*(column[moved > _MOVED_SHARE] for column in changes))
    came_back = (falls.held_before - falls.held).sum()
    if came_back < _RETURNED_SHARE_MIN * (falls.used_before - falls.used).sum():
        return Response(name, math.inf, np.zeros(LEVELS + 1), _fresh(rises, None))
    left = _left(falls)
    return_s = max(0.0, float((falls.held_mean - falls.held).sum() / came_back)) * STEP_S
    return Response(name, return_s, left, _fresh(rises, left), fades)


def _changes(observed: Iterable[Observed], fades: float) -> _Changes:
    rows = []
    for one in observed:
        most = _highest(one.used, fades)[1:]
        columns = (one.used[:-1], one.used[1:], one.held[:-1], one.held[1:], one.held_mean[1:])
        rows.append([column / most for column in columns])
    return _Changes(*np.concatenate(rows, axis=1))


def _highest(used: _Column, fades: float) -> _Column:
    """The highest use until each step, fading as in the model."""
    found, before = np.zeros(len(used)), 0.0
    highest = 0.0
    for step, use in enumerate(used):
        highest = highest_use(highest, before, use, fades)
        found[step], before = highest, use
    return found


def _left(falls: _Changes) -> _Column:
    """What is left behind by level: straight lines between levels, fitted, never below 0.

    Where nothing came back, at least what is held beyond use is left behind: such a fall counts if the fit has less.
    """
    places = np.sqrt(falls.used) * LEVELS
    below = np.minimum(places.astype(np.int64), LEVELS - 1)
    weights = np.zeros((len(places), LEVELS + 1))
    rows = np.arange(len(places))
    weights[rows, below], weights[rows, below + 1] = 1 - (places - below), places - below
    bends = _SMOOTH * np.diff(np.eye(LEVELS + 1), 2, axis=0)
    beyond = falls.held - falls.used
    settled = falls.held_before - falls.held > _RETURNED_SHARE_MIN * (falls.used_before - falls.used)
    counts, found = settled, np.zeros(LEVELS + 1)
    for _ in range(_FITS):
        wanted = np.concatenate([beyond[counts], np.zeros(len(bends))])
        found = np.linalg.lstsq(np.concatenate([weights[counts], bends]), wanted)[0]
        counts = settled | (beyond > weights @ found)
    return np.maximum(found, 0.0)


def _fresh(rises: _Changes, left: _Column | None) -> float:
    """Which share of growth took memory that was not held, where what was held and free would have done."""
    grown = rises.used - rises.used_before
    chosen = rises.held_before - rises.used_before >= grown
    if left is not None:  # with less held than is left behind in the end, nothing came back in the step
        chosen &= rises.held - rises.used < np.interp(np.sqrt(rises.used), np.linspace(0, 1, LEVELS + 1), left)
    total = grown[chosen].sum()
    return float(np.clip((rises.held - rises.held_before)[chosen].sum() / total, 0, 1)) if total else 0.0
