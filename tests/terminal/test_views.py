"""The live picture, drawn on a terminal that is a string."""

import io
import re
import threading

import pytest
from rich.console import Console

from pagetide.machine.result import Sample
from pagetide.terminal.views import LiveView

MIB = 1 << 20


def terminal(width: int, height: int = 40) -> Console:
    """A terminal of this size."""
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor")


def shown(console: Console) -> str:
    """What was written, without colours and cursor movements."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_a_stage_shows_at_once() -> None:
    """The first thing that happens is on the screen before any sample."""
    console = terminal(80)
    with LiveView(console, 512 * MIB) as view:
        view.stage("compiling kernels (first run only)")
        assert "compiling kernels (first run only)" in shown(console)


def test_the_picture_has_both_curves_and_the_four_bars() -> None:
    """With samples there is a chart and a bar with a figure for each kind of memory, within the terminal's width."""
    console = terminal(60)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 100 * MIB, 412 * MIB, 200 * MIB, 300 * MIB))
        view.stage("burst 1 of 3: eating")
        text = shown(console)
    for words in ("burst 1 of 3: eating", "━━ the guest uses", "██ the host holds"):
        assert words in text
    for name, figure in (
        ("guest uses", 100),
        ("free, reported", 200),
        ("free, not reported", 212),
        ("host holds", 300),
    ):
        assert re.search(rf"{name} +{figure} MiB", text)
    assert max(map(len, re.split("[\r\n]+", text))) <= 60


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_full_bar_fits(width: int) -> None:
    """All of RAM is a bar as long as there is room for, and not cut off."""
    console = terminal(width)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 512 * MIB, 0, 0, 512 * MIB))
        view.stage("burst 1 of 3: eating")
        text = shown(console)
    assert f"host holds    512 MiB  {'█' * (width - 31)}" in text
    assert "…" not in text


def test_a_guest_that_does_not_tell_what_it_reported_has_one_bar_for_free() -> None:
    """Without a figure for the reported there is no made-up split of free memory."""
    console = terminal(60)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 100 * MIB, 412 * MIB, None, 300 * MIB))
        view.stage("burst 1 of 3: eating")
        text = shown(console)
    assert re.search(r"free +412 MiB", text)
    assert "reported" not in text


def test_the_whole_runs_chart_stays_at_the_end() -> None:
    """The last picture goes from the beginning to the end of the run, without the bars."""
    console = terminal(80)
    with LiveView(console, 512 * MIB) as view:
        for second in range(90):
            view.sample(Sample(float(second), MIB, 511 * MIB, 0, MIB))
        before = len(shown(console))
    last = shown(console)[before:]
    assert "89 s" in last
    assert "free, reported" not in last


def test_the_clock_on_the_screen_goes_on_without_news() -> None:
    """While kernels compile there is no sample and no stage, and the picture is still drawn anew."""
    console = terminal(80)
    asked, now_s = threading.Event(), iter(range(1000))

    def clock() -> float:
        second = float(next(now_s))
        if second == 4:
            asked.set()
        return second

    with LiveView(console, 512 * MIB, clock=clock) as view:
        view.stage("compiling kernels (first run only)")
        assert asked.wait(30)
    assert "compiling kernels (first run only)   1.0 s" in shown(console)
    assert "compiling kernels (first run only)   2.0 s" in shown(console)


@pytest.mark.parametrize("height", [10, 14, 24])
def test_a_low_terminal_keeps_the_bars(height: int) -> None:
    """The chart gives way: no picture is higher than the terminal, and the last bar is on it."""
    console = terminal(80, height)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 100 * MIB, 412 * MIB, 200 * MIB, 300 * MIB))
        view.stage("burst 1 of 3: eating")
        frames = re.split("burst 1 of 3: eating", shown(console))
    assert "host holds    300 MiB" in frames[1]
    assert frames[1].count("\n") + 1 <= height


def last_frame(console: Console) -> list[str]:
    """The lines of the picture that was drawn last."""
    return re.split("burst 1 of 3: eating", shown(console))[-1].splitlines()


@pytest.mark.parametrize(("width", "height"), [(60, 24), (100, 30), (230, 70)])
def test_the_picture_is_as_wide_and_as_high_as_the_terminal(width: int, height: int) -> None:
    """Every line is used, and the time axis goes to the last column; so it does after a resize."""
    console = terminal(100, 40)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 100 * MIB, 412 * MIB, 200 * MIB, 300 * MIB, 0))
        view.stage("burst 1 of 3: eating")
        console.size = console.size._replace(width=width, height=height)
        view.stage("burst 1 of 3: eating")
        frame = last_frame(console)
    assert len(frame) == height
    assert max(map(len, frame)) == width
    assert next(line for line in frame if "└" in line).endswith("─" * (width - 10))


def test_refaults_and_lag_are_seen_as_they_happen() -> None:
    """What was touched again, second by second, and for how long the host has held what is free, with their totals."""
    console = terminal(100, 40)
    with LiveView(console, 512 * MIB) as view:
        view.sample(Sample(0.0, 100 * MIB, 412 * MIB, 0, 100 * MIB, 0))
        view.sample(Sample(1.0, 0, 512 * MIB, 0, 100 * MIB, 0))
        view.sample(Sample(4.0, 0, 512 * MIB, 0, 100 * MIB, 40 * MIB))
        view.stage("burst 1 of 3: eating")
        frame = last_frame(console)
    refaults = next(number for number, line in enumerate(frame) if line.startswith("refaulted so far: 40 MiB"))
    lag = next(number for number, line in enumerate(frame) if line.startswith("lag now: 3.0 s"))
    assert any("█" in line for line in frame[refaults + 1 : lag])
    peak = frame[lag + 1]
    assert peak.startswith("    3.0 s┤")
    assert "█" in peak or "▇" in peak


def test_a_low_terminal_has_refaults_and_lag_as_figures() -> None:
    """There is no room for their curves, and a guest that tells of no refaults has no figure of them."""
    for refaulted, told in ((MIB, "refaulted so far: 1 MiB   lag now: 0.0 s"), (None, "\nlag now: 0.0 s")):
        console = terminal(60, 16)
        with LiveView(console, 512 * MIB) as view:
            view.sample(Sample(0.0, 100 * MIB, 412 * MIB, 0, 100 * MIB, refaulted))
            view.stage("burst 1 of 3: eating")
            assert told in "\n".join(last_frame(console))


def test_a_resized_terminal_is_cleared_first() -> None:
    """What a terminal made of the old picture's lines is not left between the new ones."""
    console = terminal(100)
    with LiveView(console, 512 * MIB) as view:
        view.stage("one")
        assert isinstance(console.file, io.StringIO)
        assert "\x1b[2J" not in console.file.getvalue()
        console.size = console.size._replace(width=60)
        view.stage("two")
    before, _, after = console.file.getvalue().partition("\x1b[2J")
    assert "one" in before
    assert "two" in after
    assert "\x1b[2J" not in after
