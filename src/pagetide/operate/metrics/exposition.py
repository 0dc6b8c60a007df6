"""Guests' series as text, in OpenMetrics 1.0 or in Prometheus' older format (0.0.4).

`prometheus_client` writes 100,000 series a second, which is too slow for a thousand guests: here all of a guest's
lines are joined at once, of parts that are the same for all. What comes of it, tests have the library's own parser
read.
"""

import functools
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import NamedTuple

import msgspec

from pagetide.operate.metrics.accounts import Row
from pagetide.operate.metrics.series import FAMILIES, STATE, Family, Value, series_count

END = b"# EOF\n"
"""What a text in OpenMetrics ends with."""

_STATE_AT = sum(len(family.series) for family in FAMILIES[: FAMILIES.index(STATE)])
_BETWEEN = "\0"
_encode = msgspec.json.Encoder().encode


class _Template(NamedTuple):
    """A guest's lines, families apart, in parts: what comes before its name, what before the value, what behind all."""

    before_name: list[str]
    before_value: list[str]
    end: str


class Text:
    """A text in the making: guests come as they are told, and each family has its place."""

    def __init__(self, *, openmetrics: bool) -> None:
        """Have no guest yet."""
        self._openmetrics = openmetrics
        self._families: list[list[bytes]] = [[] for _ in FAMILIES]

    def add(self, rows: Iterable[Row]) -> None:
        """Write some guests."""
        texts = [_written(row).split(_BETWEEN) for row in rows]
        if texts:
            for family, pieces in zip(self._families, zip(*texts, strict=True), strict=True):
                family.append("".join(pieces).encode())

    def pieces(self) -> Iterator[bytes]:
        """All of it, without `END`."""
        for family, pieces in zip(FAMILIES, self._families, strict=True):
            if any(pieces):
                yield _head(family, openmetrics=self._openmetrics).encode()
                yield from pieces


def _written(row: Row) -> str:
    """A guest's lines, those of one family after those of another."""
    texts, values = _texts(row.values), row.values
    if None in values:
        present = tuple([value is not None for value in values])
        texts = list(compress(texts, present))
        template = _template(present)
    else:
        template = _WHOLE
    parts = [_escaped(row.name)] * (4 * len(texts) + 1)
    parts[0:-1:4], parts[2::4], parts[3::4], parts[-1] = (
        template.before_name,
        template.before_value,
        texts,
        template.end,
    )
    return "".join(parts)


def _texts(values: list[Value]) -> list[str]:
    """Each as it is written. Numbers are so as in JSON, whose writer is the fastest there is."""
    numbers = values.copy()
    numbers[_STATE_AT] = 0
    texts: list[str] = _encode(numbers).decode()[1:-1].split(",")
    texts[_STATE_AT] = str(values[_STATE_AT])
    return texts


@functools.lru_cache(256)
def _template(present: tuple[bool, ...]) -> _Template:
    """For a guest of whom these values are there."""
    before_name, before_value, end, left = [], [], "", iter(present)
    for family in FAMILIES:
        for suffix, labels in family.series:
            if next(left):
                before_name.append(f'{end}{family.name}{suffix}{{guest="')
                before_value.append(_between(family, labels))
                end = '"} 1\n' if family is STATE else "\n"
        end += _BETWEEN
    return _Template(before_name, before_value, end.removesuffix(_BETWEEN))


def _between(family: Family, labels: str) -> str:
    return '",state="' if family is STATE else f'",{labels}}} ' if labels else '"} '


def _head(family: Family, *, openmetrics: bool) -> str:
    called = f"{family.name}_total" if family.kind == "counter" and not openmetrics else family.name
    unit = f"# UNIT {called} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {called} {family.about}\n# TYPE {called} {family.kind}\n{unit}"


def _escaped(name: str) -> str:
    """A label's value."""
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_WHOLE = _template((True,) * series_count(FAMILIES))
