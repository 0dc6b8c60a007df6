"""From what was seen during a run to what it means: pure functions over time series."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.machine.result import Burst

FLOOR_SHARE = 0.02
"""Residency counts as back when it is within this share of guest RAM of the run's floor.

Where the guest uses more than it did at the floor, as a server beside the burst may, that comes on top.
"""


class Series(NamedTuple):
    """What was sampled, one entry a sample: float64 seconds on the run's clock, and int64 bytes; None is not known."""

    t_s: npt.NDArray[np.float64]
    resident_bytes: npt.NDArray[np.int64]
    verified_bytes: npt.NDArray[np.int64] | None
    used_bytes: npt.NDArray[np.int64]


class Footprint(NamedTuple):
    """What a run held on average, as in RunResult; None where nothing was sampled."""

    mean_resident_bytes: int | None
    mean_used_bytes: int | None
    return_lag_s_mean: float | None


class Span(NamedTuple):
    """When a burst ate and freed, on the run's clock, and how much."""

    eat_start_s: float
    free_start_s: float
    free_end_s: float
    eaten_bytes: int


def footprint(series: Series) -> Footprint:
    """Averages over the time of the samples, each of which stands until the next one.

    The lag is Little's law: what was kept for nothing, in byte-seconds, is what each byte that came back waited for.
    """
    lasts_s = np.diff(series.t_s)
    whole_s = float(lasts_s.sum())
    if whole_s <= 0:
        return Footprint(None, None, None)
    resident, used = series.resident_bytes[:-1], series.used_bytes[:-1]
    fell_bytes = int(np.maximum(-np.diff(series.resident_bytes), 0).sum())
    kept_byte_s = float((np.maximum(resident - used, 0) * lasts_s).sum())
    return Footprint(
        round(float((resident * lasts_s).sum()) / whole_s),
        round(float((used * lasts_s).sum()) / whole_s),
        kept_byte_s / fell_bytes if fell_bytes else None,
    )


def bursts(spans: list[Span], series: Series, ram_bytes: int) -> list[Burst]:
    """Each burst's figures; a burst lasts until the next one begins to eat, and the last one until the end."""
    if not spans or not len(series.t_s):
        return []
    floor = int(series.resident_bytes.argmin())
    more_used_bytes = np.maximum(series.used_bytes - series.used_bytes[floor], 0)
    threshold_bytes = series.resident_bytes[floor] + more_used_bytes + FLOOR_SHARE * ram_bytes
    ends_s = [span.eat_start_s for span in spans[1:]] + [float("inf")]
    return [_burst(span, end_s, series, threshold_bytes) for span, end_s in zip(spans, ends_s, strict=True)]


def _burst(span: Span, end_s: float, series: Series, threshold_bytes: npt.NDArray[np.float64]) -> Burst:
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
