"""`pagetide explore`: every interleaving of a tiny guest for each design, as a table or as JSON."""

import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from pagetide.explorer.broken.variants import VARIANTS
from pagetide.explorer.scenarios import scenarios_of
from pagetide.explorer.search import Exploration, Explorer

STATES_MAX = 1_000_000
"""More states than these are not explored: a scenario is meant to be small."""


def explore(designs: tuple[str, ...], scenarios: tuple[str, ...], *, broken: bool, as_json: bool) -> int:
    """Explore, and print what was found; 0 if all is as it must be, 1 otherwise.

    Args:
        designs: names from the registry.
        scenarios: names of scenarios; of a design are explored those that fit it.
        broken: instead, the variants that are broken on purpose, each of which must be caught; of these designs.
        as_json: JSON instead of a table.
    """
    rows = list(_broken(designs) if broken else _sound(designs, scenarios))
    if as_json:
        print(
            json.dumps([{"name": name, "passed": passed, **found._asdict()} for name, found, passed in rows], indent=2)
        )
    else:
        _print_table(rows, broken)
    return 0 if all(passed for _, _, passed in rows) else 1


_Row = tuple[str, Exploration, bool]


def _sound(designs: tuple[str, ...], scenarios: tuple[str, ...]) -> list[_Row]:
    rows = []
    for design in designs:
        fitting = scenarios_of(design)
        for name in [name for name in scenarios if name in fitting]:
            found = Explorer(design, fitting[name]).run(STATES_MAX, _progress)
            rows.append((name, found, found.violation is None and found.complete))
    return rows


def _broken(designs: tuple[str, ...]) -> list[_Row]:
    rows = []
    for name, variant in VARIANTS.items():
        if variant.design not in designs:
            continue
        found = Explorer(variant.design, variant.scenario, variant.edits).run(STATES_MAX, _progress)
        rows.append((name, found, variant.found in (found.violation or "") and found.violation is not None))
    return rows


def _progress(states: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{states} states", end="\r", file=sys.stderr, flush=True)


def _print_table(rows: list[_Row], broken: bool) -> None:
    title = (
        "Broken on purpose: each must be caught" if broken else "Every interleaving of two vCPUs, reporter and device"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("design")
    table.add_column("variant" if broken else "scenario")
    for heading in ("states", "steps", "ends", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("caught" if broken else "verdict")
    for name, found, _ in rows:
        counts = (str(found.states), str(found.transitions), str(found.ends), f"{found.seconds:.1f}")
        verdict = found.violation or ("too many states" if not found.complete else "NOT CAUGHT" if broken else "ok")
        table.add_row(found.design, name, *counts, verdict)
    console = Console(highlight=False)
    console.print(table)
    states = sum(found.states for _, found, _ in rows)
    seconds = sum(found.seconds for _, found, _ in rows)
    console.print(f"{states} states in {seconds:.1f} s")
    for name, found, passed in rows:
        if not passed and found.steps:
            console.print(f"\n{found.design}, {name}: {found.violation}, after", *found.steps, sep="\n  ", markup=False)
