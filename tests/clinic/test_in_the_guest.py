"""VMs whose disease is what their guest does with its memory, beside those of the other files."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pagetide.machine.linux.kernel_modules import modules_to_load
from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.operate.balance import BELOW_ORDER
from pagetide.operate.guest.text import read_guest_text
from tests.clinic.patient import FILL, FREE, MIB, Daemon, monitor, qemu_patient, uml_patient
from tests.clinic.ward import assert_first, assert_promise, assert_size, examine, finding_of
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(2)]


def test_files_not_written_and_files_that_stay(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """100 MiB that wait to be written to a disk, and 80 MiB in a ramfs: each with its bytes and its remedy.

    At a low order, so that what is freed between pages that stay comes back, too.
    """
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 100 * MIB)
    with uml_patient(uml, tmp_path, daemon.socket, more=f"ubd0={disk}") as patient:
        patient.run("echo 3 >/sys/module/page_reporting/parameters/page_reporting_order")
        patient.run("for f in dirty_ratio dirty_background_ratio; do echo 90 >/proc/sys/vm/$f; done")
        patient.run("echo 0 >/proc/sys/vm/dirty_writeback_centisecs; mkdir /ram; mount -t ramfs none /ram")
        patient.run("dd if=/dev/zero of=/ram/file bs=1M count=80 2>/dev/null")
        patient.run("exec 5<>/dev/ubda; dd if=/dev/zero bs=1M count=100 >&5 2>/dev/null")
        held_bytes = patient.settled_bytes()
        found = examine(patient, control=daemon.control)
        dirty = assert_first(found, "page-cache-dirty", 100 * MIB)
        pinned = finding_of(found, "page-cache-pinned")
        assert_size(pinned, 80 * MIB)
        patient.run("rm /ram/file")
        after_bytes = patient.settled_bytes()
        assert_promise(pinned, held_bytes - after_bytes)
        patient.run(dirty.remedies[0].command)
        assert_promise(dirty, after_bytes - patient.settled_bytes())


@pytest.mark.rare
def test_a_zone_below_the_watermark_rule(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """So little is free that nothing of order 10 is reported; a lower order needs less. Small blocks are apart."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        patient.run("dd if=/dev/zero of=/mnt/kept bs=1M count=350 2>/dev/null")
        rest_bytes = patient.settled_bytes()
        small_bytes = examine(patient, control=daemon.control).balance.of(BELOW_ORDER)
        patient.run("dd if=/dev/zero of=/mnt/more bs=1M count=80 2>/dev/null; rm /mnt/more")
        held_bytes = patient.settled_bytes(limit_s=10)
        found = examine(patient, control=daemon.control)
        finding = finding_of(found, "below-watermark")
        assert_size(finding, held_bytes - rest_bytes - (found.balance.of(BELOW_ORDER) - small_bytes))
        patient.run(finding.remedies[0].command)
        patient.run("dd if=/dev/zero of=/mnt/more bs=1M count=8 2>/dev/null; rm /mnt/more")
        assert_promise(finding, held_bytes - patient.settled_bytes())


@pytest.mark.rare
def test_memory_in_use_and_taken_again(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """What comes back is taken again, three times; then a process keeps most of the guest."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        for _ in range(3):
            patient.run("dd if=/dev/zero of=/mnt/fill bs=1M count=380 2>/dev/null")
            daemon.ctl("show", "vm1")  # which looks for what was touched again
            patient.run(FREE)
            patient.settled_bytes()
        found = examine(patient, control=daemon.control)
        assert [finding.cause for finding in found.findings] == ["churn"]
        ledger = json.loads(daemon.ctl("show", "vm1", "--json"))["ledger"]
        assert ledger["refaulted_bytes"] >= 400 * MIB
        patient.run("dd if=/dev/zero bs=380M count=1 2>/dev/null | sleep 1000 &")
        patient.wait_until(lambda: read_guest_text(patient.guest_text()).memory("AnonPages") >= 380 * MIB)
        assert_first(examine(patient, control=daemon.control), "in-use", 380 * MIB)


@pytest.mark.rare
def test_a_guest_that_was_paused_is_told(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """What it reports waits; once it is resumed, all of it comes back."""
    with uml_patient(uml, tmp_path, daemon.socket) as patient:
        rest_bytes = patient.settled_bytes()
        daemon.ctl("pause", "vm1")
        patient.run(f"{FILL}; {FREE}")
        held_bytes = patient.settled_bytes(limit_s=8)
        found = examine(patient, control=daemon.control)
        finding = assert_first(found, "reporting-paused", held_bytes - rest_bytes)
        assert finding.remedies[0].command == "pagetide ctl resume GUEST"
        daemon.ctl("resume", "vm1")
        assert_promise(finding, held_bytes - patient.settled_bytes())


@pytest.mark.rare
def test_names_of_files_that_are_not_there(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """The kernel remembers 300 thousand names that it did not find, until it is told to forget them."""
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 16 * MIB)
    format_disk(disk)
    with uml_patient(uml, tmp_path, daemon.socket, more=f"ubd0={disk}") as patient:
        patient.run("mkdir /disk; mount -t ext4 /dev/ubda /disk")
        rest_bytes = patient.settled_bytes()
        patient.run("n=0; while [ $n -lt 300000 ]; do [ -e /disk/$n ]; n=$((n+1)); done")
        held_bytes = patient.settled_bytes()
        finding = finding_of(examine(patient, control=daemon.control), "slab-reclaimable")
        assert_size(finding, held_bytes - rest_bytes)
        patient.run(finding.remedies[0].command)
        assert read_guest_text(patient.guest_text()).memory("SReclaimable") < 20 * MIB


@pytest.mark.rare
def test_a_driver_that_is_missing(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """Nobody has taken the balloon; once a driver does, as modprobe has it do, what was promised comes back."""
    balloon = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
    driver = "/sys/bus/virtio/drivers/virtio_balloon"
    with qemu_patient(installed, linux, tmp_path, balloon) as patient:
        rest_bytes = patient.settled_bytes()
        patient.run(f"echo virtio0 >{driver}/unbind; {FILL}; {FREE}")
        held_bytes = patient.settled_bytes()
        finding = assert_first(examine(patient), "driver-missing", held_bytes - rest_bytes)
        patient.run(f"echo virtio0 >{driver}/bind")
        assert_promise(finding, held_bytes - patient.settled_bytes())


@pytest.mark.rare
def test_reporting_that_was_not_negotiated(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """The guest clears what it frees, and the device does not offer to know: no reports, until it boots otherwise."""
    balloon = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on,page-poison=off"]
    left_bytes = []
    for parameter in ("init_on_free=1", ""):
        with qemu_patient(installed, linux, tmp_path, balloon, append=parameter) as patient:
            patient.run(f"{FILL}; {FREE}")
            left_bytes.append(patient.settled_bytes())
            if parameter:
                found = examine(patient, str(tmp_path / "qmp"))
    finding = assert_first(found, "reporting-not-negotiated", left_bytes[0] - left_bytes[1])
    assert "init_on_free" in finding.remedies[0].command
    assert_promise(finding, left_bytes[0] - left_bytes[1])


@pytest.mark.rare
def test_memory_that_is_not_online(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """128 MiB were plugged in, and the guest has them only once they are online."""
    slots = ["-m", "512M,slots=2,maxmem=1G", "-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
    with qemu_patient(installed, linux, tmp_path, slots, append="memhp_default_state=offline") as patient:
        qmp = monitor(tmp_path)
        qmp.ask("object-add", **{"qom-type": "memory-backend-memfd", "id": "more", "size": 128 * MIB, "share": True})
        qmp.ask("device_add", driver="pc-dimm", id="dimm", memdev="more")
        qmp.close()
        patient.wait_until(lambda: bool(read_guest_text(patient.guest_text()).offline_bytes))
        before = read_guest_text(patient.guest_text())
        assert before.offline_bytes == 128 * MIB
        finding = finding_of(examine(patient, str(tmp_path / "qmp")), "memory-not-onlined")
        patient.run(finding.remedies[0].command)
        after = read_guest_text(patient.guest_text())
        assert (after.memory("MemTotal") - before.memory("MemTotal"), after.offline_bytes) == (128 * MIB, 0)


@pytest.mark.rare
def test_virtio_mem_that_is_not_unplugged(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """The guest is to give up 256 MiB, and cannot move a file of a ramfs that lies there, until it is gone.

    It has room for all else that lies there: of a guest without, the driver takes what is free to the last page, and
    nothing runs in it any more.
    """
    folder = linux.kernel.parent.parent / "lib" / "modules" / linux.release
    more = [each for each in modules_to_load(folder, ["virtio_mem"]) if each not in linux.modules]
    parts = linux._replace(modules=[*linux.modules, *more])
    devices = ["-m", "512M,slots=2,maxmem=1G", "-object", "memory-backend-memfd,id=m,size=256M,share=on"]
    devices += ["-device", "virtio-mem-pci,id=vm0,memdev=m", "-device", "virtio-balloon-pci,free-page-reporting=on"]
    with qemu_patient(installed, parts, tmp_path, devices, append="memhp_default_state=online_kernel") as patient:

        def wanted(size_bytes: int) -> None:
            qmp = monitor(tmp_path)
            qmp.ask("qom-set", path="/machine/peripheral/vm0", property="requested-size", value=size_bytes)
            qmp.close()

        def total_bytes() -> int:
            return read_guest_text(patient.guest_text()).memory("MemTotal")

        before_bytes = total_bytes()
        wanted(256 * MIB)
        patient.wait_until(lambda: total_bytes() - before_bytes >= 250 * MIB)
        patient.run("mkdir /ram; mount -t ramfs none /ram; dd if=/dev/zero of=/ram/file bs=1M count=200 2>/dev/null")
        wanted(0)
        patient.wait_until(lambda: total_bytes() - before_bytes <= 220 * MIB)
        finding = assert_first(examine(patient, str(tmp_path / "qmp")), "virtio-mem-not-unplugged", 200 * MIB)
        assert_size(finding, total_bytes() - before_bytes)
        patient.run(f"rm /ram/file; {finding.remedies[1].command}")
        for size_bytes in (4 * MIB, 0):  # or the driver rests for a minute before it tries again
            wanted(size_bytes)
        patient.wait_until(lambda: total_bytes() - before_bytes <= 24 * MIB)  # the kernel's own has come to lie there
        patient.settled_bytes()
        assert examine(patient, str(tmp_path / "qmp")).findings == ()


def test_a_healthy_vm_of_qemu_on_our_balloon(
    attachable: QemuProgram, linux: GuestParts, daemon: Daemon, tmp_path: Path
) -> None:
    """A newer QEMU with our device: nothing is wrong with it, and then a tmpfs is all that is."""
    device = "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16"
    balloon = ["-chardev", f"socket,id=c,path={daemon.socket}", "-device", device]
    with qemu_patient(attachable, linux, tmp_path, balloon) as patient:
        patient.run(f"{FILL}; {FREE}")
        patient.settled_bytes()
        found = examine(patient, str(tmp_path / "qmp"), daemon.control)
        assert (found.findings, found.gaps) == ((), ())
        patient.run(FILL)
        held_bytes = patient.settled_bytes()
        finding = assert_first(examine(patient, control=daemon.control), "tmpfs", 250 * MIB)
        patient.run(FREE)
        assert_promise(finding, held_bytes - patient.settled_bytes())


def format_disk(disk: Path) -> None:
    """An empty ext4."""
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk], check=True)
