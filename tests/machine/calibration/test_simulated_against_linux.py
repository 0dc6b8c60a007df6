"""The simulated machine beside a real kernel. Without the packages this test fails: `make test` installs them."""

from typing import Any

import msgspec
import numpy as np
import pytest

from pagetide.machine.calibration.fidelity import compare_with_kernel
from pagetide.machine.costs import read_costs
from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import LINUX_DELAY_S, BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.observer import Observer
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.workload.file import file
from tests.machine.watcher import MIB, Watcher

pytestmark = pytest.mark.alone


@pytest.mark.jit
def test_linuxs_pace_is_linuxs(uml: GuestParts) -> None:
    """With the same schedule the host holds as much as with a real kernel, within 5 % of RAM at every second.

    700 MiB come back in three passes, 2 s apart, each of two reports of 32 blocks at most; the first one comes 2 s
    after the file was removed, or earlier if a free of the kernel's own had asked for it.
    """
    config = BootConfig(bursts=1, hold_s=3.0, order=10)
    boot = LinuxMachine(config, UserModeLinux(uml), OwnHost(config))
    found = compare_with_kernel(config, boot.run, read_costs(), Watcher())
    passes = np.flatnonzero(np.diff(found.simulated) < -100 * MIB)
    assert passes.tolist() == [0, 2, 4]
    assert found.waited_s < LINUX_DELAY_S + 0.5
    assert found.off_share <= 0.05, (found.real // MIB, found.simulated // MIB)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        ({"delay_s": 3.0}, True),
        ({"capacity": 16}, True),
        ({"pace": "drain"}, True),
        ({"design": "off"}, True),
    ],
    ids=str,
)
def test_another_guest_is_told_apart(changes: dict[str, Any], differs: bool) -> None:
    """The comparison can fail: a kernel with another delay, capacity or pace, or without reporting, is off by more."""
    config = BootConfig(bursts=1, hold_s=3.0, order=10)
    stream = file(kept_bytes=0, file_bytes=config.fill_bytes, write_s=0.7, hold_s=3.0, rest_s=8.0)
    settings = msgspec.structs.replace(config.run_config(), bursts=1, **changes)

    def boot(observer: Observer) -> RunResult:
        return SimulatedMachine(settings, read_costs(), work=stream).run(observer)

    found = compare_with_kernel(config, boot, read_costs(), Watcher())
    assert (found.off_share > 0.05) == differs, found.off_share
