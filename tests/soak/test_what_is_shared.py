"""What a hostile front-end shares is its own doing: the daemon may write there, and is not blamed for it."""

import random

from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import encode_mem_table
from soak.message_mutations import hostile_script, message, shares_canary
from tests.host.guest.test_hostile_messages import WHOLE


def test_the_memory_of_an_honest_guest_leaves_the_canaries_out() -> None:
    """What an honest front-end shares has no byte of the canaries, and what begins lower has."""
    lower = WHOLE._replace(mmap_offset_bytes=0)
    assert not shares_canary([message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE]))])
    assert shares_canary([message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE, lower]))])


def test_canaries_given_as_the_buffer_in_flight_are_shared() -> None:
    """A request for a buffer, changed by a bit into one that gives it, shares the canaries (found by a soak)."""
    assert shares_canary(hostile_script(random.Random(1491107090)))
