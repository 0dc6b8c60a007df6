"""Front-ends that do what no real guest's does: they use up their allowance, lose their balloon, seal their memory."""

import fcntl
import os
import socket
import time
from collections.abc import Callable

from pagetide.virtio.split_ring.driver import AVAIL_ADDRESS
from soak.operators.timetable import GIVEN_UP, RESET, SEALED, THROTTLED, Fault
from soak.operators.yard import Actor, Injected, Yard
from tests.host.guest.served_guest import ServedGuest, wait_readable
from tests.host.guest_ring import RING_PAGES, SIZE

_PAGES = 256
_KICK_EVERY_S = 0.0005
_F_SEAL_FUTURE_WRITE = 0x10  # include/uapi/linux/fcntl.h
_RING_ENTRIES = 4  # bytes into an available ring (virtio 1.2, 2.7.6)


class Stranger(Actor):
    """A played guest with one fault, which leaves after it."""

    def __init__(self, injected: Injected, yard: Yard) -> None:
        """Do nothing yet."""
        super().__init__(injected.guest, yard)
        self.injected = injected

    def act(self) -> None:
        """Come, behave for a while, do what is wrong, and leave."""
        timetable = self.yard.timetable
        if not timetable.wait(self.injected.due_s - time.monotonic()):
            return
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.yard.socket(self.name)))
        with ServedGuest(sock, pages=_PAGES) as guest:
            guest.report([(RING_PAGES, 1)])
            self.yard.few_scrapes()
            with self.injected.going_on():
                _DEEDS[self.injected.fault](guest, self.yard)
            self.yard.count(self.injected.fault.name)


def _kick_in_vain(guest: ServedGuest, yard: Yard) -> None:
    end_s = time.monotonic() + yard.timetable.seconds(THROTTLED.lasts_min)
    while time.monotonic() < end_s and yard.timetable.wait(_KICK_EVERY_S):
        os.eventfd_write(guest.kick_fd, 1)


def _break_protocol(guest: ServedGuest, _: Yard) -> None:
    os.write(guest.channel.fileno(), b"\xff" * 12)
    wait_readable(guest.channel.fileno())


def _break_ring(guest: ServedGuest, yard: Yard) -> None:
    """Name a descriptor that there is not."""
    avail = int(guest.ring.driver.state[AVAIL_ADDRESS]) - guest.ring.ram.address
    place = (avail + _RING_ENTRIES) // 2 + 1  # the second entry: the first one was used in good order
    guest.ring.add([(RING_PAGES + 1, 1)])
    guest.ring.ram.words.view("u2")[place] = SIZE
    guest.ring.driver.publish()
    os.eventfd_write(guest.kick_fd, 1)
    wait_readable(guest.err_fd)
    yard.timetable.wait(yard.timetable.seconds(RESET.lasts_min))


def _seal(guest: ServedGuest, yard: Yard) -> None:
    fcntl.fcntl(guest.ring.ram.fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    guest.report([(RING_PAGES + 1, 1)])
    yard.few_scrapes()  # or who has left at once may never have been seen so


_DEEDS: dict[Fault, Callable[[ServedGuest, Yard], None]] = {
    THROTTLED: _kick_in_vain,
    GIVEN_UP: _break_protocol,
    RESET: _break_ring,
    SEALED: _seal,
}
