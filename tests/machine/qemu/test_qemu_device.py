"""Stock QEMU as a device: the guest's own driver reports to it, and what can be wrong is one sentence."""

import time

import pytest

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.machine.qemu.device import QemuDevice
from pagetide.machine.qemu.process import QemuError
from pagetide.memory.residency import resident_bytes, resident_ranges
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES, block_bytes
from pagetide.virtio.balloon import Feature
from pagetide.virtio.pci import PciError, VirtioPci
from tests.guest.reporting.batches import batch_of

RAM_BYTES = 64 << 20
WITHIN_S = 10.0


def test_our_driver_reports_to_qemu() -> None:
    """The blocks of a batch are gone from QEMU's memory once the driver sees the report completed, and nothing else."""
    with QemuDevice(RAM_BYTES) as qemu:
        qemu.ram.words[:: PAGE_SIZE_BYTES // 8] = 1
        zone = Zone(RAM_BYTES >> PAGE_SHIFT, watermarks=Watermarks(0, 0, 0))
        driver = BalloonDriver(zone, qemu.ram.address, qemu.pci, 32)
        assert driver.features & Feature.REPORTING
        before_bytes = resident_bytes(qemu.ram.fd)
        driver.submit(batch_of((4096, 9), (8192, 10)))
        deadline_s = time.monotonic() + WITHIN_S
        while not driver.completed():
            assert time.monotonic() < deadline_s, "QEMU did not answer"
        assert before_bytes - resident_bytes(qemu.ram.fd) == block_bytes(9) + block_bytes(10)
        assert list(resident_ranges(qemu.ram.fd, 0, RAM_BYTES)) == [
            (0, 16 << 20), (18 << 20, 32 << 20), (36 << 20, 64 << 20),
        ]  # fmt: skip


def test_a_qemu_that_is_missing_is_one_sentence() -> None:
    """Who has no QEMU is told what to install."""
    with pytest.raises(QemuError, match="apt-get install qemu-system-x86 seabios"):
        QemuDevice(RAM_BYTES, program="qemu-that-nobody-has")


def test_a_qemu_that_does_not_start_says_why() -> None:
    """QEMU's own last words are in the error, and nothing of it is left."""
    with pytest.raises(QemuError, match="no-such-property"):
        QemuDevice(RAM_BYTES, properties="no-such-property=on")


class NoDevices:
    """A bus with nothing on it."""

    def port_out(self, port: int, value: int) -> None:
        pass

    def port_in(self, port: int) -> int:
        return 0xFFFF_FFFF

    def write(self, address: int, value: int, size_bytes: int) -> None:
        raise AssertionError("there is nothing to write to")

    def write_at_once(self, *writes: tuple[int, int, int]) -> None:
        raise AssertionError("there is nothing to write to")

    def read(self, address: int, size_bytes: int) -> int:
        raise AssertionError("there is nothing to read from")


def test_a_bus_without_a_balloon_is_an_error() -> None:
    """A scan that finds no balloon says so, and touches no memory."""
    with pytest.raises(PciError, match="no virtio balloon"):
        VirtioPci(NoDevices())
