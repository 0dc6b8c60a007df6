"""Who may come in: guests are accepted at their sockets as long as there are places, descriptors and an allowance."""

import logging
import socket
from collections.abc import Callable, Hashable

from pagetide.host.daemon.guest_sockets import UNCLOSED_MAX, GuestSocket, GuestSockets
from pagetide.host.daemon.guests import Left
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.listener import Listener
from pagetide.host.device.allowance import LISTENER_BURST_S
from pagetide.host.guest.fd_events import FdEvents
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.descriptor_share import descriptor_share
from pagetide.host.sharing.retries import Retries

GUESTS_MAX = 1024
"""Most guests at once; more wait to be accepted, and the last places are kept for sockets without a guest."""

_log = logging.getLogger(__name__)


class Reception:
    """Accepts guests.

    Attributes:
        sockets: where they connect.
    """

    sockets: GuestSockets

    def __init__(
        self,
        events: FdEvents,
        costs: Costs[Hashable],
        keeper: Keeper | None,
        *,
        admit: Callable[[socket.socket, GuestSocket], None],
        count: Callable[[], int],
    ) -> None:
        """Have no sockets.

        Args:
            events: where to watch them.
            costs: of which they are parties.
            keeper: where they are kept, if they are.
            admit: attaches a guest that has connected.
            count: how many are attached.
        """
        self._costs = costs
        self._keeper = keeper
        self._admit = admit
        self._count = count
        self._retries: Retries[GuestSocket] = Retries()
        self._unclosed: set[GuestSocket] = set()
        self.sockets = GuestSockets(
            events,
            on_guest=self._accept,
            on_made=lambda made: costs.enter(made, LISTENER_BURST_S),
            on_removed=self._forget,
            listen=Listener if keeper is None else keeper.listener,
            share=descriptor_share(),
        )

    def offer_places(self) -> None:
        """There are more guests or fewer: accept as many as there is room for."""
        self.sockets.offer(GUESTS_MAX - self._count())

    def left(self, left: Left) -> None:
        """A guest has gone: who comes back to its socket comes back to what was spent, and to a rest."""
        costs, origin = self._costs, left.origin
        let_go_s = costs.lap_s()  # at its own cost, too
        if origin is not None and costs.charge(origin, let_go_s):
            self.sockets.rest(origin)
        if origin is not None and left.held_until_s > max(costs.clock_s, costs.rests_until_s(origin)):
            costs.rest_until(origin, left.held_until_s)
            self.sockets.rest(origin)
        for starved in self._retries.failing:  # there is a place, and there are descriptors now
            costs.rest_until(starved, costs.clock_s)
        self.offer_places()

    def _accept(self, origin: GuestSocket) -> None:
        if origin.closer.open_count >= UNCLOSED_MAX:
            self._turn_away(origin)
            return
        try:
            sock = origin.accept()
        except OSError as error:
            if not self._retries.failing:
                _log.error("no more guests can be accepted for now, which is tried again: %s", error)
            self._try_later(origin)
            return
        self._unclosed.discard(origin)
        if self._retries.succeeded(origin) and not self._retries.failing:
            _log.info("guests can be accepted again")
        if sock is not None:
            self._admit(sock, origin)
            if self._costs.must_rest(origin):
                self.sockets.rest(origin)

    def _turn_away(self, origin: GuestSocket) -> None:
        """Accept nobody where earlier guests gave what cannot be closed, until it can."""
        if origin not in self._unclosed:
            self._unclosed.add(origin)
            _log.error(
                "%s: no more guests are accepted until the file system answers that serves what earlier ones gave: "
                "%d descriptors cannot be closed",
                origin.path,
                origin.closer.open_count,
            )
        self._try_later(origin)

    def _try_later(self, origin: GuestSocket) -> None:
        self.sockets.rest(origin)
        self._costs.rest_until(origin, self._costs.clock_s + self._retries.failed(origin))

    def _forget(self, sock: GuestSocket) -> None:
        self._retries.succeeded(sock)
        self._unclosed.discard(sock)
        self._costs.leave(sock)
        if self._keeper is not None:
            self._keeper.listens_no_more(sock.path)
