"""Race freedom (S6): interleavings of a tiny guest, for each design; and what is broken on purpose is caught.

A design's start is explored to every end here, what else there is as deep as what is broken in it needs; `make soak`
goes to every end of all.
"""

import functools
import json
import sys

import pytest

from pagetide.cli import main
from pagetide.explorer.broken.variants import VARIANTS
from pagetide.explorer.scenario import Scenario, operations_of
from pagetide.explorer.scenarios import SCENARIOS, SCENARIOS_BALLOON, SCENARIOS_SHARED, scenarios_of
from pagetide.explorer.search import Exploration, Explorer
from pagetide.explorer.source import Edit
from pagetide.guest.reporting.registry import DESIGNS

STATES_MAX = 100_000
STATES_AT_LEAST = 5_000


def named(design: str, scenario: Scenario) -> str:
    """A scenario's name among its design's; empty for one that is a variant's own."""
    return next((name for name, each in scenarios_of(design).items() if each == scenario), "")


VARIANTS_OF: dict[tuple[str, str], list[str]] = {
    (design, "start"): [] for design in DESIGNS if "start" in scenarios_of(design)
}
"""The start of every design that has one, and each scenario in which something broken is caught, with what is."""
for _name, _variant in VARIANTS.items():
    VARIANTS_OF.setdefault((_variant.design, named(_variant.design, _variant.scenario)), []).append(_name)


def together(design: str, scenario: str) -> pytest.MarkDecorator:
    """A scenario and its variants are explored by one process, since one says how deep the other goes."""
    return pytest.mark.xdist_group(f"explored: {design} {scenario}")


WRONG_FROM_THE_START = {"a run that is never due"}
"""Variants of which no step leads to what is wrong: no way from the first state leads to an end."""


def told(found: Exploration) -> str:
    """What a failing test shows."""
    return "\n".join([f"{found.violation} ({found.states} states), after", *found.steps])


@functools.cache
def broken(name: str) -> Exploration:
    """What a broken variant leads to."""
    variant = VARIANTS[name]
    return Explorer(variant.design, variant.scenario, variant.edits).run(STATES_MAX)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=together(*key)) for key, names in VARIANTS_OF.items() for name in names]
)
def test_what_is_broken_is_caught(name: str) -> None:
    """Each broken variant is caught, by the invariant that it breaks; the steps that lead there are told."""
    variant, found = VARIANTS[name], broken(name)
    sys.stdout.write(f"{found.states} states, {found.violation}\n")
    assert found.violation is not None, f"{variant.what}, and nobody noticed in {found.states} states"
    assert variant.found in found.violation, told(found)
    assert bool(found.steps) == (name not in WRONG_FROM_THE_START)


@pytest.mark.parametrize(
    ("design", "scenario"), [pytest.param(*key, marks=together(*key)) for key in VARIANTS_OF if key[1]]
)
def test_no_interleaving_breaks_an_invariant(design: str, scenario: str) -> None:
    """Whatever the order of steps, the invariants hold; in a design's start up to every end.

    Elsewhere half as deep again as it takes to catch what is broken there; `make soak` goes to every end.
    """
    deepest = max((broken(name).states for name in VARIANTS_OF[design, scenario]), default=0)
    states_max = STATES_MAX if scenario == "start" else max(3 * deepest // 2, STATES_AT_LEAST)
    found = Explorer(design, scenarios_of(design)[scenario]).run(states_max)
    sys.stdout.write(f"{found.states} states, {found.transitions} steps, {found.seconds:.1f} s\n")
    assert found.violation is None, told(found)
    assert found.complete or scenario != "start"
    assert found.ends >= 1 or not found.complete
    assert found.states > 100 or design == "off"


def test_what_is_written_for_a_design_is_explored_in_it() -> None:
    """No scenario is left out but for one that a design cannot have."""
    assert scenarios_of("shared") == SCENARIOS_SHARED
    assert scenarios_of("balloon") == SCENARIOS_BALLOON
    assert scenarios_of("scan") == SCENARIOS
    assert scenarios_of("sync").keys() == SCENARIOS.keys() - {"cool"}
    assert scenarios_of("pool").keys() == SCENARIOS.keys() - {"cool"} | {"runs", "claimed"}


def test_a_guest_that_is_broken_from_the_start_has_no_steps() -> None:
    """A violation in the first state is told, and no step is said to have led there."""
    edit = Edit("guest.reporting.designs.cursor", "def start(", "        record_all_free(self._zone)\n", "")
    found = Explorer("cursor", SCENARIOS["ring"], (edit,)).run(STATES_MAX)
    assert "the candidate map" in (found.violation or "")
    assert found.steps == ()


def test_reduction_loses_no_end() -> None:
    """Steps at the ring commute with steps at the zone: leaving out their other orders changes no end."""
    scenario = SCENARIOS["start"]._replace(ring_finely=True)
    every = Explorer("sync", scenario, reduces=False).run(STATES_MAX)
    some = Explorer("sync", scenario).run(STATES_MAX)
    assert every.violation is None
    assert every.complete
    assert every.ends == some.ends
    assert every.states > some.states


def test_same_counts_each_time() -> None:
    """An exploration is deterministic: the same states, steps and ends."""
    first, second = (Explorer("scan", SCENARIOS["ring"]).run(STATES_MAX) for _ in range(2))
    assert first._replace(seconds=0) == second._replace(seconds=0)


@pytest.mark.parametrize(("design", "scenario"), [("scan", "ring"), ("balloon", "relief"), ("pool", "runs")])
def test_the_device_writes_to_no_range_that_is_no_part_of_the_state(design: str, scenario: str) -> None:
    """The room for an element's ranges is for 1024; as many as the guest has pages are looked at."""
    machine = Explorer(design, scenarios_of(design)[scenario])
    machine.run(2000)
    explored = machine._machine
    for queue in explored.queues:
        assert not queue.served.ranges[explored.scenario.nr_pages :].any()
    ranges = [arrays[-1] for (_, _, _, arrays, _), _ in machine._numbers]
    assert any(any(each) for each in ranges)


def test_stops_at_too_many_states() -> None:
    """A search that is cut short does not say that it is complete."""
    found = Explorer("cursor", SCENARIOS["start"]).run(50)
    assert not found.complete
    assert found.violation is None


def test_a_stale_edit_is_an_error() -> None:
    """A broken variant whose place in the source is gone fails, instead of exploring what is not broken."""
    with pytest.raises(AssertionError, match="the edit is out of date"):
        Explorer("scan", SCENARIOS["ring"], (Edit("guest.allocator.isolate", "def put_back(", "no such text", ""),))


@pytest.mark.parametrize("program", ["f", "a", "b1", "a1 f f"])
def test_refuses_a_bad_program(program: str) -> None:
    """A program with an unknown operation, or a free of nothing, is refused."""
    with pytest.raises(ValueError, match="is no operation"):
        operations_of(program)


def test_command_prints_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """`pagetide explore --json` tells the states of each exploration, and its verdict."""
    assert main(["explore", "--design", "off", "--scenario", "start", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["design"] == "off"
    assert row["passed"]
    assert row["states"] > 1


def test_command_refuses_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown design is one sentence on standard error, with those that there are."""
    assert main(["explore", "--design", "magic"]) == 2
    assert "choose from off, sync" in capsys.readouterr().err


def test_command_refuses_a_scenario_of_another_design(capsys: pytest.CaptureFixture[str]) -> None:
    """A scenario that the chosen design does not have is refused, instead of nothing being explored."""
    assert main(["explore", "--design", "scan", "--scenario", "take"]) == 2
    said = capsys.readouterr().err
    assert "a scenario take: scan has start, zone," in " ".join(said.split())
