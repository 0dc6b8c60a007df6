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
"""A fall of use counts if it is more than this share of RAM."""

_RETURNED_SHARE_MIN = 0.01
"""A setting of which less than this share of what falls comes back returns nothing."""

_FADES = (0.0, *(0.0001 * 2 ** (half / 2) for half in range(33)))
"""How fast the highest may fade: from ten thousand things in an area to less than one.

An area of order 1 has two pages. Past one the highest but comes down to what is used.
"""

FADES_DIGITS = 6
"""To so many it is kept."""

_FITS = 5
"""How often what is left behind is fitted anew, with the falls that then count."""

_SMOOTH = 0.05
"""How much neighbouring levels hold each other where little was seen, beside a weight of the highest by RAM for each
fall."""

_Column = npt.NDArray[np.float64]


class _Changes(NamedTuple):
    """Changes of use, an entry each, as shares of the highest: before it and at the end of its step.

    The last column is the highest itself, as a share of RAM.
    """

    used_before: _Column
    used: _Column
    held_before: _Column
    held: _Column
    held_mean: _Column
    highest: _Column


def fit(name: str, observed: Sequence[Observed], *, has_reserve: bool) -> Response:
    """The response with which the model comes closest to what was seen, in the mean square over all steps.

    How fast the highest fades is tried, and whether something is kept: what was held beyond use after half of all
    falls. Given these, what is left behind is the least-squares fit over the ends of all steps in which use fell, in
    bytes; the time constant is that of all that came back in them together.

    Args:
        name: of the response.
        observed: what was seen.
        has_reserve: whether what is kept is a reserve, which grows with a guest's memory, as a balloon's does; what
            guests without one keep is a part of a block, whatever their memory.
    """
    reserve = _reserve(observed)
    tried = [_fit(name, observed, fades, keeps) for fades in _FADES for keeps in (0.0, reserve)]
    found = min(tried, key=lambda response: _error(response, observed))
    return found if has_reserve else found._replace(keeps=0.0, keeps_bytes=found.keeps * RAM_BYTES)


def is_on_edge(fades: float) -> bool:
    """Whether nothing that fades faster was tried, so that something faster may be closer."""
    return fades >= round(_FADES[-1], FADES_DIGITS)


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


def _reserve(observed: Iterable[Observed]) -> float:
    """What was held beyond use after half of all falls of use, as a share of RAM."""
    beyond = [(one.held - one.used)[1:][np.diff(one.used) < -_MOVED_SHARE * RAM_BYTES] for one in observed]
    return float(np.median(np.concatenate(beyond))) / RAM_BYTES


def _fit(name: str, observed: Iterable[Observed], fades: float, keeps: float) -> Response:
    changes = _changes(observed, fades)
    fell = changes.highest * (changes.used_before - changes.used) > _MOVED_SHARE
    falls = _Changes(*(column[fell] for column in changes))
    came_back = falls.highest @ (falls.held_before - falls.held)
    if came_back < _RETURNED_SHARE_MIN * (falls.highest @ (falls.used_before - falls.used)):
        return Response(name, math.inf, np.zeros(LEVELS + 1))
    return_s = max(0.0, float(falls.highest @ (falls.held_mean - falls.held) / came_back)) * STEP_S
    return Response(name, return_s, _left(falls, keeps), fades, keeps)


def _changes(observed: Iterable[Observed], fades: float) -> _Changes:
    rows = []
    for one in observed:
        highest = np.maximum(_highest(one.used, fades)[1:], 1.0)
        columns = (one.used[:-1], one.used[1:], one.held[:-1], one.held[1:], one.held_mean[1:])
        rows.append([*(column / highest for column in columns), highest / RAM_BYTES])
    return _Changes(*np.concatenate(rows, axis=1))


def _highest(used: _Column, fades: float) -> _Column:
    """The highest use until each step, fading as in the model."""
    found, before = np.zeros(len(used)), 0.0
    highest = 0.0
    for step, use in enumerate(used):
        highest = highest_use(highest, before, use, fades)
        found[step], before = highest, use
    return found


def _left(falls: _Changes, keeps: float) -> _Column:
    """What is left behind by level beside what is kept: straight lines between levels, fitted; at most what was freed.

    Where nothing came back, at least what is held beyond use is left behind: such a fall counts if the fit has less.
    Of levels to which no fall came that counts, the next that had some say what is left.
    """
    places = np.sqrt(falls.used) * LEVELS
    below = np.minimum(places.astype(np.int64), LEVELS - 1)
    weights = np.zeros((len(places), LEVELS + 1))
    rows = np.arange(len(places))
    weights[rows, below], weights[rows, below + 1] = 1 - (places - below), places - below
    bends = _SMOOTH * np.diff(np.eye(LEVELS + 1), 2, axis=0)
    beyond = falls.held - falls.used - keeps / falls.highest
    settled = falls.held_before - falls.held > _RETURNED_SHARE_MIN * (falls.used_before - falls.used)
    counts, found = settled, np.zeros(LEVELS + 1)
    for _ in range(_FITS):
        heavy = falls.highest[counts]
        wanted = np.concatenate([heavy * beyond[counts], np.zeros(len(bends))])
        found = np.linalg.lstsq(np.concatenate([heavy[:, np.newaxis] * weights[counts], bends]), wanted)[0]
        counts = settled | (beyond > weights @ found)
    levels = np.arange(LEVELS + 1)
    is_reached = weights[counts].any(0)
    found = np.interp(levels, levels[is_reached], found[is_reached])
    return np.clip(found, 0.0, 1.0 - np.linspace(0.0, 1.0, LEVELS + 1) ** 2)
