"""`balloon` on the live machine: who sets the target, and what becomes of allocations while memory is in it."""

import numpy as np
import pytest

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import BALLOON_PAGES, FREE_PAGES, NR_PAGES
from pagetide.guest.in_flight import InBalloon
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.guest.reporting.designs.off import Off
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.balloon_policy import SLACK_PAGES, BalloonPolicy, reserve_pages, settled, wanted_pages
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.live.machine import LiveMachine
from tests.machine.watcher import Watcher

pytestmark = [pytest.mark.slow, pytest.mark.jit]  # its kernels are tested both ways elsewhere

MIB = 1 << 20


@pytest.mark.parametrize(
    ("free", "held", "wanted"),
    [(16000, 0, 15000), (1000, 15000, 15000), (0, 15000, 14000), (500, 0, 0), (1000, 0, 0), (0, 400, 0)],
)
def test_the_host_wants_all_that_is_free_but_a_reserve(free: int, held: int, wanted: int) -> None:
    """More in the balloon while more than a sixteenth is free, less while less is, and never less than none."""
    assert reserve_pages(16000) == 1000
    assert wanted_pages(16000, free, held) == wanted


class Guest:
    """A guest of the server that is told a target."""

    def __init__(self) -> None:
        self.ram_bytes = 16000 << 12
        self.targets: list[int] = []

    def set_target_bytes(self, target_bytes: int) -> bool:
        self.targets.append(target_bytes >> 12)
        return False


def test_the_target_moves_in_steps() -> None:
    """It is left alone for less than SLACK_PAGES, and before the guest has shared its memory."""
    words = np.zeros(64, np.int64)
    words[NR_PAGES], words[FREE_PAGES] = 16000, 16000
    policy, guest = BalloonPolicy(words), Guest()
    guest.ram_bytes = 0
    policy.act(guest)
    assert guest.targets == []
    guest.ram_bytes = 16000 << 12
    for free, held in ((16000, 0), (1000, 15000), (1000 - SLACK_PAGES + 1, 15000), (1000 - SLACK_PAGES, 15000)):
        words[FREE_PAGES], words[BALLOON_PAGES] = free, held
        policy.act(guest)
    assert guest.targets == [1000, 1000 + SLACK_PAGES]
    assert settled(words, 1000, 15000)
    assert not settled(words, 1000 + SLACK_PAGES, 15000)


def test_a_burst_deflates_the_balloon_and_no_vcpu_waits() -> None:
    """The guest eats two thirds of RAM while nearly all of it is in the balloon: pages come out at once."""
    config = RunConfig(
        design="balloon", ram_bytes=128 * MIB, bursts=2, hold_s=0.5, rest_s=1.5, delay_s=0.02, eat_share=0.65
    )
    result = LiveMachine(config).run(Watcher())
    assert result.outcome == "complete"
    assert result.stamp_errors == result.false_ooms == 0
    assert result.skipped_bytes
    assert sum(result.skipped_bytes.values()) == 0
    assert result.reported_bytes
    assert result.reported_bytes > 100 * MIB
    assert result.verified_bytes == result.checked_bytes == result.reported_bytes
    assert result.refaulted_bytes
    reported = [sample or 0 for sample in result.samples.reported_bytes]
    assert max(reported) > 100 * MIB
    assert reported[-1] >= 115 * MIB
    for burst in result.bursts:
        assert burst.returned_bytes >= 0.85 * burst.eaten_bytes


def test_without_deflating_on_oom_allocations_fail_falsely() -> None:
    """The control: with `oom none` the guest fails although its memory is in the balloon, and it is counted."""
    # When the second burst begins, nearly all memory is in the balloon.
    config = RunConfig(design="balloon", ram_bytes=128 * MIB, bursts=2, hold_s=0.0, delay_s=0.02, oom="none")
    result = LiveMachine(config).run(Watcher())
    assert result.outcome == "complete"
    assert result.false_ooms
    assert result.stamp_errors == 0


def test_another_vcpus_relief_is_not_taken_for_running_out() -> None:
    """An allocation that failed just before another vCPU emptied the balloon is tried again."""
    zone = Zone(4096, watermarks=Watermarks(0, 0, 0))
    balloon = Balloon(zone, ReportingSettings(delay_s=0.0))
    balloon.start(0.0)
    balloon.wanted_pages = 4096
    while (batch := balloon.next_batch(0.0)) is not None:
        balloon.done(batch, True, 0.0)
    with GuestWorker(Off(zone, ReportingSettings()), None, None) as worker:
        in_balloon = InBalloon(zone, balloon, worker, settled)
        seen = in_balloon.ended
        assert in_balloon.begun != in_balloon.ended, "while pages are in it, memory has not run out"
        while balloon.deflate_on_oom(10):  # by the other vCPU
            pass
        assert balloon.held_pages == 0
        assert in_balloon.begun == in_balloon.ended != seen


def test_settings_that_do_not_fit_are_refused() -> None:
    """A run is not begun, and the sentence says what would do."""
    with pytest.raises(ConfigError, match="with balloon oom must be wait"):
        RunConfig(design="balloon", oom="cap").check()
