"""VMs on our own balloon with one disease each, and healthy ones: User-Mode Linux attached to `pagetide serve`."""

import json
import os
import time
from pathlib import Path

import pytest

from pagetide.machine.linux.packages import GuestParts
from pagetide.operate.guest.text import read_guest_text
from tests.clinic.patient import FREE, MIB, Daemon, fill, uml_patient
from tests.clinic.ward import assert_first, assert_promise, assert_size, examine, finding_of
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(1)]

FILL = fill(300)


def test_a_healthy_guest_has_no_finding(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """Just booted, after memory was used and given back, and while a process uses 200 MiB: nothing is wrong."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.settled_bytes()
        assert examine(patient, control=daemon.control).findings == ()
        patient.run(f"{FILL}; {FREE}")
        patient.settled_bytes()
        assert examine(patient, "vm1", daemon.control).findings == ()
        patient.run("dd if=/dev/zero bs=200M count=1 2>/dev/null | sleep 1000 &")
        deadline_s = time.monotonic() + 60
        while read_guest_text(patient.guest_text()).memory("AnonPages") < 200 * MIB:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        found = examine(patient, control=daemon.control)
        assert found.findings == ()
        assert abs(found.balance.of("used by processes") - 200 * MIB) < 8 * MIB
        assert found.gaps == ()


@pytest.mark.alone
def test_what_is_on_its_way_is_coming(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """Right after a large free, all of it is said to come, and it comes, in about the time that was said."""
    with uml_patient(uml, tmp_path, daemon.socket, ram_mib=1536) as patient:  # so that it takes longer than the look
        patient.run(f"{fill(1200)}; {FREE}")
        patient.settled_bytes()
        rest_bytes = patient.held_bytes()
        patient.run(f"{fill(1200)}; {FREE}")
        held_bytes = patient.held_bytes()
        coming = assert_first(examine(patient, control=daemon.control), "coming", held_bytes - rest_bytes)
        assert coming.remedies == ()
        assert coming.coming_s is not None
        left_bytes = patient.settled_bytes(limit_s=coming.coming_s + 10)
        assert_promise(coming, held_bytes - left_bytes)


def test_small_blocks_need_a_lower_order(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """Two of each 3 MiB are freed: order 10 returns none, a lower one what it promises; the tmpfs is found, too."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.run("for n in $(seq 300); do dd if=/dev/zero of=/mnt/$n bs=1M count=1 2>/dev/null; done")
        full_bytes = patient.settled_bytes()
        patient.run("for n in $(seq 300); do [ $((n % 3)) = 0 ] || rm /mnt/$n; done")
        held_bytes = patient.settled_bytes()
        found = examine(patient, control=daemon.control)
        finding = assert_first(found, "order-too-high", 200 * MIB - (full_bytes - held_bytes))
        assert_size(finding_of(found, "tmpfs"), 100 * MIB)
        patient.run(finding.remedies[0].command)
        patient.run("dd if=/dev/zero of=/mnt/fill bs=1M count=100 2>/dev/null; rm /mnt/fill")
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_page_cache_is_found_and_dropped(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """A disk of 250 MiB was read; the guest keeps what it read as long as somebody has the disk open."""
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 250 * MIB)
    with uml_patient(uml, tmp_path, daemon.socket, more=f"ubd0={disk}") as patient:
        rest_bytes = patient.settled_bytes()
        patient.run("exec 5</dev/ubda; dd of=/dev/null bs=1M <&5 2>/dev/null")
        held_bytes = patient.settled_bytes()
        finding = assert_first(examine(patient, control=daemon.control), "page-cache", held_bytes - rest_bytes)
        patient.run(finding.remedies[0].command)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_tmpfs_is_found_and_what_its_files_hold_comes_back(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """A file that was forgotten in a tmpfs, which no process shows."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.run(FILL)
        patient.settled_bytes()
        finding = assert_first(examine(patient, control=daemon.control), "tmpfs", 300 * MIB)
        held_bytes = patient.held_bytes()
        patient.run(FREE)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_guest_that_was_inhibited_is_told(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """Nothing is discarded, and the daemon says why; what was reported meanwhile is not promised."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.settled_bytes()
        daemon.ctl("inhibit", "vm1")
        rest_bytes = patient.held_bytes()
        patient.run(f"{FILL}; {FREE}")
        held_bytes = patient.settled_bytes(limit_s=15)
        finding = assert_first(examine(patient, control=daemon.control), "reporting-inhibited", held_bytes - rest_bytes)
        assert finding.returns_bytes is None


def test_a_balloon_that_was_inflated_is_found(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """A target of 300 MiB that somebody set: the guest lacks the rest, and has it again once that is taken back."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.settled_bytes()
        daemon.ctl("set", "vm1", "target=300MiB")
        balloon_bytes = json.loads(daemon.ctl("show", "vm1", "--json"))["ram_bytes"] - 300 * MIB
        patient.wait_until(lambda: json.loads(daemon.ctl("show", "vm1", "--json"))["balloon_bytes"] == balloon_bytes)
        found = examine(patient, control=daemon.control)
        free_bytes = read_guest_text(patient.guest_text()).memory("MemFree")
        finding = assert_first(found, "balloon-inflated", balloon_bytes)
        daemon.ctl("set", "vm1", "target=none")
        deadline_s = time.monotonic() + 30
        while json.loads(daemon.ctl("show", "vm1", "--json"))["balloon_bytes"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        now_bytes = read_guest_text(patient.guest_text()).memory("MemFree")
        assert finding.size_bytes is not None
        assert abs(now_bytes - free_bytes - finding.size_bytes) <= finding.size_bytes * 0.15


def test_without_a_balloon_nothing_comes_back(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """The same load twice: without a balloon device, and then started anew with one, as is advised."""
    with uml_patient(uml, tmp_path, None) as patient:
        rest_bytes = patient.settled_bytes()
        patient.run(f"{FILL}; {FREE}")
        held_bytes = patient.settled_bytes()
        finding = assert_first(examine(patient), "no-balloon-device", held_bytes - rest_bytes)
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.run(f"{FILL}; {FREE}")
        assert_promise(finding, held_bytes - patient.settled_bytes())
