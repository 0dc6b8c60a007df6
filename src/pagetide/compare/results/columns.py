"""The columns of the database: which there are, and of which types."""

from types import NoneType
from typing import Any, get_args

import msgspec

from pagetide.machine.result import Burst, RunResult, Samples

CONDITION_COLUMNS = {
    "design": "VARCHAR",
    "workload": "VARCHAR",
    "faults": "VARCHAR",
    "oom": "VARCHAR",
    "reporting_order": "BIGINT",
    "delay_s": "DOUBLE",
    "cool_s": "DOUBLE",
    "wake": "VARCHAR",
    "capacity": "BIGINT",
    "pace": "VARCHAR",
    "ram_bytes": "BIGINT",
    "backing": "VARCHAR",
    "vcpus": "BIGINT",
    "seed": "BIGINT",
}
"""One column for each setting that a condition is made of."""

RUN_COLUMNS = {
    "key": "VARCHAR PRIMARY KEY",
    "machine": "VARCHAR NOT NULL",
    "repeat": "BIGINT NOT NULL",
    **CONDITION_COLUMNS,
    "config": "VARCHAR NOT NULL",
    "outcome": "VARCHAR NOT NULL",
    "failed": "BOOLEAN NOT NULL",
    "started": "VARCHAR NOT NULL",
    "took_s": "DOUBLE NOT NULL",
    "versions": "VARCHAR NOT NULL",
    "costs": "VARCHAR NOT NULL",
    "guest": "VARCHAR",
    "skipped_bytes": "VARCHAR",
}
"""Columns of `runs` that are not figures. `config`, `versions` and `skipped_bytes` are JSON."""


def _number(kind: Any) -> str | None:
    """The column's type for a field that is one number, or a number or None; None for any other."""
    kinds = set(get_args(kind) or (kind,)) - {NoneType}
    return {frozenset({int}): "BIGINT", frozenset({float}): "DOUBLE"}.get(frozenset(kinds))


def _numbers(struct: type[msgspec.Struct]) -> dict[str, str]:
    found = {field.name: _number(field.type) for field in msgspec.structs.fields(struct)}
    return {name: kind for name, kind in found.items() if kind is not None}


FIGURES = _numbers(RunResult)
"""Columns of `runs` that are figures: every number that RunResult has."""

BURST_COLUMNS = {"key": "VARCHAR", "number": "BIGINT", **_numbers(Burst)}
"""Columns of `bursts`; the number counts from 0."""

SAMPLE_COLUMNS = {
    "key": "VARCHAR",
    "t_s": "DOUBLE",
    **{field.name: "BIGINT" for field in msgspec.structs.fields(Samples) if field.name != "t_s"},
}
"""Columns of `samples`."""

PLAN_COLUMNS = {"key": "VARCHAR PRIMARY KEY", "machine": "VARCHAR", "repeat": "BIGINT", "config": "VARCHAR"}
"""Columns of `planned`: the cells of the grid, done or not, in their order."""

LEFT_OUT_COLUMNS = {"what": "VARCHAR", "why": "VARCHAR"}
"""Columns of `left_out`: combinations that do not fit, and the sentence that says why."""

TABLES = {
    "runs": RUN_COLUMNS | FIGURES,
    "samples": SAMPLE_COLUMNS,
    "bursts": BURST_COLUMNS,
    "planned": PLAN_COLUMNS,
    "left_out": LEFT_OUT_COLUMNS,
}
"""Every table with its columns."""
