"""What a real guest is seen to use, and when it counts as having given back all."""

import time
from typing import cast

import pytest

from pagetide.machine.linux.balloon_host import HypervisorHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.guest import Hypervisor, LinuxGuest
from pagetide.machine.linux.machine import HELD_AFTER_S, SETTLED_AFTER_S, LinuxMachine, Quiet
from pagetide.machine.linux.view import KernelTold, LinuxView
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
        view.told(4 * free, 4 * listed)
        assert view.memory() == (used * PAGE_SIZE_BYTES, free * PAGE_SIZE_BYTES, None, None)


def test_a_kernel_counts_in_its_own_pages() -> None:
    """Orders are of the guest's pages there, and of 4 KiB in all that is shown and kept."""
    told = KernelTold.read("6.12.117+deb13-arm64-16k 11 16 12")
    assert (told.order, told.page_bytes, told.orders) == (11, 16 << 10, 12)
    assert told.block_bytes == 32 * MIB
    assert told.small_page_order == 13
    assert KernelTold.read("6.1.176 10 4 11").small_page_order == 10


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


class DyingGuest:
    """Has hung up on its host, and takes a moment more to end."""

    def await_end(self, deadline_s: float) -> bool:
        return deadline_s > time.monotonic()

    def cause_of_death(self) -> str:
        return "the guest's process was killed"

    def stop(self) -> None:
        pass


class EndedHost(HypervisorHost):
    """A host that serves no more."""

    def __init__(self, *, lost_guest: bool) -> None:
        self._lost_guest = lost_guest

    def has_lost_guest(self) -> bool:
        return self._lost_guest

    def how_it_ended(self) -> str:
        return "the host ended"


@pytest.mark.parametrize(
    ("lost_guest", "sentence"),
    [(True, "the guest's process was killed"), (False, "the host ended; the guest was stopped")],
)
def test_a_host_that_saw_its_guest_hang_up_is_not_blamed(lost_guest: bool, sentence: str) -> None:
    """A guest that is killed is seen to hang up before it has ended; its end is waited for, and named."""
    machine = LinuxMachine(BootConfig(), cast(Hypervisor, None), EndedHost(lost_guest=lost_guest))
    machine._guest = cast(LinuxGuest, DyingGuest())
    assert machine._how_it_ended() == sentence
