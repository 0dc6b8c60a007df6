"""When a real guest counts as having given back all."""

from pagetide.machine.linux_machine import HELD_AFTER_S, SETTLED_AFTER_S, Quiet
from tests.machine.watcher import MIB


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
