"""From what was seen during a run to what it means: pure functions over time series."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.machine.result import Burst

FLOOR_SHARE = 0.02
"""Residency counts as back when it is within this share of guest RAM of the run's floor."""


class Series(NamedTuple):
    """What was sampled, one entry a sample: float64 seconds on the run's clock, and int64 bytes; None is not known."""

    t_s: npt.NDArray[np.float64]
    resident_bytes: npt.NDArray[np.int64]
    verified_bytes: npt.NDArray[np.int64] | None


class Span(NamedTuple):
    """When a burst ate and freed, on the run's clock, and how much."""

    eat_start_s: float
    free_start_s: float
    free_end_s: float
    eaten_bytes: int


def bursts(spans: list[Span], series: Series, ram_bytes: int) -> list[Burst]:
    """Each burst's figures; a burst lasts until the next one begins to eat, and the last one until the end."""
    if not spans or not len(series.t_s):
        return []
    threshold_bytes = int(series.resident_bytes.min()) + FLOOR_SHARE * ram_bytes
    ends_s = [span.eat_start_s for span in spans[1:]] + [float("inf")]
    return [_burst(span, end_s, series, threshold_bytes) for span, end_s in zip(spans, ends_s, strict=True)]


def _burst(span: Span, end_s: float, series: Series, threshold_bytes: float) -> Burst:
    whole = (series.t_s >= span.eat_start_s) & (series.t_s < end_s)
    after = (series.t_s >= span.free_end_s) & (series.t_s < end_s)
    resident, verified = series.resident_bytes, series.verified_bytes
    returned_bytes = int(resident[whole].max() - resident[after].min()) if after.any() else 0
    back = np.flatnonzero(after & (resident <= threshold_bytes))
    return Burst(
        eat_start_s=span.eat_start_s,
        free_start_s=span.free_start_s,
        free_end_s=span.free_end_s,
        eaten_bytes=span.eaten_bytes,
        returned_bytes=max(0, returned_bytes),
        verified_bytes=None
        if verified is None
        else int(verified[whole][-1] - verified[whole][0])
        if whole.any()
        else 0,
        return_lag_s=float(series.t_s[back[0]] - span.free_end_s) if len(back) else None,
    )
