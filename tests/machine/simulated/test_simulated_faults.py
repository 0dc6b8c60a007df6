"""What a host's faults do to the time that its work takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.machine.faults import Fault
from pagetide.machine.simulated.faults import finish_s

pytestmark = pytest.mark.jit  # no kernel is called

STOP = Fault("stop", 10.0, 5.0)
SLOW = Fault("slow", 10.0, 5.0, factor=10.0)


@pytest.mark.parametrize(
    ("start_s", "work_s", "fault", "done_s"),
    [
        (1.0, 2.0, STOP, 3.0),
        (9.0, 2.0, STOP, 16.0),
        (12.0, 0.0, STOP, 15.0),
        (9.0, 2.0, SLOW, 15.5),
        (10.0, 0.1, SLOW, 11.0),
        (15.0, 2.0, SLOW, 17.0),
    ],
)
def test_work_is_done_later_beside_a_fault(start_s: float, work_s: float, fault: Fault, done_s: float) -> None:
    """A stop adds its length, and slowness a multiple of what falls into it."""
    assert finish_s(start_s, work_s, [fault]) == pytest.approx(done_s)


_faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(("stop", "slow")),
        st.floats(0, 20),
        st.floats(0, 10),
        st.floats(1, 100),
    ),
    max_size=4,
)


@given(_faults, st.floats(0, 40), st.floats(0, 10), st.floats(0, 10))
def test_faults_only_delay_and_keep_the_order(
    faults: list[Fault], start_s: float, work_s: float, more_s: float
) -> None:
    """Work is never done earlier than without faults, and more work never before less."""
    done_s = finish_s(start_s, work_s, faults)
    assert done_s >= start_s + work_s - 1e-9
    assert finish_s(start_s, work_s + more_s, faults) >= done_s - 1e-9
