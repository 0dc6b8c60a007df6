"""An application that follows a curve."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.curve import curve
from pagetide.workload.mix import Mix
from pagetide.workload.stream import Stream

MIX: Mix = {9: 0.5, 4: 0.125, 2: 0.125, 0: 0.25}
PAGES = 1 << 14


def follow(shares: list[float], scatter: float, mix: Mix = MIX, seed: int = 1) -> Stream:
    """A curve of shares of 64 MiB, one every 100 s, each reached within 10 s."""
    return curve(
        at_s=[100.0 * step for step in range(len(shares))],
        used_bytes=[share * PAGES * PAGE_SIZE_BYTES for share in shares],
        move_s=10.0,
        scatter=scatter,
        end_s=100.0 * len(shares),
        vcpus=2,
        mix=mix,
        seed=seed,
    ).whole()


def used_pages(stream: Stream, at_s: float) -> int:
    """What is held once all has run that is due by then."""
    end = int(np.searchsorted(stream.at_s, at_s, "right"))
    pages = 1 << stream.order[:end].astype(np.int64)
    return int(np.where(stream.kind[:end] == ALLOCATE, pages, -pages).sum())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1), st.integers(0, 9))
def test_use_follows_the_curve(shares: list[float], scatter: float, seed: int) -> None:
    """Within the time of a move, to the page as long as there are single pages; in between nothing happens."""
    stream = follow(shares, scatter, {0: 0.5, 3: 0.5}, seed)
    stream.check()
    for step, share in enumerate(shares):
        assert abs(used_pages(stream, 100.0 * step + 10.0) - share * PAGES) < 8
        assert used_pages(stream, 100.0 * step + 10.0) == used_pages(stream, 100.0 * step + 99.0)


def test_what_is_freed_is_what_came_last_or_anything() -> None:
    """With no scatter the youngest half of each vCPU goes, and comes back; with all of it young and old alike."""

    def first_half_freed(scatter: float) -> float:
        stream = follow([1.0, 0.5], scatter)
        frees = np.flatnonzero(stream.kind != ALLOCATE)
        births: dict[int, list[int]] = {}
        for place in range(int(frees[0])):
            births.setdefault(int(stream.vcpu[place]), []).append(int(stream.slot[place]))
        own = [births[int(stream.vcpu[free])] for free in frees]
        born = [slots.index(int(stream.slot[free])) / len(slots) for slots, free in zip(own, frees, strict=True)]
        return float((np.array(born) < 0.5).mean())

    assert first_half_freed(0.0) < 0.1
    assert 0.4 < first_half_freed(1.0) < 0.6


def test_use_is_as_near_as_blocks_are_small() -> None:
    """Of blocks of 2 MiB alone 62.5 of 64 MiB cannot be reached: 62 are; with all of the mix's orders 63 can nearly."""
    assert used_pages(follow([1.0, 62.5 / 64], 0.0, {9: 1.0}), 110.0) == PAGES - 512
    assert abs(used_pages(follow([1.0, 63 / 64], 0.0), 110.0) - 63 / 64 * PAGES) <= 512 / 2 + 8 + 2


def test_a_guest_that_hums_keeps_its_mix() -> None:
    """However small its changes are beside a block of 2 MiB: half of what is held stays in such blocks."""
    shares = [0.5 + 0.01 * (step % 3) for step in range(200)]
    stream = follow(shares, 1.0)
    signed = np.where(stream.kind == ALLOCATE, 1, -1) << stream.order.astype(np.int64)
    assert abs(int(signed[stream.order == 9].sum()) - shares[-1] * PAGES / 2) <= 512 / 2
    assert abs(int(signed[stream.order == 0].sum()) - shares[-1] * PAGES / 4) <= 1


def test_the_same_seed_gives_the_same_stream() -> None:
    """And another seed another one."""
    one, again, other = (follow([0.9, 0.2, 0.7], 0.5, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(column, again.columns[name]) for name, column in one.columns.items())
    assert not np.array_equal(one.order, other.order)
