"""A driver's way to a modern virtio-pci device (virtio 1.2, 4.1), over any means to reach ports and memory.

Only what a machine without firmware needs: the device is found on bus 0, its memory BAR is placed by us, and
interrupts are the one line of PCI, without MSI-X.
"""

from typing import NamedTuple, Protocol

from pagetide.virtio.balloon import Status


class Bus(Protocol):
    """How the CPU reaches ports and memory; Qtest says what each does."""

    def port_out(self, port: int, value: int) -> None:
        """Write 32 bits to an I/O port."""

    def port_in(self, port: int) -> int:
        """Read 32 bits from an I/O port."""

    def write(self, address: int, value: int, size_bytes: int) -> None:
        """Write to guest-physical memory."""

    def write_at_once(self, *writes: tuple[int, int, int]) -> None:
        """Write (address, value, bytes), one right after the other."""

    def read(self, address: int, size_bytes: int) -> int:
        """Read from guest-physical memory."""


class PciError(Exception):
    """The device is not there, or not as virtio 1.2 wants it."""


VENDOR = 0x1AF4
BALLOON_IDS = (0x1002, 0x1045)
"""The balloon's device numbers, transitional and modern (virtio 1.2, 4.1.2.1)."""

_CONFIG_ADDRESS = 0xCF8
_CONFIG_DATA = 0xCFC
_COMMAND = 0x04
_COMMAND_MEMORY_MASTER = 0x6
_BARS = 0x10
_CAPABILITIES = 0x34
_BAR_ADDRESS = 0xE000_0000
_BAR_64BIT = 0x4
_VENDOR_CAPABILITY = 9

# struct virtio_pci_cap.cfg_type (4.1.4).
_COMMON, _NOTIFY, _ISR, _DEVICE = 1, 2, 3, 4
_RESET_READS_MAX = 10_000
_ISR_QUEUE = 0x1  # 4.1.4.5
_ISR_CONFIG_CHANGED = 0x2

# struct virtio_pci_common_cfg (4.1.4.3): offset and size of each field.
_DEVICE_FEATURE_SELECT = (0x00, 4)
_DEVICE_FEATURE = (0x04, 4)
_DRIVER_FEATURE_SELECT = (0x08, 4)
_DRIVER_FEATURE = (0x0C, 4)
_DEVICE_STATUS = (0x14, 1)
_QUEUE_SELECT = (0x16, 2)
_QUEUE_SIZE = (0x18, 2)
_QUEUE_ENABLE = (0x1C, 2)
_QUEUE_NOTIFY_OFF = (0x1E, 2)
_QUEUE_DESC = (0x20, 8)
_QUEUE_DRIVER = (0x28, 8)
_QUEUE_DEVICE = (0x30, 8)


class _Window(NamedTuple):
    """Where a capability's registers are, by guest-physical address."""

    address: int
    multiplier: int


class VirtioPci:
    """A balloon on a PCI bus: a BalloonTransport without calls."""

    def __init__(self, bus: Bus) -> None:
        """Find the device, place its memory and find its registers.

        Raises:
            PciError: there is no balloon, or it has no modern registers.
        """
        self._bus = bus
        self._slot = self._find()
        self._windows = self._map()
        self._notify_offsets: dict[int, int] = {}
        self._isr = 0  # what reading the ISR status has cleared, and nobody has asked for

    @property
    def offered(self) -> int:
        """The features that the device offers."""
        features = 0
        for half in range(2):
            self._put(_DEVICE_FEATURE_SELECT, half)
            features |= self._get(_DEVICE_FEATURE) << 32 * half
        return features

    def negotiate(self, wanted: int) -> int:
        """Reset the device, and agree on features; those that both sides have (3.1.1).

        Raises:
            PciError: the device does not accept them.
        """
        features = self.offered & wanted
        if not self.accept(features):
            raise PciError(f"the device does not accept the features {features:#x} (virtio 1.2, 3.1.1)")
        return features

    def accept(self, features: int) -> bool:
        """Reset the device and accept just these features, offered or not; whether it sets FEATURES_OK (3.1.1)."""
        self.reset()
        self.set_status(Status.ACKNOWLEDGE)
        self.set_status(Status.ACKNOWLEDGE | Status.DRIVER)
        for half in range(2):
            self._put(_DRIVER_FEATURE_SELECT, half)
            self._put(_DRIVER_FEATURE, features >> 32 * half & 0xFFFF_FFFF)
        self.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        return bool(self.status & Status.FEATURES_OK)

    def reset(self) -> None:
        """Reset the device (2.4), and wait until it has (4.1.4.3.2).

        Raises:
            PciError: it does not say that it has.
        """
        self.set_status(0)
        self._isr = 0
        for _ in range(_RESET_READS_MAX):
            if self.status == 0:
                return
        raise PciError("the device does not reset: its status is not 0 again (virtio 1.2, 4.1.4.3.2)")

    def set_status(self, status: int) -> None:
        """Write the device status."""
        self._put(_DEVICE_STATUS, status)

    @property
    def status(self) -> Status:
        """The device status."""
        return Status(self._get(_DEVICE_STATUS))

    @property
    def queue_count(self) -> None:
        """A driver asks for each queue's size instead."""

    def queue_size_max(self, index: int) -> int:
        """The largest size of a queue; 0 if there is none (4.1.4.3)."""
        self._put(_QUEUE_SELECT, index)
        return self._get(_QUEUE_SIZE)

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Tell the device where a queue is, and enable it (4.1.5.1.3).

        Raises:
            PciError: there is no such queue, or the device's is smaller.
        """
        size_max = self.queue_size_max(index)
        if size > size_max:
            raise PciError(f"queue {index} takes at most {size_max} descriptors, not {size}")
        self._put(_QUEUE_SIZE, size)
        self._put(_QUEUE_DESC, desc_gpa)
        self._put(_QUEUE_DRIVER, avail_gpa)
        self._put(_QUEUE_DEVICE, used_gpa)
        self._notify_offsets[index] = self._get(_QUEUE_NOTIFY_OFF)
        self._put(_QUEUE_ENABLE, 1)

    def driver_ok(self) -> None:
        """Say that the driver is ready."""
        self._put(_DEVICE_STATUS, self.status | Status.DRIVER_OK)

    def kick(self, index: int) -> None:
        """Notify the device that a queue has elements (4.1.5.2)."""
        window = self._windows[_NOTIFY]
        self._bus.write(window.address + self._notify_offsets[index] * window.multiplier, index, 2)

    def kick_and_reset(self, index: int) -> None:
        """Notify the device, and reset it before it does anything else."""
        window = self._windows[_NOTIFY]
        self._bus.write_at_once(
            (window.address + self._notify_offsets[index] * window.multiplier, index, 2),
            (self._windows[_COMMON].address + _DEVICE_STATUS[0], 0, _DEVICE_STATUS[1]),
        )

    def take_config_notification(self) -> bool:
        """Whether the device has told of a changed configuration since this was asked."""
        return self._take_isr(_ISR_CONFIG_CHANGED)

    def take_queue_notification(self) -> bool:
        """Whether the device has told of used buffers, in whatever queue, since this was asked."""
        return self._take_isr(_ISR_QUEUE)

    def _take_isr(self, bit: int) -> bool:
        self._isr |= self.acknowledge_interrupt()
        told, self._isr = bool(self._isr & bit), self._isr & ~bit
        return told

    def acknowledge_interrupt(self) -> int:
        """Read the ISR status, which takes the interrupt line back (4.1.4.5); what it said."""
        return self._bus.read(self._windows[_ISR].address, 1)

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration."""
        return self._bus.read(self._windows[_DEVICE].address + offset, 4)

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._bus.write(self._windows[_DEVICE].address + offset, value, 4)

    def _get(self, field: tuple[int, int]) -> int:
        offset, size_bytes = field
        base = self._windows[_COMMON].address + offset
        return sum(self._bus.read(base + at, min(size_bytes, 4)) << 8 * at for at in range(0, size_bytes, 4))

    def _put(self, field: tuple[int, int], value: int) -> None:
        """Write a register; those of 64 bits in two halves (4.1.3.1)."""
        offset, size_bytes = field
        base = self._windows[_COMMON].address + offset
        for at in range(0, size_bytes, 4):
            self._bus.write(base + at, value >> 8 * at & 0xFFFF_FFFF, min(size_bytes, 4))

    def _config_read(self, slot: int, register: int) -> int:
        self._bus.port_out(_CONFIG_ADDRESS, 1 << 31 | slot << 11 | register & 0xFC)
        return self._bus.port_in(_CONFIG_DATA)

    def _config_write(self, register: int, value: int) -> None:
        self._bus.port_out(_CONFIG_ADDRESS, 1 << 31 | self._slot << 11 | register & 0xFC)
        self._bus.port_out(_CONFIG_DATA, value)

    def _find(self) -> int:
        for slot in range(32):
            identity = self._config_read(slot, 0)
            if identity & 0xFFFF == VENDOR and identity >> 16 in BALLOON_IDS:
                return slot
        raise PciError("there is no virtio balloon on PCI bus 0")

    def _map(self) -> dict[int, _Window]:
        """Place each memory BAR that a capability names, switch memory and bus mastering on, and find the registers."""
        placed: dict[int, int] = {}
        windows: dict[int, _Window] = {}
        capability = self._config_read(self._slot, _CAPABILITIES) & 0xFC
        for _ in range(64):
            if capability == 0:
                break
            head = self._config_read(self._slot, capability)
            kind = head >> 24
            if head & 0xFF == _VENDOR_CAPABILITY and kind in (_COMMON, _NOTIFY, _ISR, _DEVICE):
                bar = self._config_read(self._slot, capability + 4) & 0xFF
                address = placed.setdefault(bar, _BAR_ADDRESS + 0x10_0000 * bar)
                offset = self._config_read(self._slot, capability + 8)
                multiplier = self._config_read(self._slot, capability + 16) if kind == _NOTIFY else 0
                windows.setdefault(kind, _Window(address + offset, multiplier))
            capability = head >> 8 & 0xFC
        if not {_COMMON, _NOTIFY, _ISR, _DEVICE} <= windows.keys():
            raise PciError("the device has no modern virtio registers (virtio 1.2, 4.1.4)")
        for bar, address in placed.items():
            is_64bit = self._config_read(self._slot, _BARS + 4 * bar) & _BAR_64BIT
            self._config_write(_BARS + 4 * bar, address)
            if is_64bit:
                self._config_write(_BARS + 4 * bar + 4, 0)
        self._config_write(_COMMAND, self._config_read(self._slot, _COMMAND) & 0xFFFF | _COMMAND_MEMORY_MASTER)
        return windows
