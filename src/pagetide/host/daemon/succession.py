"""What a server does for a successor of its process, and with what it has of a predecessor's."""

import functools
import logging
import select
import socket
from pathlib import Path
from typing import Protocol

from pagetide.host.daemon.guest_sockets import GuestSocket
from pagetide.host.daemon.guests import Guests
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.reception import Reception
from pagetide.host.device.allowance import WANTED, Use
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.keep import Keep


class Adopt(Protocol):
    """Attaches a guest."""

    def __call__(self, sock: socket.socket, /, *, name: str, keep: Keep, origin: GuestSocket | None) -> AttachedGuest:
        """By its connection, its name, where it is kept, and where it came from."""


_log = logging.getLogger(__name__)


class Succession:
    """Takes guests back, and lets them go as they are.

    Attributes:
        heir: the connection of one that has asked for everything, for `let_go`; the caller's to close.
    """

    heir: socket.socket | None

    def __init__(self, keeper: Keeper, guests: Guests, reception: Reception, events: FdEvents, adopt: Adopt) -> None:
        """Take nothing yet.

        Args:
            keeper: where guests and sockets are kept.
            guests: those who are attached.
            reception: where they came from.
            events: where to watch who is left.
            adopt: attaches one.
        """
        self.heir = None
        self._keeper = keeper
        self._guests = guests
        self._reception = reception
        self._events = events
        self._adopt = adopt

    @property
    def outlives(self) -> bool:
        """Whether a service manager holds the guests if this process ends."""
        return self._keeper.outlives

    @property
    def left_count(self) -> int:
        """How many guests are left as they are, for another release."""
        return len(self._keeper.left)

    def begin(self, sock: socket.socket) -> Keep | None:
        """Where a guest that has connected is kept; None if it cannot be."""
        return self._keeper.begin(sock.fileno())

    def keep(self, guest: AttachedGuest, keep: Keep) -> None:
        """Have a guest's first state kept."""
        self._guests.attempt(guest, functools.partial(_keep, guest, keep, self._keeper))

    def take_back(self) -> int:
        """Serve the guests that a predecessor's keeper has kept; how many there are.

        Raises:
            UnreadableStateError, OSError, GuestGoneError: one cannot be, and the keeper is strict.
        """
        keeps = self._keeper.take_guests()
        for keep in keeps:
            self._take(keep)
        for key, connection in self._keeper.left.items():
            self._events.watch(connection.fileno(), READABLE, functools.partial(self._end_left, key))
        self._reception.offer_places()
        return len(keeps)

    def hand_over(self, asking: socket.socket | None) -> None:
        """Note that a control client, by its connection, asks for everything.

        Raises:
            ValueError: that is for the service manager to do, or cannot be done.
        """
        if asking is None:
            raise ValueError("this server keeps nothing")
        if self._keeper.outlives:
            raise ValueError("a service manager runs it; have that restart it (systemctl restart)")
        if self.heir is not None:
            raise ValueError("another daemon is taking over")
        if any(guest.keep is None for guest in self._guests):
            raise ValueError("not all of its guests could be kept; its log says why")
        self.heir = asking.dup()

    def let_go(self) -> dict[str, list[int]]:
        """Let all guests go that are kept, as they are: what a successor needs, by name. `come_back` undoes that."""
        for guest in tuple(self._guests):
            if guest.keep is not None:
                self._guests.let_go(guest)
                self._keeper.let_go(guest.keep)
        return self._keeper.all_kept()

    def come_back(self) -> None:
        """Nobody took over what `let_go` gave: go on with it."""
        self._keeper.stay()
        self.take_back()

    def _end_left(self, key: str) -> None:
        """The front-end of a guest that was left has hung up, or waits for an answer from now on."""
        connection = self._keeper.left[key]
        self._events.unwatch(connection.fileno())
        if _has_hung_up(connection):
            _log.info("a guest that was left for another release has gone")
        else:
            _log.error("a guest that was left for another release is let go: its front-end waits for an answer")
        self._keeper.end_left(key)

    def _take(self, keep: Keep) -> None:
        assert keep.kept is not None
        path = None if keep.kept.socket is None else Path(keep.kept.socket)
        origin = self._reception.sockets.at(path)
        guest = self._adopt(socket.socket(fileno=keep.take_connection()), name=keep.kept.name, keep=keep, origin=origin)
        if self._keeper.strict:
            guest.restore()
        else:
            self._guests.attempt(guest, functools.partial(_restore, guest))
        if guest in self._guests:
            keep.close_rest()
            _log.info("taken over as it was", extra={"guest": guest.name})


def _restore(guest: AttachedGuest) -> Use:
    """Have it go on where a predecessor was."""
    guest.restore()
    return WANTED


def _keep(guest: AttachedGuest, keep: Keep, keeper: Keeper) -> Use:
    """Have its first state kept."""
    guest.keep_state()
    keeper.kept(keep)
    return WANTED


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the peer has; without a look at what it sent, for which the socket is not set (SO_PEEK_OFF)."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
