"""VMs that are being migrated or saved while they run, which QEMU does to their balloons, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pagetide.machine.linux.packages import GuestParts, QemuProgram
from tests.clinic.patient import FREE, MIB, Patient, fill_with_contents, monitor, qemu_patient
from tests.clinic.ward import assert_first, examine
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, pytest.mark.rare, real_guests(1)]

REPORTING = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
TAKEN_BYTES = 300 * MIB
SLOWLY = f"exec:while [ $(head -c {8 * MIB} | wc -c) -gt 0 ]; do sleep 1; done"


def tell(folder: Path, command: str, **arguments: Any) -> Any:
    """Have the QEMU of this folder do that."""
    qmp = monitor(folder)
    try:
        return qmp.ask(command, **arguments)
    finally:
        qmp.close()


def switch_on(folder: Path, capability: str) -> None:
    """One of what a migration can be."""
    tell(folder, "migrate-set-capabilities", capabilities=[{"capability": capability, "state": True}])


def status(folder: Path) -> str:
    """How far the migration is."""
    return str(tell(folder, "query-migrate").get("status"))


def take_and_give_back(patient: Patient, folder: Path) -> None:
    """The remedy: the balloon takes most of what is free, and gives it back."""
    for size_bytes in (patient.ram_bytes - TAKEN_BYTES, patient.ram_bytes):
        tell(folder, "balloon", value=size_bytes)
        patient.wait_until(partial(_has, folder, size_bytes))


def _has(folder: Path, size_bytes: int) -> bool:
    return bool(abs(tell(folder, "query-balloon")["actual"] - size_bytes) <= 4 * MIB)


def test_a_healthy_vm_that_is_saved(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """As every migration begins: its balloon goes on, and its private memory is none the larger for being read."""
    with qemu_patient(
        installed, linux, tmp_path, REPORTING, memory="memory-backend-ram,share=off", memory_file=""
    ) as patient:
        rest_bytes = patient.settled_bytes()
        patient.run("echo 5 >/sys/module/page_reporting/parameters/page_reporting_order")
        patient.run(fill_with_contents(120))
        tell(tmp_path, "migrate", uri=SLOWLY)
        patient.run(FREE)
        left_bytes = patient.settled_bytes(limit_s=20)
        found = examine(patient, str(tmp_path / "qmp"))
        assert status(tmp_path) == "active"
        assert found.findings == ()
        assert left_bytes - rest_bytes <= 16 * MIB


def test_memory_that_was_read_when_the_vm_was_saved(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """Whoever reads what was given back of shared memory has it held again; the balloon takes it."""
    with qemu_patient(installed, linux, tmp_path, REPORTING) as patient:
        rest_bytes = patient.settled_bytes()
        tell(tmp_path, "migrate", uri="exec:cat >/dev/null")
        patient.wait_until(lambda: status(tmp_path) == "completed")
        tell(tmp_path, "cont")  # who saves a VM may have it go on
        held_bytes = patient.settled_bytes(limit_s=20)
        finding = assert_first(examine(patient, str(tmp_path / "qmp")), "read-by-migration", held_bytes - rest_bytes)
        assert finding.remedies[0].command == "balloon SIZE"
        take_and_give_back(patient, tmp_path)
        assert held_bytes - patient.settled_bytes(limit_s=20) >= TAKEN_BYTES - 16 * MIB


def test_a_snapshot_of_a_vm_that_goes_on(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """QEMU makes all pages be there, and what the guest frees meanwhile is reported in vain."""
    with qemu_patient(installed, linux, tmp_path, REPORTING) as patient:
        rest_bytes = patient.settled_bytes()
        patient.run(fill_with_contents(120))
        switch_on(tmp_path, "background-snapshot")
        tell(tmp_path, "migrate", uri=SLOWLY)
        patient.run(FREE)
        held_bytes = patient.settled_bytes(limit_s=10)
        found = examine(patient, str(tmp_path / "qmp"))
        assert status(tmp_path) == "active"
        assert_first(found, "reporting-inhibited-by-migration", held_bytes - rest_bytes)
        patient.wait_until(lambda: status(tmp_path) == "completed", limit_s=120)
        take_and_give_back(patient, tmp_path)
        assert held_bytes - patient.settled_bytes(limit_s=20) >= TAKEN_BYTES - 16 * MIB


@contextmanager
def arrived(patient: Patient, qemu: QemuProgram, linux: GuestParts, folder: Path, there: Path) -> Iterator[Patient]:
    """The same VM in another QEMU, into which its pages still come (postcopy)."""
    incoming = ["-incoming", f"unix:{there / 'incoming'}"]
    with qemu_patient(qemu, linux, there, [*REPORTING, *incoming], boots=False) as other:
        for each in (folder, there):
            other.wait_until((each / "qmp").is_socket)
            switch_on(each, "postcopy-ram")
        tell(folder, "migrate-set-parameters", **{"max-bandwidth": 4 * MIB, "max-postcopy-bandwidth": 3 * MIB})
        tell(folder, "migrate", uri=f"unix:{there / 'incoming'}")
        patient.wait_until(lambda: status(folder) == "active")
        tell(folder, "migrate-start-postcopy")
        other.wait_until(lambda: status(there) == "postcopy-active")
        yield other


def test_a_vm_whose_pages_are_still_on_their_way(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """It runs where it is going to, and what it frees there is reported in vain.

    How much of what has come is free nobody knows before all has.
    """
    here, there = tmp_path / "here", tmp_path / "there"
    cause = "reporting-inhibited-by-migration"
    for each in (here, there):
        each.mkdir()
    with qemu_patient(installed, linux, here, REPORTING) as patient:
        rest_bytes = patient.settled_bytes()
        patient.run(fill_with_contents(120))
        with arrived(patient, installed, linux, here, there) as other:
            other.run(FREE)
            other.wait_until(lambda: other.held_bytes() >= rest_bytes + 40 * MIB)
            found = examine(other, str(there / "qmp"))
            while cause not in {finding.cause for finding in found.findings}:  # until enough of it has come
                assert status(there) == "postcopy-active"
                found = examine(other, str(there / "qmp"))
            assert status(there) == "postcopy-active"
