"""A real Linux kernel attached to our host. Without the packages these tests fail: `make test` installs them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux import balloon_host
from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import LINUX_DELAY_S, BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.result import RunResult, Sample
from pagetide.memory.guest_ram import GuestRamError
from tests.machine.linux.guests import SMALL, folders_of_guests, gone, kill_guest, processes_of_guests, when_full
from tests.machine.watcher import MIB, Watcher
from tests.real_guests import real_guests

pytestmark = [pytest.mark.usefixtures("folder_for_guests"), pytest.mark.slow, real_guests(1)]


def run(uml: GuestParts, watcher: Watcher | None = None, **changes: Any) -> RunResult:
    """Run the small guest with these settings changed."""
    config = msgspec.structs.replace(SMALL, **changes)
    config.check()
    return LinuxMachine(config, UserModeLinux(uml), OwnHost(config)).run(watcher or Watcher())


def kill_kernel() -> None:
    """Kill the kernel's process."""
    kill_guest("linux.uml")


def host() -> psutil.Process:
    """Our host's process."""
    return next(each for each in psutil.Process().children() if "pagetide.machine.live.host_process" in each.cmdline())


def kill_host() -> None:
    """Kill our host's process."""
    host().kill()


def test_linux_gives_back_what_it_freed(uml: GuestParts) -> None:
    """At least 98 % of what the guest removed leaves the host each time, and every discarded byte is verified.

    The guest tells what it uses before it answers, so a lag does not end while the host holds all that was freed.
    """
    watcher = Watcher()
    result = run(uml, watcher, bursts=2)
    assert result.outcome == "complete"
    assert result.guest.startswith("Linux ")
    assert len(result.bursts) == 2
    at_s = np.array(result.samples.t_s)
    for burst in result.bursts:
        assert burst.eaten_bytes == 150 * MIB
        assert burst.returned_bytes >= 0.98 * burst.eaten_bytes
        assert burst.return_lag_s is not None
        freed, back = np.searchsorted(at_s, (burst.free_end_s, burst.free_end_s + burst.return_lag_s))
        assert result.samples.guest_used_bytes[freed] <= burst.eaten_bytes / 2
        assert result.samples.host_resident_bytes[back] <= burst.eaten_bytes / 2
    assert result.reported_bytes
    eaten_bytes = sum(burst.eaten_bytes for burst in result.bursts)
    assert result.returned_bytes is not None
    assert 0.98 * eaten_bytes <= result.returned_bytes <= eaten_bytes + 64 * MIB, "and not what was never touched"
    assert result.verified_bytes == result.checked_bytes == result.discarded_bytes == result.reported_bytes
    assert result.skipped_bytes is not None
    assert set(result.skipped_bytes.values()) == {0}
    assert result.config.order == 3
    assert result.guest_cpu_s
    assert result.host_cpu_s
    assert [result.isolated_blocks_max, result.stamp_errors, result.refaulted_bytes] == [None] * 3
    assert set(result.samples.reported_bytes) == {None}
    assert max(result.samples.guest_used_bytes) >= 150 * MIB
    assert min(result.samples.guest_used_bytes) <= 60 * MIB
    assert len(result.samples.t_s) >= 10 * result.duration_s, "asked for are 50 a second"
    assert np.median(np.diff(at_s)) <= 0.05, "and what was missed was missed in few places"
    assert watcher.stages[0] == f"booting Linux {uml.release} (User-Mode Linux)"
    assert "burst 2 of 2: freed, reporting" in watcher.stages
    assert gone(processes_of_guests)
    assert folders_of_guests() == []


def test_blocks_isolated_for_a_report_are_not_used(uml: GuestParts) -> None:
    """While a host is stopped with a report in flight the guest has less free memory, but uses no more."""

    class Stopper(Watcher):
        freed_s: float | None = None
        isolated_bytes = 0
        used_bytes_max = 0

        def stage(self, text: str) -> None:
            super().stage(text)
            if "freed" in text:
                host().suspend()

        def sample(self, sample: Sample) -> None:
            super().sample(sample)
            if self.stages[-1] != "burst 1 of 1: freed, reporting" or sample.guest_used_bytes > 100 * MIB:
                return  # still removing
            self.freed_s = self.freed_s or sample.t_s
            used_bytes = sample.guest_used_bytes
            self.used_bytes_max = max(self.used_bytes_max, used_bytes)
            self.isolated_bytes = max(self.isolated_bytes, SMALL.ram_bytes - used_bytes - sample.guest_free_bytes)
            if self.isolated_bytes >= 32 * MIB or sample.t_s >= self.freed_s + 10 * LINUX_DELAY_S:
                host().resume()

    stopper = Stopper()
    assert run(uml, stopper, order=10).outcome == "complete"  # a batch is as much as 32 blocks of 4 MiB
    assert stopper.isolated_bytes >= 32 * MIB
    assert stopper.used_bytes_max <= 60 * MIB


def test_the_kernels_own_order_is_told(uml: GuestParts) -> None:
    """Without an order the kernel keeps its own, User-Mode Linux's 10, and the result says so."""
    result = run(uml, order=None, fill_bytes=32 * MIB)
    assert result.outcome == "complete"
    assert result.config.order == 10


@pytest.mark.usefixtures("time_to_end")
def test_a_guest_that_is_killed_is_noticed(uml: GuestParts) -> None:
    """The sentence names the guest and the signal, the host ends by itself, and what was measured is there."""
    result = run(uml, when_full(kill_kernel), hold_s=30.0)
    assert result.outcome.startswith("the guest's process was killed by SIGKILL")
    assert result.outcome.endswith("the host noticed and ended")
    assert result.peak_resident_bytes > 140 * MIB
    assert gone(processes_of_guests)


def test_a_host_that_is_killed_is_noticed(uml: GuestParts) -> None:
    """The sentence names the host and the signal, and the guest is stopped."""
    result = run(uml, when_full(kill_host), hold_s=30.0)
    assert result.outcome.startswith("the host's process was killed by SIGKILL")
    assert result.outcome.endswith("the guest was stopped")
    assert gone(processes_of_guests)


@pytest.mark.usefixtures("time_to_end")
def test_ctrl_c_ends_all_and_keeps_what_was_measured(uml: GuestParts) -> None:
    """An interrupt in the middle of the hold stops guest and host at once."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    result = run(uml, when_full(interrupt), hold_s=30.0)
    assert result.outcome == "interrupted"
    assert result.duration_s < 20
    assert result.host_cpu_s is not None
    assert gone(processes_of_guests)
    assert folders_of_guests() == []


def test_ctrl_c_while_it_boots_ends_all(uml: GuestParts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt before anything was measured leaves an empty result and nothing else."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(balloon_host, "_accept", interrupt)  # it is waited there until the guest has its balloon
    result = run(uml, Watcher())
    assert result.outcome == "interrupted"
    assert result.bursts == []
    assert gone(processes_of_guests)
    assert folders_of_guests() == []


def test_when_the_starting_process_is_killed_nothing_is_left(uml: GuestParts) -> None:
    """Killed outright, it takes the host, the kernel, its helpers and its folder with it."""
    script = (
        "import sys; from pathlib import Path\n"
        "from pagetide.machine.linux.boot_config import BootConfig; "
        "from pagetide.machine.linux.packages import find_uml\n"
        "from pagetide.machine.linux.machine import LinuxMachine; "
        "from pagetide.machine.linux.balloon_host import OwnHost\n"
        "from pagetide.machine.linux.uml import UserModeLinux\n"
        "class Watcher:\n"
        "    def stage(self, text): print(text, flush=True)\n"
        "    def sample(self, sample): pass\n"
        "    def warning(self, text): pass\n"
        "config = BootConfig(ram_bytes=256 << 20, fill_bytes=64 << 20, hold_s=60.0)\n"
        "LinuxMachine(config, UserModeLinux(find_uml(Path(sys.argv[1]))), OwnHost(config)).run(Watcher())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, uml.kernel], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        while "eating" not in starter.stdout.readline():
            assert starter.poll() is None
        assert processes_of_guests() != []
        host = [each for each in psutil.Process(starter.pid).children() if "python" in each.name()]
        starter.kill()
    assert gone(processes_of_guests)
    assert gone(folders_of_guests)
    assert psutil.wait_procs(host, timeout=10)[1] == []


def test_a_guest_that_ends_before_it_attaches_is_a_sentence(uml: GuestParts, tmp_path: Path) -> None:
    """Its last words and status are in the error; nothing is left."""
    kernel = tmp_path / "linux.uml"
    kernel.write_text("#!/bin/sh\necho no memory for me\nexit 7\n")
    kernel.chmod(0o755)
    parts = GuestParts(kernel, "6.1", *uml[2:])
    expected = "the guest's process ended with status 7; its last words were: no memory for me"
    with pytest.raises(ChildProcessError, match=expected):
        LinuxMachine(SMALL, UserModeLinux(parts), OwnHost(SMALL)).run(Watcher())
    assert folders_of_guests() == []


def test_a_workload_that_the_guest_cannot_do_says_so(uml: GuestParts) -> None:
    """A file that does not fit ends the run with the guest's own words: its tmpfs is full, or it ran out of memory."""
    config = BootConfig(ram_bytes=64 * MIB, fill_bytes=63 * MIB, order=3)
    result = LinuxMachine(config, UserModeLinux(uml), OwnHost(config)).run(Watcher())
    assert "Kernel panic" in result.outcome or "could not be written" in result.outcome
    assert gone(processes_of_guests)


def test_no_room_for_its_memory_is_told_before(uml: GuestParts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that does not fit into /dev/shm is not started, since it would die in the middle."""
    space = os.statvfs("/dev/shm")
    small = os.statvfs_result([space.f_bsize, 4096, *list(space)[2:4], 16, *list(space)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    with pytest.raises(GuestRamError, match="256 MiB of guest RAM do not fit into /dev/shm"):
        run(uml)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ram_bytes": 32 * MIB}, "at least 64 MiB of RAM, not 32 MiB"),
        ({"fill_bytes": 0}, "has room for a file of 1 MiB to 218 MiB, not 0"),
        ({"fill_bytes": 250 * MIB}, "not 250 MiB"),
        ({"fill_bytes": MIB + 4096}, "a whole number of MiB"),
        ({"sieve": True, "build": True}, "not both"),
        ({"ram_bytes": 255 * MIB}, "multiple of 4 MiB"),
        ({"bursts": 0}, "at least 1 burst"),
        ({"order": 11}, "from 0 to 10, not 11"),
        ({"hold_s": -1.0}, "the hold must be"),
        ({"verify_share": 2.0}, "the share verified must be"),
    ],
)
def test_settings_that_cannot_be_are_sentences(changes: dict[str, Any], sentence: str) -> None:
    """Each setting out of its range is refused with what would do."""
    with pytest.raises(ConfigError, match=sentence):
        msgspec.structs.replace(SMALL, **changes).check()
