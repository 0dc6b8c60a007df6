"""What a real guest is seen to use, and when it counts as having given back all."""

from pagetide.machine.linux_machine import HELD_AFTER_S, SETTLED_AFTER_S, LinuxView, Quiet
from pagetide.units import PAGE_SIZE_BYTES
from tests.machine.watcher import MIB


def test_what_is_neither_free_nor_listed_is_the_kernels_own_or_not_used() -> None:
    """Used is what is listed and the least that was missing so far: isolated and ballooned pages are left out."""
    view = LinuxView(1000 * PAGE_SIZE_BYTES)
    for free, listed, used in (
        (900, 20, 100),
        (700, 20, 100),  # 200 isolated
        (300, 620, 700),
        (100, 620, 700),  # 200 isolated while much is used
        (920, 20, 80),  # more was missing at first: a report was in flight, or the balloon was not empty
        (600, 20, 80),
    ):
        view.told(free, listed)
        assert view.memory() == (used * PAGE_SIZE_BYTES, free * PAGE_SIZE_BYTES, None)


def test_reports_in_time_are_waited_for() -> None:
    """Each report starts the wait anew, even of memory that was not resident; the end is a while after the last."""
    quiet = Quiet(MIB)
    for step in range(4):
        assert not quiet.by(step * 2.0, step, 64 * MIB)
    quiet = Quiet(MIB)
    assert not quiet.by(0.0, 1, 64 * MIB)
    assert not quiet.by(SETTLED_AFTER_S - 0.1, 1, 64 * MIB)
    assert quiet.by(SETTLED_AFTER_S, 1, 64 * MIB)


def test_reports_that_never_end_and_bring_nothing_are_not_waited_for() -> None:
    """A guest that reports in every pass is done once residency has not fallen for three of them."""
    quiet = Quiet(MIB)
    assert not quiet.by(0.0, 1, 64 * MIB)
    assert not quiet.by(2.0, 2, 32 * MIB)
    for step in range(1, 4):
        assert not quiet.by(2.0 + 2 * step, 2 + step, 32 * MIB - step * MIB // 4)
    assert quiet.by(2.0 + HELD_AFTER_S, 6, 31 * MIB)


def test_without_an_account_only_residency_tells() -> None:
    """A fall starts the wait anew, and a rise or a trickle does not."""
    quiet = Quiet(MIB)
    assert not quiet.by(100.0, None, 64 * MIB)
    assert not quiet.by(106.0, None, 60 * MIB)
    assert not quiet.by(112.0, None, 62 * MIB)
    assert not quiet.by(106.0 + HELD_AFTER_S - 0.1, None, 60 * MIB - 1)
    assert quiet.by(106.0 + HELD_AFTER_S, None, 59 * MIB)
