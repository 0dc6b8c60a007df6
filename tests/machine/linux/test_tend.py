"""A guest whose reporting is tended: what comes back of memory that is free in single pages, and what is put back."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from pagetide.inside import tend_path
from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.linux.uml import UserModeLinux
from tests.machine.watcher import MIB, Watcher
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(1)]

SIEVED = BootConfig(ram_bytes=256 * MIB, fill_bytes=160 * MIB, bursts=1, hold_s=0.1, sieve=True)
"""Half of 160 MiB is removed, every other page of it; the kernel's own order."""

SETTINGS = {
    "sys/module/page_reporting/parameters/page_reporting_order": "9",
    "proc/sys/vm/percpu_pagelist_high_fraction": "0",
    "proc/sys/vm/compact_memory": "",
    "proc/stat": "cpu 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0",
    "proc/buddyinfo": "Node 0, zone Normal 8192 0 0 0 0 0 0 0 0 0 10",
    "proc/zoneinfo": "Node 0, zone Normal\n  pagesets\n    cpu: 0\n      count: 512\n      high: 1024",
    "proc/interrupts": "24: 5 PCI-MSI virtio0-reporting_vq",
}
"""Files of a guest with 32 MiB in single pages and 2 MiB on its per-CPU list."""


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
    assert returned[0] <= 20 * MIB
    assert returned[1] >= 60 * MIB


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A folder with the files of a guest."""
    for name, text in SETTINGS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "run").mkdir()
    return tmp_path


def tend(guest: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in this guest, for a moment at most."""
    environment = {**os.environ, "TEND_ROOT": str(guest)}
    return subprocess.run(
        ["timeout", "1.5", "sh", str(tend_path()), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def settings(guest: Path) -> dict[str, str]:
    """What the files hold."""
    return {name: (guest / name).read_text().rstrip("\n") for name in SETTINGS}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(guest: Path) -> None:
    """What is held, and each step."""
    done = tend(guest, "--dry-run")
    assert done.returncode == 0
    assert "32 MiB free in pieces below order 9 and 2 MiB on per-CPU lists" in done.stdout
    assert "would write 1 to /proc/sys/vm/compact_memory" in done.stdout
    assert settings(guest) == SETTINGS
    assert list((guest / "run").iterdir()) == []


def test_little_is_not_worth_it(guest: Path) -> None:
    """Below --worth nothing would be done."""
    done = tend(guest, "--dry-run", "--worth", "64")
    assert "nothing to do: 34 MiB" in done.stdout
    assert "would" not in done.stdout


def test_what_was_changed_before_a_kill_is_put_back_at_the_next_start(guest: Path) -> None:
    """The order and the limit of the per-CPU lists, as they were written down."""
    (guest / "sys/module/page_reporting/parameters/page_reporting_order").write_text("0\n")
    (guest / "proc/sys/vm/percpu_pagelist_high_fraction").write_text("1000000\n")
    (guest / "run/pagetide-tend").write_text("9 0\n")
    done = tend(guest)
    assert "tending a guest that reports from order 9" in done.stdout
    assert settings(guest) == SETTINGS
    assert list((guest / "run").iterdir()) == []


@pytest.mark.parametrize("order", ["-1", "4294967295 x"])
def test_a_guest_without_reporting_says_so(guest: Path, order: str) -> None:
    """No balloon that reports: one sentence, status 1."""
    (guest / "sys/module/page_reporting/parameters/page_reporting_order").write_text(order + "\n")
    done = tend(guest, "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing reports in this guest" in done.stderr


@pytest.mark.parametrize("arguments", [["--idle"], ["--worth", "x"], ["--ofter"]])
def test_wrong_options_are_one_sentence(guest: Path, arguments: list[str]) -> None:
    """Status 1, and nothing is done."""
    done = tend(guest, *arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
