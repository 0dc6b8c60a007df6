"""A guest whose reporting is tended: what comes back of memory that is free in single pages, or in pieces."""

import msgspec
import pytest

from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.linux.uml import UserModeLinux
from tests.machine.watcher import MIB, Watcher
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(1)]

SIEVED = BootConfig(ram_bytes=160 * MIB, fill_bytes=96 * MIB, bursts=1, hold_s=0.1, sieve=True)
"""Half of 96 MiB is removed, every other page of it; the kernel's own order."""


@pytest.mark.usefixtures("folder_for_guests")
def test_what_is_free_in_single_pages_comes_back(uml: GuestParts) -> None:
    """Stock reporting gives back none of it; tended, most is back."""
    returned = []
    for tend in (False, True):
        config = msgspec.structs.replace(SIEVED, tend=tend)
        result = LinuxMachine(config, UserModeLinux(uml), OwnHost(config)).run(Watcher())
        assert result.outcome == "complete"
        assert result.reported_bytes == result.verified_bytes
        returned.append(result.bursts[0].returned_bytes)
    assert returned[0] <= 12 * MIB
    assert returned[1] >= 36 * MIB


@pytest.mark.usefixtures("folder_for_guests")
def test_what_a_build_leaves_in_pieces_comes_back(uml: GuestParts) -> None:
    """Of a tree of small files that short processes made, of which four fifths are removed."""
    config = BootConfig(ram_bytes=192 * MIB, fill_bytes=64 * MIB, bursts=1, hold_s=0.1, build=True, tend=True)
    result = LinuxMachine(config, UserModeLinux(uml), OwnHost(config)).run(Watcher())
    assert result.outcome == "complete"
    assert result.bursts[0].returned_bytes >= 35 * MIB
