"""What a hostile front-end shares is its own doing: the daemon may write there, and is not blamed for it."""

import random

from soak.message_mutations import hostile_script, right_script, shares_canary


def test_an_honest_script_leaves_the_canaries_out() -> None:
    """What an honest front-end sends shares no byte of the canaries."""
    assert not any(shares_canary(right_script(random.Random(seed))) for seed in range(100))


def test_canaries_given_as_the_buffer_in_flight_are_shared() -> None:
    """A request for a buffer, changed by one bit into one that gives it, is seen to share the canaries (found by a soak)."""
    assert shares_canary(hostile_script(random.Random(1491107090)))
