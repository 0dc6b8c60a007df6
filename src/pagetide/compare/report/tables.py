"""The results as tables for other programs: every run, and every configuration with medians over its repeats."""

import csv
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec

from pagetide.compare.results.cells import condition_of, seedless
from pagetide.compare.results.columns import BURST_COLUMNS, CONDITION_COLUMNS, FIGURES
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store
from pagetide.machine.result import Samples
from pagetide.whole_file import written_whole

_RUN_NAMES = (
    "key", "machine", "repeat", *CONDITION_COLUMNS, "outcome", "failed", "started", "took_s", "costs", "versions",
    "replay", *FIGURES,
)  # fmt: skip
_CONFIGURATION_NAMES = (
    "machine", *(name for name in CONDITION_COLUMNS if name != "seed"), "runs", "failed", "replay",
    *(f"{name}{end}" for name in FIGURES for end in ("", "_min", "_max")),
)  # fmt: skip


class Table(NamedTuple):
    """A table: the names of its columns, and a value for each in every row."""

    columns: Sequence[str]
    rows: list[tuple[Any, ...]]

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> "Table":
        """A table of rows that have these columns; there may be no row."""
        return cls(columns, [tuple(row[name] for name in columns) for row in rows])

    def dicts(self) -> list[dict[str, Any]]:
        """A dictionary for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def write_csv(self, file: TextIO) -> None:
        """Write it as CSV, with a line of names first; what is not known is empty."""
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)


def runs_table(runs: Sequence[Run]) -> Table:
    """A row for every run: key, condition, outcome, the command that replays it, and every figure."""
    return Table.of(
        _RUN_NAMES,
        (
            {
                "key": run.key,
                "machine": run.cell.machine,
                "repeat": run.cell.repeat,
                **condition_of(run.cell.config),
                "outcome": run.outcome,
                "failed": run.failed,
                "started": run.started,
                "took_s": run.took_s,
                "costs": run.costs,
                "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
                "replay": run.cell.replay,
                **{name: run.figures.get(name) for name in FIGURES},
            }
            for run in runs
        ),
    )


def configurations_table(runs: Sequence[Run]) -> Table:
    """A row for all runs that differ by their seeds alone.

    For each figure there are the median over the runs that did not fail, and the least and the most, with `_min` and
    `_max` after its name; None where none of them could measure it.
    """
    return Table.of(_CONFIGURATION_NAMES, map(_configuration, _configurations(runs)))


def _configurations(runs: Sequence[Run]) -> Iterator[list[Run]]:
    groups: dict[tuple[str, bytes], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.cell.machine, seedless(run.cell.config)), []).append(run)
    yield from groups.values()


def _configuration(runs: list[Run]) -> dict[str, Any]:
    cell = runs[0].cell
    condition = condition_of(cell.config)
    del condition["seed"]
    row = {
        "machine": cell.machine,
        **condition,
        "runs": len(runs),
        "failed": sum(run.failed for run in runs),
        "replay": cell.replay,
    }
    for name in FIGURES:
        found = [value for run in runs if not run.failed and (value := run.figures.get(name)) is not None]
        row[name] = statistics.median(found) if found else None
        row[f"{name}_min"], row[f"{name}_max"] = min(found, default=None), max(found, default=None)
    return row


def write_csv_folder(store: Store, folder: Path) -> None:
    """Write runs.csv, configurations.csv, bursts.csv and samples.csv into a folder, which is made if need be.

    Each file is written whole or not at all, and begins with the names of its columns, though there be no row.

    Raises:
        OSError: that cannot be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = store.runs()
    bursts = [
        {"key": run.key, "number": number, **msgspec.structs.asdict(burst)}
        for run in runs
        for number, burst in enumerate(store.bursts(run.key))
    ]
    for name, table in {
        "runs": runs_table(runs),
        "configurations": configurations_table(runs),
        "bursts": Table.of(list(BURST_COLUMNS), bursts),
    }.items():
        with written_whole(folder / f"{name}.csv") as file:
            table.write_csv(file)
    names = Samples.__struct_fields__
    with written_whole(folder / "samples.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key", *names))
        for run in runs:
            samples = store.result(run).samples
            writer.writerows((run.key, *row) for row in zip(*(getattr(samples, name) for name in names), strict=True))
