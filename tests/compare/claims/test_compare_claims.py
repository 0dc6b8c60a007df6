"""The thread's claims: their verdicts and sentences follow from figures, whichever they are."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from pagetide.compare.claims.claim import Claim
from pagetide.compare.claims.evidence import Evidence
from pagetide.compare.claims.findings import findings_of
from pagetide.compare.claims.registry import all_claims, claim_cells
from pagetide.compare.claims.verdicts import Finding
from pagetide.compare.grid.axes import Choice, make_grid
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.columns import FIGURES
from pagetide.compare.results.records import Run
from pagetide.machine.costs import read_costs
from pagetide.machine.simulated.machine import SimulatedMachine
from tests.compare.made_up_runs import made_up_run
from tests.machine.watcher import Watcher

MIB = 1 << 20
GIB = 1 << 30
SEEDS = (1, 2, 3)

Figures = dict[str, Any]
"""Of a run, by name; a list has a value for each seed."""


def mib(name: str, *values: float) -> Figures:
    """A figure in MiB: one for all seeds, or one for each."""
    sizes = [round(value * MIB) for value in values]
    return {name: sizes[0] if len(sizes) == 1 else sizes}


def kept(*values: float) -> Figures:
    """So many MiB with the host beyond 100 MiB that the guest uses."""
    return {"mean_used_bytes": 100 * MIB, **mib("mean_resident_bytes", *(100 + value for value in values))}


def left(*values: float) -> Figures:
    """So many MiB not returned."""
    return mib("unreturned_bytes", *values)


def cpu(*values: float) -> Figures:
    """Seconds of CPU time."""
    return {"guest_cpu_s": values[0] if len(values) == 1 else list(values)}


def each(names: Sequence[str], figures: Figures) -> dict[str, Figures]:
    """The same figures for these cases."""
    return dict.fromkeys(names, figures)


SETUPS = ("burst", "web", "database", "churn", "small")
DESIGNS = ("notify", "notify-array", "hybrid", "scan", "cursor", "shared")
RECOVERING = ("scan", "cursor", "notify", "hybrid", "shared", "balloon")
HELD_MIB = {"burst": 200, "web": 800, "database": 985, "churn": 960, "small": 999}

HELD: dict[str, dict[str, Figures]] = {
    "S1": {"scan": left(2) | {"isolated_blocks_max": 32}, "off": left(1000)},
    "S2": {"scan": left(5), "restart": left(250), "cursor": left(6), "restart, fast host": left(7)},
    "S3": {"array": left(300) | {"dropped_hints": 700}, "bitmap": left(2)},
    "S4": {"hybrid": left(2) | {"dropped_hints": 320}, "array": left(640)},
    "S5": {"sync": {"vcpu_wait_host_s_max": 4.9}, "scan": {}},
    "S6": {
        **each(("off", "notify", "scan", "cursor"), {"zone_lock_wait_s": 0.06, "duration_s": 2.0}),
        "sync": {"zone_lock_wait_s": 0.5, "duration_s": 2.0},
    },
    "S7": {
        **each(("web, scan", "database, scan"), mib("repeated_bytes", 200) | mib("reported_bytes", 1000)),
        **each(("web, cursor", "database, cursor"), mib("repeated_bytes", 100)),
    },
    "S8": {
        **each([f"order {order}" for order in (0, 1, 2, 3, 4, 6, 8)], kept(40) | cpu(5.0)),
        "order 9": kept(100) | cpu(2.0),
    },
    "S9": {"sync": left(380) | {"vcpu_wait_host_s": 0.4}, "scan": left(2), "array": left(300)},
    "S10": {"free": {"return_lag_s_p50": 0.15}, "held": {"return_lag_s_p50": 0.5}},
    "S11": {
        "few": kept(80) | {"isolated_blocks_max": 32, "return_lag_s_p99": 6.0},
        "many": kept(80) | {"isolated_blocks_max": 510, "return_lag_s_p99": 6.0},
    },
    "S12": each(RECOVERING, left(2)),
    "S13": {
        **{f"{workload} {design}": kept(HELD_MIB[workload] - 100) for workload in SETUPS for design in DESIGNS},
        **each([f"{workload} off" for workload in SETUPS], kept(900)),
    },
    "S14": each(RECOVERING, left(2)),
    "S15": {"none": {"false_ooms": 69}, **each(("wait", "cap", "swap"), {})},
    "S16": {
        "warm": mib("refaulted_bytes", 300), "cool": mib("refaulted_bytes", 50), "late": mib("refaulted_bytes", 200),
    },
    "S17": {
        f"{workload}, {wake}": {"passes": 10, "idle_passes": 4 if wake == "timer" else 0}
        for workload in ("burst", "web") for wake in ("merge", "threshold", "timer")
    },
    "timing": {
        "off": kept(120) | cpu(1.0), "order 9": kept(100) | cpu(2.0), "order 0": kept(40) | cpu(7.0),
        "batches": kept(40) | cpu(6.0), "later": kept(50) | cpu(1.5),
    },
    "hours": {"array": left(640), "scan": left(2)},
    "busy": {
        "busy": kept(14), "busy behind": kept(31) | {"dropped_hints": 800}, "burst": kept(60),
        "burst behind": kept(1000),
    },
}  # fmt: skip
"""For each claim, figures of its cases by which it holds; what is not given is 0, and the peak is 1000 MiB."""

DOCTORED: list[tuple[str, str, str, Figures]] = [
    ("S1", "not held", "scan", left(500)),
    ("S1", "not held", "scan", {"isolated_blocks_max": 33}),
    ("S1", "not held", "scan", {"vcpu_waits_host": 1}),
    ("S1", "undecided", "scan", left(2, 500, 2)),
    ("S2", "not held", "restart", left(5)),
    ("S2", "not held", "restart", left(90)),
    ("S2", "not held", "scan", left(200)),
    ("S2", "undecided", "restart", left(250, 60, 250)),
    ("S3", "not held", "array", {"dropped_hints": 0}),
    ("S3", "not held", "array", left(2)),
    ("S3", "not held", "bitmap", {"dropped_hints": 3}),
    ("S3", "undecided", "array", left(300, 2, 300)),
    ("S4", "not held", "hybrid", left(100)),
    ("S4", "not held", "array", left(2)),
    ("S4", "undecided", "hybrid", left(2, 2, 100)),
    ("S5", "not held", "sync", {"vcpu_wait_host_s_max": 0.0}),
    ("S5", "not held", "scan", {"vcpu_wait_host_s_max": 4.9}),
    ("S5", "undecided", "sync", {"vcpu_wait_host_s_max": [4.9, 1.0, 4.9]}),
    ("S6", "not held", "sync", {"zone_lock_wait_s": 0.07}),
    ("S6", "held", "notify", {"zone_lock_wait_s": 0.7}),
    ("S6", "undecided", "sync", {"zone_lock_wait_s": [0.5, 0.07, 0.5]}),
    ("S7", "not held", "web, cursor", mib("repeated_bytes", 201)),
    ("S7", "undecided", "database, cursor", mib("repeated_bytes", 100, 201, 100)),
    ("S8", "not held", "order 9", kept(30)),
    ("S8", "not held", "order 9", cpu(6.0)),
    ("S8", "undecided", "order 9", cpu(2.0, 2.0, 6.0)),
    ("S9", "not held", "sync", {"vcpu_wait_host_s": 0.0}),
    ("S9", "not held", "scan", left(300)),
    ("S9", "not held", "scan", {"vcpu_wait_host_s": 0.5}),
    ("S9", "undecided", "sync", {"vcpu_wait_host_s": [0.4, 0.0, 0.4]}),
    ("S10", "not held", "held", {"return_lag_s_p50": 0.16}),
    ("S10", "undecided", "held", {"return_lag_s_p50": [0.5, 0.16, 0.5]}),
    ("S11", "not held", "few", kept(90)),
    ("S11", "not held", "few", {"isolated_blocks_max": 33}),
    ("S11", "undecided", "few", kept(80, 90, 80)),
    ("S12", "not held", "hybrid", left(300)),
    ("S12", "not held", "balloon", left(300)),
    ("S12", "not held", "balloon", {"vcpu_wait_host_s_max": 3.0}),
    ("S12", "not held", "shared", {"vcpu_wait_host_s_max": 3.0}),
    ("S12", "undecided", "cursor", left(2, 2, 300)),
    ("S14", "not held", "notify", left(300)),
    ("S14", "undecided", "balloon", left(2, 300, 2)),
    ("S15", "not held", "none", {"false_ooms": 0}),
    ("S15", "not held", "swap", {"false_ooms": 1}),
    ("S15", "undecided", "swap", {"false_ooms": [0, 1, 0]}),
    ("S16", "not held", "cool", mib("refaulted_bytes", 301)),
    ("S16", "undecided", "cool", mib("refaulted_bytes", 50, 301, 50)),
    ("S17", "not held", "web, threshold", {"idle_passes": 1}),
    ("S17", "not held", "burst, timer", {"idle_passes": 0}),
    ("S17", "undecided", "burst, timer", {"idle_passes": [4, 0, 4]}),
    ("timing", "not held", "order 9", cpu(8.0)),
    ("timing", "not held", "batches", cpu(3.0)),
    ("timing", "not held", "later", cpu(4.0)),
    ("timing", "not held", "later", kept(120)),
    ("timing", "not held", "later", kept(100)),
    ("timing", "undecided", "later", cpu(1.5, 4.0, 1.5)),
    ("timing", "undecided", "later", kept(50, 120, 50)),
    ("hours", "not held", "array", left(2)),
    ("hours", "not held", "scan", left(640)),
    ("hours", "undecided", "array", left(640, 2, 640)),
    ("busy", "not held", "busy behind", kept(200)),
    ("busy", "undecided", "busy behind", kept(31, 200, 31)),
    ("busy", "undecided", "busy behind", {"dropped_hints": 0}),
]
"""Claim, verdict, and what is changed of which case."""

CLAIMS = {claim.claim_id: claim for claim in all_claims()}


def runs_of(claim: Claim, figures: dict[str, Figures]) -> list[Run]:
    """Runs of all cases of a claim with these figures, for each seed."""
    assert set(figures) == set(claim.cases)
    found = []
    for case, given in figures.items():
        for repeat, seed in enumerate(SEEDS):
            one = {name: value[repeat] if isinstance(value, list) else value for name, value in given.items()}
            config = msgspec.structs.replace(claim.cases[case].config(), seed=seed)
            run = made_up_run(config, **{"peak_resident_bytes": 1000 * MIB, **one})
            if claim.live_only:
                run = msgspec.structs.replace(run, cell=Cell(config, "live", repeat))
            found.append(run)
    return found


def finding(claim_id: str, runs: list[Run]) -> Finding:
    """What becomes of a claim by these runs."""
    return next(one for one in findings_of(runs) if one.claim_id == claim_id)


def doctored(claim_id: str, case: str, changes: Figures) -> Finding:
    """What becomes of it by the figures by which it holds, with these changed."""
    figures = HELD[claim_id]
    return finding(claim_id, runs_of(CLAIMS[claim_id], figures | {case: figures[case] | changes}))


def test_every_mechanism_of_the_thread_has_one_claim() -> None:
    """S1 to S17, each once and in order, and then the arguments besides."""
    names = [claim.claim_id for claim in all_claims()]
    assert names == [*(f"S{number}" for number in range(1, 18)), "hours", "busy", "timing"]
    assert [one.claim_id for one in findings_of([])] == names
    assert set(HELD) == set(names)


@pytest.mark.parametrize("claim_id", list(CLAIMS))
def test_a_claim_holds_by_figures_that_say_so(claim_id: str) -> None:
    """The verdict is `held`, as what is asked of its bars is; the sentence says of how many runs, by their keys."""
    runs = runs_of(CLAIMS[claim_id], HELD[claim_id])
    found = finding(claim_id, runs)
    assert found.verdict == "held", found.sentence
    assert found.sentence.endswith(f"({'live' if claim_id == 'S10' else 'simulated'}, medians of 3 runs each)")
    assert set(found.runs) == {run.key for run in runs}
    for bars in found.bars:
        met = [bar.bound.is_met for bar in bars.bars if bar.bound is not None]
        assert any(met) if bars.one_is_enough else all(met)
    assert any(bar.bound is not None for bars in found.bars for bar in bars.bars)


@pytest.mark.parametrize(("claim_id", "verdict", "case", "changes"), DOCTORED)
def test_doctored_figures_change_the_verdict(claim_id: str, verdict: str, case: str, changes: Figures) -> None:
    """A verdict is its figures' own: with one case's changed it is another, and undecided where seeds disagree."""
    found = doctored(claim_id, case, changes)
    assert found.verdict == verdict
    answers = [bars.is_met for bars in found.bars]
    assert (False in answers) == (verdict == "not held")
    assert (None in answers) >= (verdict == "undecided")


def test_doctored_figures_cover_every_claim() -> None:
    """Each is refuted by some figures and left undecided by others; S13 has a test of its own."""
    for verdict in ("not held", "undecided"):
        assert {claim for claim, which, _, _ in DOCTORED if which == verdict} == set(CLAIMS) - {"S13"}


@pytest.mark.parametrize(("held_mib", "verdict"), [((200,), "not held"), ((999, 999, 200), "undecided")])
def test_set_ups_that_all_gain_need_no_switch(held_mib: tuple[float, ...], verdict: str) -> None:
    """S13 holds only if some set-up gains too little; where that depends on the seed it is undecided."""
    gaining = {f"{workload} {design}": kept(100) for workload in SETUPS for design in DESIGNS}
    small = {f"small {design}": kept(*(value - 100 for value in held_mib)) for design in DESIGNS}
    found = finding("S13", runs_of(CLAIMS["S13"], HELD["S13"] | gaining | small))
    assert found.verdict == verdict, found.sentence


def test_a_set_up_on_which_nothing_is_sound_leaves_s13_undecided() -> None:
    """Designs that lose hints or fail falsely do not count as what a set-up gains by."""
    lost = {f"web {design}": HELD["S13"][f"web {design}"] | {"dropped_hints": 1} for design in DESIGNS}
    found = finding("S13", runs_of(CLAIMS["S13"], HELD["S13"] | lost))
    assert found.verdict == "undecided"
    assert "no such design on web" in found.sentence


@pytest.mark.parametrize(
    ("claim_id", "case", "changes", "told"),
    [
        ("S1", "scan", left(3.5), "3.5 MiB was still with the host"),
        ("S2", "restart", left(260) | {"reports": 9500}, "restarting left 260 MiB after 9500 reports"),
        ("S3", "array", {"dropped_hints": 721}, "dropped 721 blocks"),
        ("S4", "hybrid", {"dropped_hints": 331}, "dropped 331 hints"),
        ("S5", "sync", {"vcpu_wait_host_s_max": 4.85}, "waited 4.85 s at once"),
        ("S6", "scan", {"zone_lock_hold_s": 77e-6}, "held by reporting for 77 µs"),
        ("S7", "web, scan", mib("repeated_bytes", 250), "250 MiB (25 % of what it reported)"),
        ("S8", "order 9", kept(120), "9: 120 MiB, 2 s. So order 0 kept 3 times less"),
        ("S9", "sync", {"vcpu_wait_host_s": 0.372}, "waited 372 ms in all"),
        ("S10", "held", {"return_lag_s_p50": 0.6}, "after 600 ms, without it after 150 ms"),
        ("S11", "many", {"zone_lock_hold_s_max": 11e-6}, "against 11 µs at once"),
        ("S12", "balloon", left(4), "balloon left 4 MiB"),
        ("S13", "web cursor", kept(650), "web 25 % (cursor)"),
        ("S14", "hybrid", left(3), "hybrid left 3 MiB"),
        ("S15", "none", {"false_ooms": 558}, "558 allocations failed falsely"),
        ("S16", "cool", mib("refaulted_bytes", 46), "46 MiB refaulted"),
        ("S17", "web, timer", {"idle_passes": 3}, "on web, timer 3 of 10"),
        ("timing", "later", mib("refaulted_bytes", 7), "7 MiB refaulted"),
        ("hours", "array", left(642), "642 MiB of 1000 MiB"),
        ("busy", "busy behind", {"dropped_hints": 786}, "dropped 786 blocks"),
    ],
)
def test_sentences_change_with_their_figures(claim_id: str, case: str, changes: Figures, told: str) -> None:
    """A figure of a run stands in its claim's sentence, and it was not there before."""
    assert told in doctored(claim_id, case, changes).sentence
    assert told not in finding(claim_id, runs_of(CLAIMS[claim_id], HELD[claim_id])).sentence


@pytest.mark.parametrize("claim_id", list(CLAIMS))
def test_a_claim_without_all_its_runs_is_not_tested(claim_id: str) -> None:
    """Without one case's runs nothing is concluded, and the sentence says why."""
    claim = CLAIMS[claim_id]
    last = claim.cases[list(claim.cases)[-1]].config()
    runs = [
        run
        for run in runs_of(claim, HELD[claim_id])
        if msgspec.structs.replace(run.cell.config, seed=last.seed) != last
    ]
    found = finding(claim_id, runs)
    assert found.verdict == "not tested"
    assert found.runs == ()
    assert found.bars == ()
    assert ("by --machine live" if claim.live_only else "not among these results") in found.sentence


def test_a_balloon_may_leave_its_reserve_and_no_more() -> None:
    """What its host lets the guest keep free is no loss, and the sentence says how much that is."""
    figures = HELD["S12"] | {"balloon": left(124)}
    found = finding("S12", runs_of(CLAIMS["S12"], figures))
    assert found.verdict == "held"
    assert "balloon left 124 MiB (its host leaves it a reserve of 128 MiB)" in found.sentence


def test_a_claim_whose_run_failed_says_so() -> None:
    """One failed run is enough: its figures are not those of a whole run."""
    runs = runs_of(CLAIMS["S5"], HELD["S5"])
    runs[0] = msgspec.structs.replace(runs[0], failed=True, outcome="the guest stopped")
    assert finding("S5", runs).sentence == "A run of it failed: the guest stopped."


def test_a_figure_that_was_not_measured_decides_nothing() -> None:
    """What an older version did not measure is not taken for 0."""
    figures = HELD["S17"] | {"web, threshold": {"passes": None, "idle_passes": None}}
    found = finding("S17", runs_of(CLAIMS["S17"], figures))
    assert (found.verdict, found.sentence) == ("not tested", "Its runs do not tell idle_passes.")


def test_live_runs_decide_before_simulated_ones() -> None:
    """Where both machines ran the cases, the verdict is that of real memory, and says so."""
    simulated = runs_of(CLAIMS["S5"], HELD["S5"])
    figures = HELD["S5"] | {"sync": {"vcpu_wait_host_s_max": 0.0}}
    live = [
        msgspec.structs.replace(run, cell=msgspec.structs.replace(run.cell, machine="live"))
        for run in runs_of(CLAIMS["S5"], figures)
    ]
    found = finding("S5", simulated + live)
    assert found.verdict == "not held"
    assert "(live, " in found.sentence


@pytest.mark.parametrize("claim_id", ["S1", "S10"])
def test_fewer_than_three_runs_of_each_decide_nothing(claim_id: str) -> None:
    """However clear they look; and a machine with enough runs is preferred to one with too few."""
    runs = runs_of(CLAIMS[claim_id], HELD[claim_id])
    assert finding(claim_id, runs).verdict == "held"
    for seeds in ({1}, {1, 2}):
        found = finding(claim_id, [run for run in runs if run.cell.config.seed in seeds])
        assert found.verdict == "undecided"
        assert "too few to decide, which takes 3" in found.sentence
    if claim_id == "S1":
        live = [
            msgspec.structs.replace(run, cell=msgspec.structs.replace(run.cell, machine="live"))
            for run in runs
            if run.cell.config.seed == 1
        ]
        assert finding(claim_id, [*live, *runs]).verdict == "held"


def test_live_runs_whose_spreads_overlap_decide_nothing() -> None:
    """Though each seed says the same: on a live machine more than the seed differs from run to run."""
    claim = CLAIMS["S8"]
    changes = {**HELD["S8"], "order 0": kept(40, 60, 100) | cpu(17.0), "order 9": kept(50, 110, 120) | cpu(2.0)}
    simulated = runs_of(claim, changes)
    assert finding("S8", simulated).verdict == "held"
    live = [msgspec.structs.replace(run, cell=msgspec.structs.replace(run.cell, machine="live")) for run in simulated]
    assert finding("S8", live).verdict == "undecided"


def test_what_only_a_live_machine_can_tell_is_not_simulated() -> None:
    """S10's simulated runs would only tell what the simulation assumes."""
    claim = CLAIMS["S10"]
    runs = [
        msgspec.structs.replace(run, cell=msgspec.structs.replace(run.cell, machine="simulated"))
        for run in runs_of(claim, HELD["S10"])
    ]
    assert finding("S10", runs).verdict == "not tested"


def test_claims_come_with_their_runs() -> None:
    """In virtual time the default grid and the claims' own cells test all but what needs a live machine."""
    grid, claims = make_grid(Choice()).cells, claim_cells("simulated", 1, 3)
    keys = [cell.key for cell in claims]
    assert len(set(keys)) == len(keys)
    assert {cell.config.seed for cell in claims} == {1, 2, 3}
    wanted = {
        Cell(msgspec.structs.replace(case.config(), seed=seed), "simulated").key
        for claim in all_claims() if not claim.live_only
        for case in claim.cases.values() for seed in SEEDS
    }  # fmt: skip
    assert wanted == set(keys)
    more = set(keys) - {cell.key for cell in grid}
    assert len(more) < len(keys), "a claim is tested by the grid's own runs where those fit"
    assert len(more) < len(grid) / 2, "claims take less than the grid"


def test_on_a_live_machine_only_what_needs_one_is_added() -> None:
    """A live grid is short of time: S10's two runs, and with --quick they come of themselves."""
    cells = claim_cells("live", 1, 1)
    assert [cell.config.faults for cell in cells] == [(), ("mmlock-split",)]
    assert {cell.machine for cell in cells} == {"live"}
    assert Choice(machine="live", quick=True).is_live_quick
    assert not Choice(machine="live", quick=True, designs=("scan",)).is_live_quick
    assert not Choice(quick=True).is_live_quick


def test_real_runs_have_the_figures_that_claims_are_decided_by() -> None:
    """A small guest in virtual time, from its cells to a verdict: a vCPU that reports itself waits out the stop."""
    claim = CLAIMS["S5"]
    tiny = {"ram": "32MiB", "order": 4, "rest": 2.0, "delay": 0.1}
    cases = {
        name: case._replace(fault="stop@0.9:1", settings={**case.settings, **tiny})
        for name, case in claim.cases.items()
    }
    runs = []
    for case in cases.values():
        result = SimulatedMachine(case.config(), read_costs()).run(Watcher())
        figures = {name: getattr(result, name) for name in FIGURES}
        runs.append(made_up_run(result.config, **figures))
    judged = claim.judge(Evidence(dict(zip(cases, ([run] for run in runs), strict=True))))
    assert judged.verdict == "held", judged.sentence
    assert "stood still for 1 s" in judged.sentence
