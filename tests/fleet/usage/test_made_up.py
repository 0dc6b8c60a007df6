"""The made-up fleet."""

import numpy as np

from pagetide.fleet.usage.made_up import MadeUp
from pagetide.units import GIB


def test_a_made_up_vm_is_the_same_whatever_is_read_with_it() -> None:
    """By seed and number alone: in parts, in a larger fleet; another seed makes another one."""
    whole, _ = MadeUp(12, 2, seed=3).read(0, 12)
    part, _ = MadeUp(40, 2, seed=3).read(5, 9)
    other, _ = MadeUp(12, 2, seed=4).read(0, 12)
    assert np.array_equal(part.used_bytes, whole.used_bytes[5:9])
    assert not np.array_equal(other.used_bytes, whole.used_bytes)
    assert part.vms == ("5", "6", "7", "8")


def test_made_up_vms_use_what_they_have() -> None:
    """No more than their capacity, nothing while off; capacities are whole GiB; some are off at night, most never."""
    usage, odd = MadeUp(200, 7, seed=1).read(0, 200)
    assert odd.counts == {}
    assert usage.grid.steps == 7 * 288
    assert (usage.used_bytes <= usage.capacity_bytes).all()
    assert (usage.capacity_bytes % GIB == 0).all()
    assert 0 < np.count_nonzero((usage.capacity_bytes == 0).any(1)) < 100
