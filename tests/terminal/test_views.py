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
    assert f"host holds    512 MiB  {'█' * (min(width, 110) - 31)}" in text
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
