"""Fitting responses, on guests that answer exactly as the model says."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from pagetide.fleet.guests.held import held
from pagetide.fleet.guests.response import ALL_RETURNS, LEVELS, NOTHING_RETURNS, Response
from pagetide.fleet.learning.fit import fit, is_on_edge, modelled
from pagetide.fleet.learning.observe import STEP_S, Observed
from pagetide.fleet.learning.settings import RAM_BYTES
from pagetide.fleet.learning.shapes import PEAK_SHARE, shapes
from pagetide.fleet.usage.canonical import Grid, Usage
from pagetide.units import MIB

LEFT = 0.3 * np.sin(np.linspace(0, np.pi, LEVELS + 1))


def answering(response: Response, curves: Iterable[list[float]] = tuple(shapes(1).values())) -> list[Observed]:
    """What would be seen of guests with this response, on every shape."""
    seen = []
    for shape in curves:
        used = np.array([shape], np.float32) * np.float32(RAM_BYTES)
        grid, capacity = Grid(0, STEP_S, used.shape[1]), np.full_like(used, RAM_BYTES)
        usage = Usage(grid, ("guest",), capacity, used, np.ones(used.shape, np.bool_))
        # In steps that last for ever, all that comes back has: those are the ends.
        ends = held(usage, response._replace(return_s=0.0) if math.isfinite(response.return_s) else response)
        seen.append(Observed(used[0].astype(np.float64), ends.bytes_by_step, held(usage, response).bytes_by_step))
    return seen


@pytest.mark.parametrize("fades", [0.0, 0.0032])
def test_a_known_response_is_found_again(fades: float) -> None:
    """What is left behind at each level, how fast the rest returns, and how fast the highest fades."""
    found = fit("known", answering(Response("known", 40.0, LEFT, fades=fades)), has_reserve=False)
    assert found.left == pytest.approx(LEFT, abs=0.02)
    assert found.return_s == pytest.approx(40.0, rel=0.05)
    assert found.fades == pytest.approx(fades)


def test_a_reserve_is_found_again() -> None:
    """A guest whose balloon leaves it a sixteenth of its RAM is followed."""
    observed = answering(Response("kept", 10.0, np.zeros(LEVELS + 1), keeps=1 / 16))
    found = fit("kept", observed, has_reserve=True)
    assert found.keeps == pytest.approx(1 / 16, abs=0.003)
    for seen in observed:
        assert modelled(seen, found).mean() == pytest.approx(seen.held_mean.mean(), abs=0.005 * RAM_BYTES)


def test_a_part_of_a_block_is_no_share_of_memory() -> None:
    """A guest that always holds a MiB more than it uses keeps that, and keeps no more if it is larger."""
    response = Response("block", 10.0, np.zeros(LEVELS + 1), keeps_bytes=MIB)
    found = fit("linux-9", answering(response), has_reserve=False)
    assert found.keeps == 0
    assert found.keeps_bytes == pytest.approx(MIB, rel=0.05)


def test_what_no_fall_came_to_is_not_made_up() -> None:
    """Of use that never falls below a half of its highest, nothing is told below that but what is left behind there."""
    shape = [0.8, 0.75, 0.7, 0.6, 0.5, 0.8, 0.4, 0.8, 0.55, 0.8, 0.65, 0.8]
    response = Response("half", 10.0, 1 - np.linspace(0, 1, LEVELS + 1))
    found = fit("half", answering(response, [shape]), has_reserve=False)
    reached = int(np.sqrt(0.5) * LEVELS)
    assert found.left[:reached] == pytest.approx(found.left[reached])


def test_a_fading_beyond_what_is_tried_is_told() -> None:
    """It comes out at the edge, and that is said; one of less than two things in an area is found again."""
    beyond, within = (
        fit("fast", answering(Response("fast", 10.0, LEFT, fades=fades)), has_reserve=False).fades
        for fades in (50.0, 0.8192)
    )
    assert is_on_edge(beyond)
    assert within == pytest.approx(0.8192)
    assert not is_on_edge(within)


@pytest.mark.parametrize("response", [NOTHING_RETURNS, ALL_RETURNS])
def test_the_bounds_are_found_again(response: Response) -> None:
    """A guest that returns nothing has no time constant; one that returns all at once leaves nothing behind."""
    found = fit("bound", answering(response), has_reserve=False)
    assert found.return_s == response.return_s
    assert found.left == pytest.approx(response.left, abs=1e-6)


def test_the_model_follows_a_guest_that_was_seen() -> None:
    """Its own use, on its own RAM: what a guest holds that returns nothing is the most that it used."""
    for seen in answering(NOTHING_RETURNS):
        assert modelled(seen, NOTHING_RETURNS) == pytest.approx(np.maximum.accumulate(seen.used))


def test_shapes_stay_within_the_peak() -> None:
    """None goes above the peak or below nothing, and the walks are the seed's."""
    found = shapes(1)
    for shape in found.values():
        assert 0 <= min(shape) <= max(shape) <= PEAK_SHARE
    assert shapes(1) == found
    assert shapes(2)["walk 1"] != found["walk 1"]
    assert shapes(2)["stairs"] == found["stairs"]
