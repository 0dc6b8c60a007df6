"""Stock QEMU's balloon as a device for our own driver, which reaches it through virtio-pci over qtest."""

import os
from typing import Self

from pagetide.machine.qemu.process import QEMU, QemuError, QemuProcess
from pagetide.machine.qemu.qmp import Qmp
from pagetide.machine.qemu.qtest import Qtest, QtestError
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.pci import PciError, VirtioPci


class QemuDevice:
    """A running QEMU with one balloon.

    Attributes:
        ram: the machine's memory, mapped here; guest-physical address 0 is its first byte.
        pci: the balloon.
        pid: of QEMU.
        qmp: QEMU's monitor; the balloon is called `balloon0` there.
    """

    ram: GuestRam
    pci: VirtioPci
    pid: int
    qmp: Qmp

    def __init__(self, ram_bytes: int, *, properties: str = "free-page-reporting=on", program: str = QEMU) -> None:
        """Start QEMU and find its balloon; the arguments are those of QemuProcess.

        Raises:
            QemuError: it is not installed, or did not start.
        """
        self._process = QemuProcess(ram_bytes, properties=properties, program=program)
        self.pid, self.qmp = self._process.pid, self._process.qmp
        try:
            self.pci = VirtioPci(Qtest(self._process.qtest))
        except (QtestError, PciError) as error:
            self._process.close()
            raise QemuError(f"{program} has no balloon: {error}") from error
        self.ram = GuestRam.from_fd(os.dup(self._process.ram_fd), ram_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and let go of the memory."""
        self._process.close()
        self.ram.close()


class QemuLink:
    """The guest's way to a QEMU that another process started: a BalloonTransport with calls.

    A call is the device's PCI interrupt. qtest tells of it on the same socket on which commands are answered, so one
    thread at a time may use the link, and what was raised while a command was under way is not lost: whoever sleeps has
    looked into the used ring before.

    Attributes:
        call_fd: readable when the device calls.
        connection_fd: readable once QEMU has ended.
    """

    call_fd: int
    connection_fd: int

    def __init__(self, qtest: Qtest, pid: int) -> None:
        """Find the balloon.

        Raises:
            QtestError: QEMU has ended.
            PciError: there is no balloon.
        """
        self._qtest = qtest
        self._pci = VirtioPci(qtest)
        qtest.intercept_interrupts()
        self.call_fd = qtest.fileno()
        self.connection_fd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.connection_fd)
        self._qtest.close()

    def negotiate(self, wanted: int) -> int:
        """Reset the device, and agree on features; those that both sides have."""
        return self._pci.negotiate(wanted)

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Tell the device where a queue is, and enable it."""
        self._pci.start_queue(index, size, desc_gpa, avail_gpa, used_gpa)

    def driver_ok(self) -> None:
        """Say that the driver is ready."""
        self._pci.driver_ok()

    def kick(self, index: int) -> None:
        """Notify the device. An interrupt from before is taken back first, so that the next one is told of."""
        self._pci.acknowledge_interrupt()
        self._pci.kick(index)

    def take_call(self) -> None:
        """Take what made `call_fd` readable."""
        if self._qtest.take_interrupts():
            self._pci.acknowledge_interrupt()

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._pci.write_config(offset, value)
