"""VMs whose disease only a newer Linux has: that of Debian 13, under QEMU."""

from pathlib import Path

import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import AMD64_TRIXIE
from pagetide.machine.linux.packages import GuestParts, QemuProgram, find_linux
from pagetide.operate.guest.text import read_guest_text
from tests.clinic.huge_user import start_huge_user
from tests.clinic.patient import FILL, FREE, MIB, Patient, qemu_patient
from tests.clinic.ward import assert_first, assert_promise, assert_size, examine
from tests.needed import lacking
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, pytest.mark.rare, real_guests(3)]

REPORTING = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]

SHORT_LISTS = "echo 1024 >/proc/sys/vm/percpu_pagelist_high_fraction"


@pytest.fixture(scope="module")
def newer_linux() -> GuestParts:
    """Linux 6.12."""
    try:
        return find_linux(architecture=AMD64_TRIXIE)
    except ConfigError as error:
        lacking(str(error))


def test_a_healthy_vm_with_a_newer_linux(installed: QemuProgram, newer_linux: GuestParts, tmp_path: Path) -> None:
    """Whose lists are as long as the kernel has them: what was used and given back has gone."""
    with qemu_patient(installed, newer_linux, tmp_path, REPORTING) as patient:
        patient.run(f"{FILL}; {FREE}")
        patient.settled_bytes()
        found = examine(patient, str(tmp_path / "qmp"))
        assert (found.findings, found.gaps) == ((), ())


def test_per_cpu_lists_that_were_made_long(installed: QemuProgram, newer_linux: GuestParts, tmp_path: Path) -> None:
    """Somebody let them have an eighth of the zone: what a process leaves stays there until they are cut."""
    with qemu_patient(installed, newer_linux, tmp_path, REPORTING, ram_mib=1024) as patient:
        patient.run("echo never >/sys/kernel/mm/transparent_hugepage/enabled")
        patient.run(SHORT_LISTS)
        patient.run(f"{FILL}; {FREE}")
        rest_bytes = patient.settled_bytes()
        patient.run("echo 8 >/proc/sys/vm/percpu_pagelist_high_fraction")
        patient.run("dd if=/dev/zero bs=300M count=1 2>/dev/null | cat >/dev/null")
        held_bytes = patient.settled_bytes()
        finding = assert_first(examine(patient, str(tmp_path / "qmp")), "per-cpu-lists", held_bytes - rest_bytes)
        patient.run(finding.remedies[0].command)
        assert_promise(finding, held_bytes - patient.settled_bytes())


ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"


def _partial_bytes(patient: Patient) -> int:
    return read_guest_text(patient.guest_text()).partial_bytes or 0


def test_huge_pages_of_which_processes_gave_back_a_half(
    installed: QemuProgram, newer_linux: GuestParts, tmp_path: Path
) -> None:
    """They stay whole until the kernel splits them; then the halves are free, and go at an order below theirs."""
    with qemu_patient(installed, newer_linux, tmp_path, REPORTING) as patient:
        patient.run(SHORT_LISTS)
        # What the remedy gives back besides, names of files and other small blocks, is not to be there any more.
        patient.run(f"echo 2 >/proc/sys/vm/drop_caches; echo 0 >{ORDER}")
        patient.settled_bytes()
        patient.run(f"echo 9 >{ORDER}")
        start_huge_user(patient, 100)
        patient.wait_until(lambda: _partial_bytes(patient) > 150 * MIB, limit_s=180)  # the kernel splits some of 200
        held_bytes = patient.settled_bytes()
        halves_bytes = _partial_bytes(patient) // 2
        finding = assert_first(examine(patient, str(tmp_path / "qmp")), "deferred-split", halves_bytes)
        patient.run(finding.remedies[0].command)
        came_back_bytes = held_bytes - patient.settled_bytes()
        assert finding.returns_bytes is None, "nobody knows how large the parts are"
        assert_size(finding, came_back_bytes)
