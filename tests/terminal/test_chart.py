"""The chart in characters."""

import hypothesis.strategies as st
from hypothesis import given

from pagetide.terminal.chart import GUEST_MARK, HOST_MARKS, draw_chart, draw_strip, value_at

MIB = 1 << 20
FULL = HOST_MARKS[-1]


def chart(used: list[int], held: list[int], columns: int = 60, rows: int = 8, top_bytes: int = 100 * MIB) -> list[str]:
    """A chart of one sample a second."""
    times = [float(index) for index in range(len(used))]
    return draw_chart(
        times, used, held, columns=columns, rows=rows, from_s=0.0, to_s=max(1.0, len(used) - 1.0), top_bytes=top_bytes
    )


sizes = st.lists(st.integers(0, 120 * MIB), min_size=1, max_size=40)


@given(sizes, st.integers(12, 150), st.integers(1, 20))
def test_it_is_never_wider_or_higher_than_asked(values: list[int], columns: int, rows: int) -> None:
    """Every line fits, and there are as many as the rows, an axis of two lines, and a legend."""
    lines = chart(values, values, columns, rows)
    assert len(lines) == rows + 3
    assert all(len(line) <= columns for line in lines)


@given(sizes)
def test_more_memory_never_draws_less(values: list[int]) -> None:
    """Of two runs, the one that holds more at every moment has at least as many marks in every column."""
    less = "".join(chart([0] * len(values), [value // 2 for value in values]))
    more = "".join(chart([0] * len(values), values))
    assert sum(map(HOST_MARKS.index, (c for c in more if c in HOST_MARKS))) >= sum(
        map(HOST_MARKS.index, (c for c in less if c in HOST_MARKS))
    )


def test_a_full_guest_reaches_the_top_and_an_empty_one_leaves_it_blank() -> None:
    """All of RAM fills the first row; nothing at all fills none."""
    full = chart([0] * 4, [100 * MIB] * 4)
    assert full[0].count(FULL) == 50
    empty = chart([0] * 4, [0] * 4)
    assert not any(mark in line for line in empty[:-1] for mark in HOST_MARKS[1:])


def test_any_memory_at_all_shows() -> None:
    """One page of a large guest is still a mark above the axis."""
    assert HOST_MARKS[1] in chart([100 * MIB] * 4, [4096] * 4)[7]


def test_the_guests_line_is_where_its_use_is() -> None:
    """Half of RAM in use draws the line in the middle row, from the first sample on."""
    lines = chart([50 * MIB] * 4, [0] * 4)
    assert lines[3].count(GUEST_MARK) == 50
    assert sum(line.count(GUEST_MARK) for line in lines[:-1]) == 50


def test_the_future_is_blank() -> None:
    """Right of the last sample nothing is drawn, neither area nor line."""
    lines = draw_chart(
        [0.0, 1.0], [MIB, MIB], [MIB, MIB], columns=60, rows=4, from_s=0.0, to_s=10.0, top_bytes=10 * MIB
    )
    assert 5 <= lines[3].count(GUEST_MARK) <= 6


def test_axes_have_units() -> None:
    """Top value, zero and both times are there, and the legend names both curves."""
    lines = chart([0] * 30, [0] * 30)
    assert lines[0].startswith("  100 MiB┤")
    assert lines[-3].startswith("        0└")
    assert "0 s" in lines[-2]
    assert lines[-2].rstrip().endswith("29 s")
    assert "the guest uses" in lines[-1]
    assert "the host holds" in lines[-1]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30).map(sorted), st.floats(-10, 110))
def test_the_value_at_a_time_is_the_last_one_sampled(times: list[float], at_s: float) -> None:
    """The search agrees with looking through all samples."""
    values = list(range(len(times)))
    before = [value for t_s, value in zip(times, values, strict=True) if t_s <= at_s]
    assert value_at(times, values, at_s) == (before[-1] if before else None)


def test_a_strip_is_as_high_as_its_values() -> None:
    """The top value fills its column, half of it half of that, and nothing leaves it blank."""
    lines = draw_strip([0.0, 50.0, 100.0], columns=20, rows=2, top=100.0, label="100")
    assert lines == ["      100┤  █", "         ┤ ██"]
