"""From what was seen during a run to what it means: pure functions over time series.

Samples are SAMPLE_INTERVAL_S apart, and a gigabyte comes back in a handful of them. So what changed from one sample to
the next is taken to have changed steadily, during the last SAMPLE_INTERVAL_S before it was seen: a longer pause between
samples means that nothing happened until then (machine/simulated/machine.py).
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.machine.observer import SAMPLE_INTERVAL_S
from pagetide.machine.result import Burst, Samples

EATEN_SHARE = 0.05
"""A burst is back when residency is within this share of what it ate of the run's floor.

Where the guest uses more than it did at the floor, as a server beside the burst may, that comes on top. What a design
leaves by design comes on top, too, as far as it is there and less than half of the burst.
"""

_LAG_PARTS = 1025
"""Lags are told apart for at least as many parts of all bytes, less one."""


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
    return_lag_s_p50: float | None
    return_lag_s_p99: float | None
    return_lag_s_max: float | None
    unreturned_bytes: int | None


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
        return Footprint(None, None, None, None, None, None, None)
    resident, used = series.resident_bytes[:-1], series.used_bytes[:-1]
    fell_bytes = int(np.maximum(-np.diff(series.resident_bytes), 0).sum())
    kept = np.maximum(series.resident_bytes - series.used_bytes, 0)
    kept_byte_s = float((kept[:-1] * lasts_s).sum())
    lags = _lags(series, kept)
    return Footprint(
        round(float((resident * lasts_s).sum()) / whole_s),
        round(float((used * lasts_s).sum()) / whole_s),
        kept_byte_s / fell_bytes if fell_bytes else None,
        _lag_quantile_s(lags, 0.5),
        _lag_quantile_s(lags, 0.99),
        _lag_quantile_s(lags, 1.0),
        int(kept[-1]),
    )


class _Lags(NamedTuple):
    """So many bytes stayed for so long, the shortest first."""

    lag_s: npt.NDArray[np.float64]
    nr_bytes: npt.NDArray[np.float64]


def _lags(series: Series, kept: npt.NDArray[np.int64]) -> _Lags:
    """How long bytes stayed with the host after they were free, the oldest going first.

    What is kept for nothing grows when memory is freed, and shrinks when it is returned, which counts, or used again,
    which does not. Where both happened from one sample to the next, as much as they have in common came and went. What
    is left at the end has stayed until then.
    """
    change = np.diff(kept, prepend=0)
    freed, fell = (np.maximum(-np.diff(column, prepend=0), 0) for column in (series.used_bytes, series.resident_bytes))
    through = np.minimum(freed, fell)
    came, went = np.maximum(change, 0) + through, np.maximum(-change, 0) + through
    returned = np.minimum(went, fell)
    came_by, went_by = np.cumsum(came), np.cumsum(went)
    edges = np.unique(np.concatenate(([0], came_by, went_by, np.linspace(0, came_by[-1], _LAG_PARTS))))
    middles = (edges[1:] + edges[:-1]) / 2
    stayed = middles > went_by[-1]
    went_s = np.where(stayed, series.t_s[-1], _reached_s(series.t_s, went_by, middles))
    lags_s = went_s - _reached_s(series.t_s, came_by, middles)
    leaving = np.minimum(np.searchsorted(went_by, middles), len(went_by) - 1)
    counted = np.diff(edges) * np.where(stayed, 1.0, returned[leaving] / np.maximum(went[leaving], 1))
    order = np.argsort(lags_s, kind="stable")
    order = order[counted[order] > 0]
    return _Lags(lags_s[order], counted[order])


class Waiting:
    """How long free memory has been waiting to be returned, while the run goes on; the oldest is taken to go first.

    What comes and goes is counted as for the lags of a whole run.
    """

    def __init__(self, slack_bytes: int) -> None:
        """Nothing waits yet; so much may stay for good and is not minded."""
        self._slack_bytes = slack_bytes
        self._used_bytes = self._resident_bytes = self._kept_bytes = 0
        self._came_bytes = self._went_bytes = 0
        self._came: deque[tuple[float, int]] = deque()

    def seen(self, t_s: float, used_bytes: int, resident_bytes: int) -> float:
        """Take the next sample; for how long the oldest byte that is minded has been waiting, in seconds."""
        kept_bytes = max(0, resident_bytes - used_bytes)
        freed_bytes = max(0, self._used_bytes - used_bytes)
        through_bytes = min(freed_bytes, max(0, self._resident_bytes - resident_bytes))
        came_bytes = max(0, kept_bytes - self._kept_bytes) + through_bytes
        self._went_bytes += max(0, self._kept_bytes - kept_bytes) + through_bytes
        self._used_bytes, self._resident_bytes, self._kept_bytes = used_bytes, resident_bytes, kept_bytes
        if came_bytes:
            self._came_bytes += came_bytes
            self._came.append((t_s, self._came_bytes))
        while self._came and self._came[0][1] <= self._went_bytes + self._slack_bytes:
            self._came.popleft()
        return t_s - self._came[0][0] if self._came else 0.0


def _reached_s(
    t_s: npt.NDArray[np.float64], by: npt.NDArray[np.int64], amounts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """When something that only grows, and was `by` at each sample, reached these amounts; the end if it never did."""
    index = np.minimum(np.searchsorted(by, amounts), len(by) - 1)
    before = np.maximum(index - 1, 0)
    share = np.clip((amounts - by[before]) / np.maximum(by[index] - by[before], 1), 0, 1)
    reached_s: npt.NDArray[np.float64] = t_s[index] - (1 - share) * _change_s(t_s)[index]
    return reached_s


def _change_s(t_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For how long before each sample what it shows as changed was changing."""
    return np.minimum(np.diff(t_s, prepend=t_s[0]), SAMPLE_INTERVAL_S)


def _lag_quantile_s(lags: _Lags, share: float) -> float | None:
    """What this share of the bytes did not stay longer than."""
    if not len(lags.lag_s):
        return None
    by = np.cumsum(lags.nr_bytes)
    return float(lags.lag_s[min(int(np.searchsorted(by, share * by[-1])), len(by) - 1)])


def bursts(spans: list[Span], series: Series, rest_bytes: int = 0) -> list[Burst]:
    """Each burst's figures; a burst lasts until the next one begins to eat, and the last one until the end.

    Args:
        spans: the bursts.
        series: what was sampled.
        rest_bytes: the most that the design leaves with the host by design.
    """
    if not spans or not len(series.t_s):
        return []
    floor = int(series.resident_bytes.argmin())
    more_used_bytes = np.maximum(series.used_bytes - series.used_bytes[floor], 0)
    floor_bytes = series.resident_bytes[floor] + more_used_bytes
    ends_s = _ends_s(spans)
    return [_burst(span, end_s, series, floor_bytes, rest_bytes) for span, end_s in zip(spans, ends_s, strict=True)]


def _burst(span: Span, end_s: float, series: Series, floor_bytes: npt.NDArray[np.int64], rest_bytes: int) -> Burst:
    whole = (series.t_s >= span.eat_start_s) & (series.t_s < end_s)
    after = (series.t_s >= span.free_end_s) & (series.t_s < end_s)
    resident, verified = series.resident_bytes, series.verified_bytes
    returned_bytes = int(resident[whole].max() - resident[after].min()) if after.any() else 0
    slack_bytes = EATEN_SHARE * span.eaten_bytes
    stayed_bytes = int((resident - floor_bytes)[after].min(initial=np.iinfo(np.int64).max))
    stays = slack_bytes < stayed_bytes <= min(rest_bytes + slack_bytes, span.eaten_bytes / 2)
    threshold_bytes = floor_bytes + slack_bytes + (stayed_bytes if stays else 0)
    back = np.flatnonzero(after & (resident <= threshold_bytes))
    back_s = _crossed_s(series.t_s, resident - threshold_bytes, int(back[0])) if len(back) else None
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
        return_lag_s=None if back_s is None else max(0.0, back_s - span.free_end_s),
    )


def still_used_bytes(samples: Samples, bursts: Sequence[Burst]) -> list[int]:
    """What the guest used after each burst, at least, more than when the host held least: a part that is still in use.

    Args:
        samples: of the whole run.
        bursts: its bursts.
    """
    if not bursts or not samples.t_s:
        return [0] * len(bursts)
    t_s, used = np.array(samples.t_s), np.array(samples.guest_used_bytes, np.int64)
    floor_bytes = int(used[np.argmin(samples.host_resident_bytes)])
    pairs = zip(bursts, _ends_s(bursts), strict=True)
    after = [used[(t_s >= burst.free_end_s) & (t_s < end_s)] for burst, end_s in pairs]
    return [max(0, int(some.min()) - floor_bytes) if len(some) else 0 for some in after]


def _ends_s(bursts: Sequence[Span | Burst]) -> list[float]:
    """When each burst is over: as the next one begins to eat."""
    return [burst.eat_start_s for burst in bursts[1:]] + [float("inf")]


def _crossed_s(t_s: npt.NDArray[np.float64], above_bytes: npt.NDArray[np.float64], index: int) -> float:
    """When something came down to 0 that is so by this sample."""
    before, now = above_bytes[max(0, index - 1)], above_bytes[index]
    left = now / (now - before) if before > 0 else 0.0
    return float(t_s[index] - left * _change_s(t_s)[index])
