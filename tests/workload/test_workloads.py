"""What each workload holds over time, on its own clock."""

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.churn import churn
from pagetide.workload.database import EVICTED_SHARE, FILL_SHARE, ROUNDS, database
from pagetide.workload.day import SERVER_SHARE, day
from pagetide.workload.small import WAVE_SHARE, small
from pagetide.workload.stream import NO_BURST, Stream
from pagetide.workload.web import BREATHS, web

MIB = 1 << 20
RAM = 256 * MIB
MIX = {9: 0.5, 4: 0.25, 0: 0.25}


def held_at(stream: Stream, *times_s: float) -> list[float]:
    """MiB held at these times, after all that is due at them."""
    pages = 1 << stream.order.astype(np.int64)
    held = np.where(stream.kind == ALLOCATE, pages, -pages).cumsum() * PAGE_SIZE_BYTES / MIB
    return [float(held[np.searchsorted(stream.at_s, at_s, "right") - 1]) for at_s in times_s]


STREAMS = {
    "web": lambda seed: web(share_bytes=64 * MIB, rate_per_s=100, duration_s=12, vcpus=2, mix=MIX, seed=seed).whole(),
    "database": lambda seed: database(share_bytes=128 * MIB, duration_s=12, vcpus=2, mix=MIX, seed=seed).whole(),
    "churn": lambda seed: churn(
        share_bytes=128 * MIB, rate_per_s=5000, duration_s=12, vcpus=2, mix=MIX, seed=seed
    ).whole(),
    "small": lambda seed: small(
        ram_bytes=RAM, share_bytes=240 * MIB, rate_per_s=4, duration_s=12, vcpus=2, mix=MIX, seed=seed
    ).whole(),
    "day": lambda seed: day(
        eat_bytes=128 * MIB, bursts=3, hold_s=1, rate_per_s=100, duration_s=12, vcpus=2, mix=MIX, seed=seed
    ).whole(),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_workload_is_a_good_stream_and_its_seed_repeats_it(name: str) -> None:
    """The same seed gives the same operations, another one gives others, and all of them can be run."""
    first, same, other = (STREAMS[name](seed) for seed in (1, 1, 2))
    for stream in (first, other):
        stream.check()
        assert stream.end_s == 12
        assert stream.vcpus == 2
    assert all(np.array_equal(column, same.columns[each]) for each, column in first.columns.items())
    assert first.marks == same.marks
    assert not np.array_equal(first.order, other.order)


def test_a_web_server_breathes() -> None:
    """It swells from half of its share to all of it and back, and requests hold next to nothing."""
    stream = STREAMS["web"](1)
    period_s = 12 / BREATHS
    for breath in range(BREATHS):
        low, quarter, high, later = held_at(stream, *(period_s * (breath + part) for part in (0, 0.25, 0.5, 0.75)))
        assert low == pytest.approx(32, abs=1)
        assert high == pytest.approx(64, abs=1)
        assert quarter == pytest.approx(48, abs=2) == later
    assert stream.peak_bytes <= 66 * MIB


def test_a_database_keeps_its_cache_full() -> None:
    """It fills up at a steady pace, and after each eviction it fills up again."""
    stream = STREAMS["database"](1)
    fill_s = 12 * FILL_SHARE
    round_s = (12 - fill_s) / ROUNDS
    assert held_at(stream, fill_s / 2)[0] == pytest.approx(64, rel=0.2)
    for number in range(ROUNDS):
        evicts_s = fill_s + number * round_s
        before, after, again = held_at(stream, evicts_s - 0.01, evicts_s, evicts_s + 0.9 * round_s)
        assert (before, again) == pytest.approx((128, 128), abs=0.5)
        assert after == pytest.approx(128 * (1 - EVICTED_SHARE), rel=0.2)


def test_churn_holds_its_share_at_its_rate() -> None:
    """It begins in its steady state and stays in it, and allocates as often as it is to."""
    stream = STREAMS["churn"](1)
    assert np.mean(held_at(stream, *np.linspace(0, 12, 50))) == pytest.approx(128, rel=0.1)
    allocates = stream.at_s[stream.kind == ALLOCATE]
    assert (allocates > 0).sum() == 5000 * 12
    assert np.histogram(allocates[allocates > 0], 6)[0] == pytest.approx(10_000, rel=0.05)


def test_a_small_guest_eats_to_its_limit_in_waves() -> None:
    """Each wave frees its share of RAM and eats it again right away."""
    stream = STREAMS["small"](1)
    for frees_s in (0.25, 5.0, 11.5):
        before, low, after = held_at(stream, frees_s - 0.01, frees_s, frees_s + 0.01)
        assert (before, after) == (240, 240)
        assert low == 240 - WAVE_SHARE * 256


def test_a_day_has_its_bursts_over_a_quiet_server() -> None:
    """Each burst eats and frees all of its memory, in a part of the day of its own, and holds it meanwhile."""
    stream = STREAMS["day"](1)
    eats = [one for one in stream.stretches if one.mark.burst != NO_BURST and one.mark.eats]
    frees = [one for one in stream.stretches if one.mark.burst != NO_BURST and not one.mark.eats]
    assert [one.mark.burst for one in eats] == [one.mark.burst for one in frees] == [0, 1, 2]
    for number, (eat, free) in enumerate(zip(eats, frees, strict=True)):
        assert eat.allocated_bytes == 128 * MIB
        assert free.allocated_bytes == 0
        assert number * 4 <= eat.until_s <= number * 4 + 1.5
        assert free.until_s == pytest.approx(eat.until_s + 1)
        assert held_at(stream, eat.until_s + 0.5)[0] > 128 + 64 * SERVER_SHARE / 2
    assert stream.marks[1].name.startswith("burst 1 of 3, 0")
