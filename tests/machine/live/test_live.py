"""The live machine: real processes on real memory, small."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pagetide import linux
from pagetide.machine.config import RunConfig
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.result import RunResult
from tests.machine.watcher import Watcher

pytestmark = [pytest.mark.slow, pytest.mark.jit]

MIB = 1 << 20
SMALL = RunConfig(ram_bytes=64 * MIB, bursts=1, hold_s=0.5, delay_s=0.1, capacity=2)
"""Its burst leaves more than a report has out, so that no vCPU waits for a host that is late."""


def run(watcher: Watcher | None = None, **changes: Any) -> RunResult:
    """Run the small guest with these settings changed."""
    fields = {name: getattr(SMALL, name) for name in SMALL.__struct_fields__} | changes
    return LiveMachine(RunConfig(**fields)).run(watcher or Watcher())


def child(name: str) -> psutil.Process:
    """The host's or the guest's process."""
    module = f"pagetide.machine.live.{name}_process"
    return next(process for process in psutil.Process().children() if module in process.cmdline())


def kill(name: str, signal_: int = signal.SIGKILL) -> Callable[[], None]:
    """An action that kills one of the two."""
    return lambda: child(name).send_signal(signal_)


def is_right(result: RunResult) -> None:
    """Nothing is wrong with a run: stamps, bounds, and what was verified."""
    assert result.outcome == "complete"
    assert result.stamp_errors == 0
    assert result.checked_bytes == result.verified_bytes
    assert result.returned_bytes is not None
    assert result.verified_bytes is not None
    returned_bytes = sum(burst.returned_bytes for burst in result.bursts)
    assert 0.9 * result.config.verify_share * returned_bytes <= result.returned_bytes <= result.verified_bytes
    assert result.skipped_bytes is not None
    assert set(result.skipped_bytes.values()) == {0}
    assert result.isolated_blocks_max is not None
    assert result.isolated_blocks_max <= result.config.capacity
    assert result.vcpu_wait_host_s_max == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bursts": 2, "vcpus": 1},
        {"order": 4, "capacity": 3},
        {"backing": "hugetmpfs"},
        {"vcpus": 4, "seed": 9},
        {"capacity": 12, "verify_share": 0.5},
    ],
)
def test_what_a_burst_ate_comes_back(changes: dict[str, Any]) -> None:
    """After each burst the host is within 2 % of RAM of its floor, and everything discarded was verified.

    What is eaten and a full batch of 4 MiB blocks fit into RAM together, so no vCPU has to wait for the host.
    """
    result = run(**({"ram_bytes": 256 * MIB, "capacity": 8} | changes))
    is_right(result)
    assert len(result.bursts) == result.config.bursts
    for burst in result.bursts:
        assert burst.eaten_bytes > 191 * MIB
        assert burst.returned_bytes >= 0.95 * burst.eaten_bytes
        assert burst.return_lag_s is not None
    assert result.reports
    assert result.checked_bytes
    assert result.discarded_bytes
    assert result.checked_bytes == (result.discarded_bytes if result.config.verify_share == 1 else result.checked_bytes)
    assert result.checked_bytes <= result.discarded_bytes == result.reported_bytes
    if result.config.bursts > 1:
        assert result.refaulted_bytes
    assert result.kicks
    assert result.zone_lock_hold_s
    assert result.zone_lock_hold_s_max
    assert result.repeated_bytes is not None
    assert result.unreturned_bytes is not None
    assert result.return_lag_s_p50
    assert result.guest_cpu_s
    assert result.reporting_cpu_s
    assert result.reporting_cpu_s < result.guest_cpu_s
    assert result.host_cpu_s


def test_order_0_gives_everything_back() -> None:
    """With order 0 not even the fragments stay: the host keeps less than the guest still uses and a page or two.

    A pass may come while it eats; 2 blocks of 4 MiB and what is eaten fit into RAM together, so no vCPU has to wait.
    """
    result = run(order=0, capacity=2)
    is_right(result)
    assert result.samples.host_resident_bytes[-1] <= result.samples.guest_used_bytes[-1] + 64 * 1024


def test_a_run_ends_with_its_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its duration is until the guest is done, without the time that its process takes to end."""
    found_s: list[float] = []
    how_it_ended = LiveMachine._how_it_ended

    def note_the_time(machine: LiveMachine) -> str:
        found_s.append(time.monotonic())
        return how_it_ended(machine)

    monkeypatch.setattr(LiveMachine, "_how_it_ended", note_the_time)
    machine = LiveMachine(SMALL)
    result = machine.run(Watcher())
    start_s = machine._recorder._start_s
    assert start_s is not None
    assert 0 < result.duration_s <= found_s[0] - start_s


def test_without_reporting_the_host_keeps_everything() -> None:
    """The control: with design `off` nothing is reported, and the burst's memory never comes back."""
    result = run(design="off")
    is_right(result)
    assert result.reports == 0
    assert result.bursts[0].return_lag_s is None
    assert result.samples.host_resident_bytes[-1] >= 47 * MIB


@pytest.mark.alone
def test_linuxs_pace_takes_its_passes() -> None:
    """At Linux's pace memory comes back too, over passes that are the delay apart."""
    result = run(ram_bytes=256 * MIB, pace="linux", capacity=4, delay_s=0.05)
    is_right(result)
    # 48 blocks of 4 MiB: each pass reports ceil(nr_free / 64) + 1 = 2 batches of 4, so 6 passes at the least.
    (burst,) = result.bursts
    assert burst.return_lag_s is not None
    back_after_s = burst.free_end_s + burst.return_lag_s - burst.free_start_s
    assert 5 * 0.05 - 0.02 <= back_after_s <= burst.free_end_s - burst.free_start_s + 8 * 0.05 + 1.0


@pytest.mark.parametrize("design", ["scan", "notify"])
def test_a_burst_rests_though_the_timer_goes_on(design: str) -> None:
    """With the timer alone passes go on for ever, but a burst is over once one of them left nothing to do.

    A batch of two leaves the guest room to eat while it is out, however slow the machine.
    """
    result = run(capacity=2, design=design, wake="timer", delay_s=0.1)
    is_right(result)
    assert result.bursts[0].returned_bytes >= 0.9 * result.bursts[0].eaten_bytes
    assert result.duration_s < 30


@pytest.mark.parametrize(
    ("design", "share"),
    [
        ("cursor", 0.95),
        ("notify", 0.8),
        ("notify-array", 0.8),
        ("hybrid", 0.8),
        ("scan-restart", 0.95),
        ("sync", 0.6),
        ("shared", 0.98),
        ("balloon", 0.9),
    ],
)
def test_every_design_of_the_thread_returns_a_burst(design: str, share: float) -> None:
    """Each gives back what it does not leave below a threshold; only in `sync` a vCPU waits for the host."""
    result = run(ram_bytes=256 * MIB, capacity=8, design=design)
    assert result.outcome == "complete"
    assert result.stamp_errors == result.dropped_hints == result.false_ooms == 0
    assert result.checked_bytes
    assert result.checked_bytes == result.verified_bytes
    assert result.bursts[0].returned_bytes >= share * result.bursts[0].eaten_bytes
    assert (result.vcpu_waits_host or 0) > 0 if design == "sync" else result.vcpu_waits_host == 0


def test_our_guest_on_a_stock_qemu() -> None:
    """QEMU's device gives back what a burst ate; what it did is seen in its memory file alone, and it is not left."""
    result = run(ram_bytes=256 * MIB, capacity=8, device="qemu")
    assert result.outcome == "complete"
    assert result.stamp_errors == 0
    (burst,) = result.bursts
    assert burst.returned_bytes >= 0.95 * burst.eaten_bytes
    assert burst.return_lag_s is not None
    assert burst.verified_bytes is result.discarded_bytes is result.reports is None
    assert result.host_cpu_s is not None
    assert result.host_cpu_s > 0


def test_a_qemu_that_dies_ends_the_run_with_the_reason() -> None:
    """The guest notices, and the run says what happened."""

    def kill_qemu() -> None:
        next(child for child in psutil.Process().children() if "qemu" in child.name()).kill()

    result = run(Watcher(kill_qemu), ram_bytes=256 * MIB, capacity=8, device="qemu", hold_s=10.0)
    assert "the host closed the connection" in result.outcome or "QEMU" in result.outcome


@pytest.mark.alone
@pytest.mark.parametrize(("delay_s", "lag_s_max"), [(2.0, 3.0), (0.1, 1.0)])
def test_a_guest_of_the_default_size_is_back_in_time(delay_s: float, lag_s_max: float) -> None:
    """2 GiB, a burst of 75 %: within 3 s of the last free with the default delay, within 1 s with 0.1 s."""
    result = LiveMachine(RunConfig(bursts=1, delay_s=delay_s)).run(Watcher())
    is_right(result)
    (burst,) = result.bursts
    assert burst.return_lag_s is not None
    assert burst.return_lag_s <= lag_s_max
    assert burst.returned_bytes >= 0.98 * burst.eaten_bytes


@pytest.mark.usefixtures("time_to_end")
@pytest.mark.parametrize(
    ("victim", "other", "signal_"),
    [("host", "guest", signal.SIGKILL), ("guest", "host", signal.SIGKILL), ("host", "guest", signal.SIGSEGV)],
)
def test_when_one_process_dies_the_other_notices(victim: str, other: str, signal_: signal.Signals) -> None:
    """The sentence names who died and how, the other one ends by itself, and what was measured is there."""
    result = run(Watcher(kill(victim, signal_)), hold_s=5.0)
    assert result.outcome.startswith(f"the {victim}'s process was killed by {signal_.name}")
    assert result.outcome.endswith(f"the {other} noticed and ended")
    assert result.samples.t_s
    assert psutil.Process().children() == []


@pytest.mark.usefixtures("time_to_end")
def test_ctrl_c_ends_both_and_keeps_what_was_measured() -> None:
    """An interrupt in the middle stops both processes at once; samples and counters are there."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    result = run(Watcher(interrupt), hold_s=30.0)
    assert result.outcome == "interrupted"
    assert result.duration_s < 20
    assert result.peak_resident_bytes > 30 * MIB
    assert result.guest_cpu_s is not None
    assert psutil.Process().children() == []


def test_memory_in_use_that_is_discarded_is_noticed() -> None:
    """A hole punched into a page in use is a wrong stamp: the check can fail."""

    def punch() -> None:
        for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
            path = Path(f"/proc/self/fd/{fd}")
            if path.is_symlink() and "memfd:pagetide-guest" in str(path.readlink()):
                linux.punch_hole(int(fd), 32 * MIB, 4 * MIB)

    result = run(Watcher(punch, at_bytes=47 * MIB), hold_s=2.0)  # of 48: what is touched after it is right again
    assert result.outcome == "complete"
    assert result.stamp_errors
    assert result.stamp_errors > 100


def test_a_workload_that_does_not_fit_says_so() -> None:
    """A guest that runs out of memory ends with the reason; nothing is left running."""
    result = run(ram_bytes=16 * MIB, eat_share=0.99)
    assert result.outcome.startswith("the guest stopped: it ran out of memory: its workload needs more than it has;")
    assert psutil.Process().children() == []


def test_an_allocation_waits_for_isolated_blocks_before_it_fails() -> None:
    """A guest that eats while blocks are out for reporting gets them back instead of a false OOM."""
    result = run(ram_bytes=32 * MIB, eat_share=0.9, order=0, capacity=512, delay_s=0.0, bursts=3, hold_s=0.0)
    assert result.outcome == "complete"
    assert result.stamp_errors == 0


@pytest.mark.parametrize("device", ["pagetide", "qemu"])
def test_when_the_starting_process_is_killed_nothing_is_left(device: str) -> None:
    """Killed outright, the starting process takes both others with it, be one a QEMU."""
    script = (
        "import sys; from pagetide.machine.config import RunConfig; "
        "from pagetide.machine.live.machine import LiveMachine\n"
        "class Watcher:\n"
        "    def stage(self, text): print(text, flush=True)\n"
        "    def sample(self, sample): pass\n"
        "    def warning(self, text): pass\n"
        f"LiveMachine(RunConfig(ram_bytes=64 << 20, hold_s=60.0, delay_s=0.1, device={device!r})).run(Watcher())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        while "eating" not in starter.stdout.readline():
            assert starter.poll() is None
        children = psutil.Process(starter.pid).children()
        assert len(children) == 2
        starter.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
