"""What every device that is put to the test can do, whoever made it."""

from typing import Protocol, Self

from pagetide.guest.driver.reporting import BalloonTransport
from pagetide.memory.guest_ram import GuestRam


class NotTestableError(Exception):
    """This device cannot be asked for that here; the message says why."""


class Probe(BalloonTransport, Protocol):
    """A driver's way to a device, with each step on its own."""

    @property
    def offered(self) -> int:
        """The features that the device offers."""

    @property
    def status(self) -> int:
        """The device status."""

    def accept(self, features: int) -> bool:
        """Reset the device and accept just these features, offered or not; whether the device goes along.

        Raises:
            NotTestableError: it takes what it did not offer, and would have no way to say no.
        """

    def set_status(self, status: int) -> None:
        """Write the device status."""

    def reset(self) -> None:
        """Reset the device (virtio 1.2, 2.4).

        Raises:
            NotTestableError: it cannot be reset without hanging up.
        """

    @property
    def queue_count(self) -> int | None:
        """How many queues there can be; None where a driver cannot ask."""

    def queue_size_max(self, index: int) -> int | None:
        """The largest size of a queue, 0 if there is none; None where a driver cannot ask."""

    def kick_and_reset(self, index: int) -> None:
        """Notify the device, and reset it before it can have dealt with that."""

    def take_config_notification(self) -> bool:
        """Whether the device has told of a changed configuration since this was asked.

        Raises:
            NotTestableError: it has no way to tell.
        """

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration."""


class DeviceUnderTest(Protocol):
    """A device, a driver's ways to it, and what its host can ask of it."""

    ram: GuestRam

    def connect(self) -> Probe:
        """A way to the device as a driver finds it that has just been reset."""

    def set_target_bytes(self, target_bytes: int) -> None:
        """Want the guest to make do with this much memory."""

    def ask_for_statistics(self) -> None:
        """Have the device ask for new statistics, within a second or so."""

    def statistics(self) -> dict[str, int]:
        """The guest's statistics as told last, by our names."""

    def begin_hinting(self) -> None:
        """Ask for a round of free page hints."""

    def pause(self, *, paused: bool) -> None:
        """Have reports wait, or go on."""

    def inhibit(self, *, inhibited: bool) -> None:
        """Have nothing discarded, or go on."""

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the device calls or is gone, at most this long; whether it has called since the last wait."""

    @property
    def broken(self) -> bool:
        """Whether the device has given this driver up until a reset, as far as it tells."""

    @property
    def tells_broken(self) -> bool:
        """Whether a device that gives a driver up has a way to tell that it must use."""

    def account(self) -> dict[str, int] | None:
        """What the device says that it did, by the ledger's names; None if it cannot say."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
