"""How far a comparison is: the time that is left, and a bar for a terminal."""

import io

import pytest

from pagetide.terminal.progress import GridProgress, duration


def test_the_time_left_follows_from_the_time_so_far() -> None:
    """A quarter in 10 s leaves 30 s; lines are written after the first run, and then every 5 s; none twice."""
    from rich.console import Console

    clock_s = [0.0]
    file = io.StringIO()
    console = Console(file=file, width=100)
    with GridProgress(console, 8, live=False, clock=lambda: clock_s[0]) as progress:
        progress.show()
        assert file.getvalue() == ""
        for at_s, failed in ((5.0, False), (6.0, False), (10.0, True)):
            clock_s[0] = at_s
            progress.ended(failed=failed)
            progress.show()
    assert file.getvalue().splitlines() == [
        "1 of 8 runs, 5 s so far, about 35 s left",
        "3 of 8 runs, 1 failed, 10 s so far, about 17 s left",
    ]


def test_a_bar_is_drawn_on_a_terminal() -> None:
    """It says the same, and is gone from the cursor's way at the end."""
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with GridProgress(console, 2, live=True) as progress:
        progress.ended(failed=False)
        progress.show()
    assert isinstance(console.file, io.StringIO)
    assert "1 of 2 runs, " in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[?25h")


@pytest.mark.parametrize(
    ("length_s", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_are_said_as_people_do(length_s: float, text: str) -> None:
    """Seconds, minutes or hours."""
    assert duration(length_s) == text
