"""Guests' series as text, in OpenMetrics 1.0 or in Prometheus' older format (0.0.4).

`prometheus_client` writes 100,000 series a second, which is too slow for a thousand guests: here the lines of a family
are joined at once for all guests that are told together, of parts that are the same for all. What comes of it, tests
have the library's own parser read.
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from pagetide.operate.metrics.accounts import Row
from pagetide.operate.metrics.series import FAMILIES, STATE, Family, series_count

END = b"# EOF\n"
"""What a text in OpenMetrics ends with."""

_SERIES = series_count(FAMILIES)
_encode = msgspec.json.Encoder().encode


class _Template(NamedTuple):
    """The lines of one family of one guest, in parts.

    Attributes:
        columns: which of a guest's values they have, by place.
        parts: four a line: what ends the line before and begins this one, the name, what comes before the value, it.
        end: what ends a line.
    """

    columns: list[int]
    parts: list[str]
    end: str


class Text:
    """A text in the making: guests come as they are told, and each family has its place."""

    def __init__(self, *, openmetrics: bool) -> None:
        """Have no guest yet."""
        self._openmetrics = openmetrics
        self._families: list[list[bytes]] = [[] for _ in FAMILIES]

    def add(self, rows: Iterable[Row]) -> None:
        """Write some guests: those together of whom the same values are there."""
        alike: dict[tuple[bool, ...], list[Row]] = defaultdict(list)
        for row in rows:
            alike[tuple([value is not None for value in row.values])].append(row)
        for present, same in alike.items():
            self._write(_templates(present), same)

    def _write(self, templates: Sequence[_Template], rows: list[Row]) -> None:
        # All is written as in JSON, whose writer is the fastest there is: numbers, and the daemon's words for states.
        values: list[str] = _encode([value for row in rows for value in row.values]).decode()[1:-1].split(",")
        names = [_escaped(row.name) for row in rows]
        for family, (columns, parts, end) in zip(self._families, templates, strict=True):
            if columns:
                texts = parts * len(rows)
                for place, column in enumerate(columns):
                    texts[4 * place + 1 :: len(parts)] = names
                    texts[4 * place + 3 :: len(parts)] = values[column::_SERIES]
                family.append(("".join(texts)[len(end) :] + end).encode())

    def pieces(self) -> Iterator[bytes]:
        """All of it, without `END`."""
        for family, pieces in zip(FAMILIES, self._families, strict=True):
            if pieces:
                yield _head(family, openmetrics=self._openmetrics).encode()
                yield from pieces


@functools.lru_cache(256)
def _templates(present: tuple[bool, ...]) -> list[_Template]:
    """For guests of whom these values are there, by family."""
    templates, column = [], 0
    for family in FAMILIES:
        end = "} 1\n" if family is STATE else "\n"
        template = _Template([], [], end)
        for suffix, labels in family.series:
            if present[column]:
                template.columns.append(column)
                template.parts.extend([f'{end}{family.name}{suffix}{{guest="', "", _between(family, labels), ""])
            column += 1
        templates.append(template)
    return templates


def _between(family: Family, labels: str) -> str:
    return '",state=' if family is STATE else f'",{labels}}} ' if labels else '"} '


def _head(family: Family, *, openmetrics: bool) -> str:
    called = f"{family.name}_total" if family.kind == "counter" and not openmetrics else family.name
    unit = f"# UNIT {called} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {called} {family.about}\n# TYPE {called} {family.kind}\n{unit}"


def _escaped(name: str) -> str:
    """A label's value."""
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
