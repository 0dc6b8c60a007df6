"""Runs with made-up figures, for tests of what is made of figures."""

from typing import Any

from pagetide.compare.results.cells import Cell
from pagetide.compare.results.columns import FIGURES
from pagetide.compare.results.records import COMPLETE, Run
from pagetide.machine.config import RunConfig
from pagetide.machine.settings.file import make_config


def made_up_run(config: RunConfig | None = None, *, failed: bool = False, **figures: Any) -> Run:
    """A simulated run of these settings, by default a burst; every figure that is not given is 0."""
    chosen = config or make_config({})
    cell = Cell(chosen, "simulated", chosen.seed - 1)
    return Run(
        key=cell.key,
        cell=cell,
        failed=failed,
        outcome="the guest stopped" if failed else COMPLETE,
        figures={**dict.fromkeys(FIGURES, 0), **figures},
        guest="pagetide",
        skipped_bytes=None,
        started="2026-11-23T04:00:00+00:00",
        took_s=0.1,
        versions={"pagetide": "0.1.0"},
        costs="built in",
    )


def made_up_repeats(settings: dict[str, Any], *each: dict[str, Any]) -> list[Run]:
    """A run for each of these figures, with seeds from 1 on."""
    return [made_up_run(make_config({**settings, "seed": seed}), **one) for seed, one in enumerate(each, 1)]
