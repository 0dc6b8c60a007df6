"""The virtio-pci driver against a device that is played: what stock QEMU does at once, others may take time for."""

import pytest

from pagetide.virtio import pci as virtio_pci
from pagetide.virtio.balloon import Status
from pagetide.virtio.pci import PciError, VirtioPci

pytestmark = pytest.mark.jit  # no kernel is called

SLOT = 3
BAR = 4
CAPABILITIES = {0x40: (1, 0x0000, 0x54), 0x54: (2, 0x1000, 0x68), 0x68: (3, 0x2000, 0x7C), 0x7C: (4, 0x3000, 0)}
"""Of each vendor capability: its kind, the offset of its registers in the BAR, and where the next one is."""
STATUS = 0x14


class PlayedDevice:
    """A bus with one device on it, which needs some reads of its status to reset."""

    def __init__(self, reset_reads: int) -> None:
        self._reset_reads = reset_reads
        self._left = 0
        self._selected = 0
        self._status = 0
        self.written: list[int] = []

    def port_out(self, port: int, value: int) -> None:
        """Select a register of configuration space, or write to it."""
        if port == 0xCF8:
            self._selected = value & 0xFFFF

    def port_in(self, port: int) -> int:
        """Read the selected register."""
        slot, register = self._selected >> 11, self._selected & 0xFC
        if slot != SLOT:
            return 0xFFFF_FFFF
        for at, (kind, offset, after) in CAPABILITIES.items():
            if at <= register < at + 0x14:
                return {0: kind << 24 | after << 8 | 9, 4: BAR, 8: offset, 16: 4}.get(register - at, 0)
        return {0: 0x1045_1AF4, 0x34: 0x40}.get(register, 0)

    def write(self, address: int, value: int, size_bytes: int) -> None:
        """Write a register of the device."""
        if address & 0xFFFF == STATUS:
            self.written.append(value)
            self._left = self._reset_reads if value == 0 else 0
            self._status = value or self._status

    def write_at_once(self, *writes: tuple[int, int, int]) -> None:
        """Write several."""
        for each in writes:
            self.write(*each)

    def read(self, address: int, size_bytes: int) -> int:
        """Read a register of the device."""
        if address & 0xFFFF == STATUS:
            if self.written[-1] == 0 and self._left == 0:
                self._status = 0
            self._left = max(0, self._left - 1)
            return self._status
        return 0


def test_a_reset_is_waited_for() -> None:
    """Nothing is written to the status before it reads 0 (virtio 1.2, 4.1.4.3.2)."""
    device = PlayedDevice(reset_reads=5)
    pci = VirtioPci(device)
    pci.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK)
    pci.reset()
    assert pci.status == 0
    assert device.written == [7, 0]


def test_a_device_that_does_not_reset_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end."""
    monkeypatch.setattr(virtio_pci, "_RESET_READS_MAX", 3)
    pci = VirtioPci(PlayedDevice(reset_reads=5))
    pci.set_status(Status.ACKNOWLEDGE)
    with pytest.raises(PciError, match="does not reset"):
        pci.reset()
