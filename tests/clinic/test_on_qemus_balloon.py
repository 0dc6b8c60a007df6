"""VMs on QEMU's own balloon with one disease each, and a healthy one; with the installed QEMU and a newer one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.machine.qemu.qmp import Qmp, QmpError
from pagetide.operate.answer import answer
from pagetide.operate.gather import GatherError, gather
from tests.clinic.patient import FILL, FREE, MIB, Patient, monitor, qemu_patient
from tests.clinic.ward import NOWHERE, assert_first, assert_promise, assert_size, examine, finding_of
from tests.real_guests import real_guests

pytestmark = pytest.mark.slow

SILENT = ["-device", "virtio-balloon-pci,id=balloon"]
REPORTING = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
PLUG = {"driver": "virtio-balloon-pci", "id": "balloon0", "free-page-reporting": True}


class Healthy(NamedTuple):
    """A VM whose balloon reports.

    Attributes:
        patient: it; tests leave it as they found it.
        folder: where its monitor is.
    """

    patient: Patient
    folder: Path


@pytest.fixture(scope="module")
def healthy(qemu: QemuProgram, linux: GuestParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    """One of each QEMU, for all tests that can give it back healthy."""
    folder = tmp_path_factory.mktemp("vm")
    with qemu_patient(qemu, linux, folder, REPORTING) as patient:
        yield Healthy(patient, folder)


@contextmanager
def told(folder: Path) -> Iterator[Qmp]:
    """The monitor, for as long as it is talked to: it has one client at a time."""
    qmp = monitor(folder)
    try:
        yield qmp
    finally:
        qmp.close()


def plug_in(patient: Patient, folder: Path) -> None:
    """The remedy: a balloon that reports, plugged into the running VM."""
    deadline_s = time.monotonic() + 60
    with told(folder) as qmp:
        while True:
            try:
                qmp.ask("device_add", **PLUG)
                break
            except QmpError as error:  # the one before is gone only when QEMU has noticed it
                if "Only one balloon" not in str(error) or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
    while "driver" not in patient.run("sh /why.sh | grep -A1 '@pagetide balloons'"):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_a_healthy_vm_has_no_finding(healthy: Healthy) -> None:
    """After memory was used and given back, by the process and by the monitor."""
    patient = healthy.patient
    patient.run(f"{FILL}; {FREE}")
    patient.settled_bytes()
    assert examine(patient).findings == ()
    found = examine(patient, str(healthy.folder / "qmp"))
    assert found.findings == ()
    assert found.gaps == ()
    assert any("own statistics is " in note and "stays so" in note for note in found.notes)


@pytest.mark.parametrize("qemu", ["installed", pytest.param("newer", marks=real_guests(3))], indirect=True)
def test_a_guests_memory_is_known_by_its_backend(qemu: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """The monitor tells of private memory that has no name of its own, and so does the command line."""
    with qemu_patient(qemu, linux, tmp_path, REPORTING, memory="memory-backend-ram,share=off") as patient:
        seen, alone = gather(str(tmp_path / "qmp"), None, NOWHERE), gather(str(patient.pid), None, NOWHERE)
    assert (alone.vm.ram_is_guessed, seen.vm.ram_is_guessed) == (False, False)
    assert [part.size_bytes for part in alone.vm.ram] == [part.size_bytes for part in seen.vm.ram]
    (ram,) = seen.vm.ram
    assert (ram.kind, ram.is_shared, ram.size_bytes) == ("anonymous", False, 512 * MIB)
    assert seen.monitor is not None
    (backend,) = seen.monitor.backends
    assert (backend.size_bytes, backend.is_shared, backend.is_preallocated) == (512 * MIB, False, False)
    assert seen.monitor.statistics_interval_s == 0
    assert seen.monitor.migration is None


def test_without_a_balloon_one_is_plugged_in(qemu: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """There is no balloon device: once one is plugged in, what was promised comes back."""
    with qemu_patient(qemu, linux, tmp_path, []) as patient:
        patient.run(f"{FILL}; {FREE}")
        held_bytes = patient.held_bytes()
        finding = assert_first(examine(patient, str(tmp_path / "qmp")), "no-balloon-device", 250 * MIB)
        assert finding.returns_bytes is not None
        plug_in(patient, tmp_path)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_silent_balloon_and_a_tmpfs_are_both_found(qemu: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """Two diseases at once, each with its own bytes; then a balloon that offers reporting takes the other's place."""
    with qemu_patient(qemu, linux, tmp_path, SILENT) as patient:
        patient.run(f"{FILL}; dd if=/dev/zero of=/mnt/forgotten bs=1M count=100 2>/dev/null; {FREE}")
        held_bytes = patient.held_bytes()
        for vm in (str(patient.pid), str(tmp_path / "qmp")):
            found = examine(patient, vm)
            finding = assert_first(found, "reporting-not-offered", 250 * MIB)
            assert_size(finding_of(found, "tmpfs"), 100 * MIB)
        with told(tmp_path) as qmp:
            qmp.ask("device_del", id="balloon")
        patient.wait_until(lambda: "driver" not in patient.run("sh /why.sh | grep -A1 '@pagetide balloons'"))
        plug_in(patient, tmp_path)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_pool_of_huge_pages_is_found_and_given_up(healthy: Healthy) -> None:
    """60 huge pages that nobody uses, of memory that was in use before."""
    patient = healthy.patient
    patient.run(f"{FILL}; {FREE}; echo 120 >/proc/sys/vm/nr_hugepages")
    patient.settled_bytes()
    before_bytes = patient.held_bytes()
    finding = finding_of(examine(patient), "huge-page-pool")
    patient.run(finding.remedies[0].command)
    came_back_bytes = before_bytes - patient.settled_bytes()
    assert_size(finding, came_back_bytes)
    assert_promise(finding, came_back_bytes)


def test_an_inflated_balloon_is_found(healthy: Healthy) -> None:
    """Somebody took 150 MiB from the guest and forgot."""
    patient = healthy.patient
    patient.settled_bytes()
    with told(healthy.folder) as qmp:
        qmp.ask("balloon", value=362 * MIB)
        patient.wait_until(lambda: bool(qmp.ask("query-balloon")["actual"] <= 362 * MIB))
    assert_first(examine(patient), "balloon-inflated", 150 * MIB)
    with told(healthy.folder) as qmp:
        qmp.ask("balloon", value=512 * MIB)
    patient.wait_until(lambda: "balloon-inflated" not in {finding.cause for finding in examine(patient).findings})


@pytest.mark.rare
def test_a_vm_that_was_stopped_is_told(qemu: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """What it freed before that is not coming, until it goes on."""
    with qemu_patient(qemu, linux, tmp_path, REPORTING) as patient:
        patient.settled_bytes()
        rest_bytes = patient.held_bytes()
        patient.run(FILL)
        text = patient.text_right_after(FREE)
        with told(tmp_path) as qmp:
            qmp.ask("stop")
        held_bytes = patient.held_bytes()
        found = answer(gather(str(tmp_path / "qmp"), text, NOWHERE))
        finding = assert_first(found, "vm-stopped", held_bytes - rest_bytes)
        with told(tmp_path) as qmp:
            qmp.ask(finding.remedies[0].command)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def test_a_monitor_that_somebody_else_has_is_said(healthy: Healthy, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU greets one client at a time; the second waits a moment and says so, and the process id still works."""
    monkeypatch.setattr("pagetide.operate.host.monitor.ASK_MAX_S", 0.8)
    with told(healthy.folder) as qmp:
        qmp.ask("query-status")
        begin_s = time.monotonic()
        with pytest.raises(GatherError, match="one program at a time"):
            gather(str(healthy.folder / "qmp"), None, NOWHERE)
        assert time.monotonic() - begin_s < 15
        assert examine(healthy.patient).ram_bytes == healthy.patient.ram_bytes
