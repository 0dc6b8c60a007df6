"""Guests' series as text, in OpenMetrics 1.0 or in Prometheus' older format (0.0.4).

`prometheus_client` writes 100,000 series a second, which is too slow for a thousand guests: here all of a guest's
series are one template, which is filled in at once. What comes of it, tests have the library's own parser read.
"""

import functools
from collections.abc import Iterable

from pagetide.operate.metrics.accounts import Row
from pagetide.operate.metrics.series import FAMILIES, STATE, Family

END = b"# EOF\n"
"""What a text in OpenMetrics ends with."""

_BETWEEN, _NAME = "\0", "\1"


class Text:
    """A text in the making: guests come as they are told, and each family has its place."""

    def __init__(self, *, openmetrics: bool) -> None:
        """Have no guest yet."""
        self._openmetrics = openmetrics
        self._families: list[list[str]] = [[] for _ in FAMILIES]

    def add(self, rows: Iterable[Row]) -> None:
        """Write some guests."""
        texts = [_written(row).split(_BETWEEN) for row in rows]
        if texts:
            for family, pieces in zip(self._families, zip(*texts, strict=True), strict=True):
                family.append("".join(pieces))

    def encode(self) -> bytes:
        """All of it, without `END`."""
        return "".join(
            piece
            for family, pieces in zip(FAMILIES, self._families, strict=True)
            if any(pieces)
            for piece in (_head(family, openmetrics=self._openmetrics), *pieces)
        ).encode()


def _written(row: Row) -> str:
    """A guest's lines, those of one family after those of another."""
    values = row.values
    template = _template(tuple([value is None for value in values]))
    return template.replace(_NAME, _escaped(row.name)) % tuple([value for value in values if value is not None])


@functools.lru_cache(256)
def _template(missing: tuple[bool, ...]) -> str:
    """The lines of a guest of whose values some are missing; its name and the values are to be filled in."""
    left = iter(missing)
    return _BETWEEN.join(
        "".join(_line(family, suffix, labels) for suffix, labels in family.series if not next(left))
        for family in FAMILIES
    )


def _line(family: Family, suffix: str, labels: str) -> str:
    if family is STATE:
        return f'{family.name}{{guest="{_NAME}",state="%s"}} 1\n'
    more = f",{labels}" if labels else ""
    return f'{family.name}{suffix}{{guest="{_NAME}"{more}}} %s\n'


def _head(family: Family, *, openmetrics: bool) -> str:
    called = f"{family.name}_total" if family.kind == "counter" and not openmetrics else family.name
    unit = f"# UNIT {called} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {called} {family.about}\n# TYPE {called} {family.kind}\n{unit}"


def _escaped(name: str) -> str:
    """A label's value, for a template."""
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
