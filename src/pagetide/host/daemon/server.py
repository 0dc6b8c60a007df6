"""The host: one loop that serves many guests, each over its own vhost-user connection.

Guests connect to a socket that the server listens on, or are handed over as connected sockets. What one of them does
wrong ends its own connection and nobody else's. The loop first takes what has come on any descriptor, then gives each
guest with elements waiting one bounded turn; while some have, it does not sleep. A guest that keeps the loop from its
work, with garbage in its rings or messages without end, rests for a while (allowance.py).
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pagetide.host.daemon.control import handle
from pagetide.host.daemon.control_socket import ControlSocket
from pagetide.host.daemon.guest_sockets import GuestSocket, GuestSockets
from pagetide.host.daemon.guests import OUR_ERROR, Guests, Standing
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.listener import Listener
from pagetide.host.daemon.parties import end_wait, go_on
from pagetide.host.daemon.reception import Reception
from pagetide.host.daemon.succession import Succession
from pagetide.host.device.balloon import FEATURES
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.wishes import Wishes
from pagetide.host.memory.guest_memory import SharedMemoryLimit
from pagetide.host.memory.ledger import Ledger
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.hold_ups import HoldUps
from pagetide.host.sharing.interruption import Interruption
from pagetide.host.sharing.patience import Patience

FINISH_MAX_S = 10.0
"""Longest time for `finish`; what is left then stays in the rings, not acknowledged."""

_log = logging.getLogger(__name__)


class Server:
    """Serves guests. Use as a context manager, or call `close`.

    Attributes:
        sockets: where guests connect.
        succession: what is done for a successor; None without a keeper.
    """

    sockets: GuestSockets
    succession: Succession | None

    def __init__(
        self,
        *,
        verify_share: float = 1.0,
        features: int = int(FEATURES),
        on_guest_gone: Callable[[AttachedGuest, str], None] | None = None,
        interruption: Interruption | None = None,
        hold_ups: HoldUps | None = None,
        keeper: Keeper | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start without guests.

        Args:
            verify_share: share of the elements whose discarding is read back, from 0 to 1.
            features: what to offer to drivers.
            on_guest_gone: called with each guest that has gone and a sentence why, after all it had is given back.
            interruption: ends calls that guests hold up; None for a server whose guests are trusted with that.
            hold_ups: notices guests that keep the loop waiting; the loop's thread must have the interpreter to itself,
                or waits for that count, too. None for nobody.
            keeper: where guests and sockets are kept for a successor; the server closes it.
            clock_ns: the time, for how long reports wait.
        """
        self._verify_share = verify_share
        self._features = features
        self._control: ControlSocket | None = None
        self._interruption = interruption  # it stays as long as the loop's step writes to its words
        self._clock_ns = clock_ns
        self._events = FdEvents(clock_ns, 0 if interruption is None else interruption.address)
        self._costs: Costs[Hashable] = Costs()
        self._patience: Patience[Hashable] = Patience()
        self._keeper = keeper
        self._reception = Reception(
            self._events, self._costs, keeper, admit=self._admit, count=lambda: len(self._guests)
        )
        self._guests = Guests(
            self._events,
            self._costs,
            self._patience,
            HoldUps(waits=None) if hold_ups is None else hold_ups,
            keeper,
            on_busy=(lambda: None) if interruption is None else interruption.busy,
            on_left=self._reception.left,
            on_gone=on_guest_gone,
            clock_s=self._now_s,
        )
        self.sockets = self._reception.sockets
        self.succession = None
        if keeper is not None:
            self.succession = Succession(keeper, self._guests, self._reception, self._events, self.adopt)
        self._pending = [*self._guests.pending, self._costs.resting, self._patience.waited_for]
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def guests(self) -> tuple[AttachedGuest, ...]:
        """Those attached now."""
        return tuple(self._guests)

    @property
    def guests_by_name(self) -> Sequence[AttachedGuest]:
        """The same, in the order of their names."""
        return self._guests.by_name

    def standing(self, guest: AttachedGuest) -> Standing:
        """How one of them stands with the loop."""
        return self._guests.standing(guest)

    def listen(self, path: str | os.PathLike[str]) -> None:
        """Accept guests at a socket of this path, as `GuestSockets.listen`.

        Raises:
            OSError: the path cannot be had, or somebody listens there, or what is wanted cannot be read.
        """
        self.sockets.listen(path)

    def listen_control(self, path: str | os.PathLike[str]) -> None:
        """Answer control requests at a socket of this path, which only this user may connect to.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        assert self._control is None, "one control socket"
        self._control = ControlSocket(
            Path(path),
            self._events,
            lambda line: handle(line, self),
            self._costs,
            Listener if self._keeper is None else self._keeper.control,
            patience=self._patience,
            clock_s=self._now_s,
        )
        self._pending.append(self._control.waiting)

    def wake_by(self, fd: int, action: Callable[[], None] = lambda: None) -> None:
        """End waiting in `run_once` whenever this descriptor is readable; the action may take what makes it so."""
        self._events.watch(fd, READABLE, action)

    def no_wake_by(self, fd: int) -> None:
        """Forget a descriptor of `wake_by`."""
        self._events.unwatch(fd)

    def request_statistics(self) -> None:
        """Ask every guest for new memory statistics, and begin to count what has come back of what was discarded."""
        self._costs.begin_round(self._events.take_passed_s())
        for guest in self.guests:
            self._guests.want_look(guest)
            self._guests.attempt(guest, guest.request_statistics)
        self._costs.end_round()

    def look_for_refaults(self, guest: AttachedGuest) -> None:
        """Count what has come back of what was discarded: a piece of its memory now, and the rest by and by."""
        self._guests.want_look(guest)
        self._guests.look(guest)

    def hand_over(self) -> None:
        """Note that the control client whose request this is asks for everything; `Succession.let_go` gives it.

        Raises:
            ValueError: as `Succession.hand_over`, or nothing is kept.
        """
        if self.succession is None:
            raise ValueError("this server keeps nothing")
        self.succession.hand_over(None if self._control is None else self._control.asking)

    def finish(self) -> None:
        """Serve what guests have put in their rings until now, for at most `FINISH_MAX_S`."""
        self._events.wait(0)  # kicks that have come
        self._costs.lap_s()
        self._guests.finish(FINISH_MAX_S)

    def adopt(
        self,
        sock: socket.socket,
        *,
        ledger: Ledger | None = None,
        name: str | None = None,
        wishes: Wishes | None = None,
        memory_limit: SharedMemoryLimit | None = None,
        keep: Keep | None = None,
        origin: GuestSocket | None = None,
    ) -> AttachedGuest:
        """Serve the guest at the other end of a connected socket, which is the server's from now on.

        Args:
            sock: a Unix stream socket.
            ledger: where to account for it, for example in shared memory; otherwise a new one.
            name: what it is called, followed by a number if another guest is called so.
            wishes: what the host wants of it, and where to note what it comes to want.
            memory_limit: how much memory it may share, maybe together with others.
            keep: where to keep it for a successor; the account is there then.
            origin: where it connected, if it was at one of the server's sockets; its wishes and limit hold, then.
        """
        if keep is not None:
            ledger = keep.ledger
        if origin is not None:
            wishes, memory_limit = origin.wishes, origin.memory_limit
        guest = AttachedGuest(
            self._guests.free_name(name or "guest", {sock.name for sock in self.sockets}),
            sock,
            Ledger() if ledger is None else ledger,
            self._events,
            self._guests.note_work,
            verify_share=self._verify_share,
            features=self._features,
            wishes=wishes,
            memory_limit=memory_limit,
            keep=keep,
            clock_ns=self._clock_ns,
        )
        self._guests.enter(guest, origin)
        wanted = "" if wishes is None else str(wishes)
        if keep is not None and keep.kept is not None:
            return guest
        _log.info("attached, and as it was left: %s" if wanted else "attached%s", wanted, extra={"guest": guest.name})
        return guest

    def run_once(self, timeout_s: float, *, linger: bool = False) -> None:
        """Wait until something happens, but at most this long (for ever if negative), and deal with it.

        Args:
            timeout_s: how long.
            linger: whether to go on for all of that time while nothing but kicks comes; for a caller whose signals make
                a descriptor of `wake_by` readable.
        """
        if any(self._pending):
            busy = self._guests.have_work or (self._control is not None and self._control.has_work)
            count = self._events.look(0.0 if busy else self._until_next_s(timeout_s))
        else:
            count = self._events.look(timeout_s, again=linger)
            if count == 0:
                return  # nothing came but kicks of queues that the step serves
        self._costs.begin_round(self._events.take_passed_s())
        self._events.act(count)  # before anything else may close what the look has found
        for rested in self._costs.take_rested():
            go_on(rested, self._guests, self.sockets, self._control)
        self._guests.turns()
        if self._control is not None and self._control.has_work:
            self._control.turn()
        self._guests.look_if_due()
        for party in self._patience.take_due(self._now_s()):
            end_wait(party, self._guests, self._control)
        self._costs.end_round()

    def run(self, stop_fd: int) -> None:
        """Serve until this descriptor is readable, or `stop` was called."""
        self._stopped = False
        self._events.watch(stop_fd, READABLE, self.stop)
        try:
            while not self._stopped:
                self.run_once(-1)
        finally:
            self._events.unwatch(stop_fd)

    def stop(self) -> None:
        """End `run` once what has come is dealt with; for `on_guest_gone`, say."""
        self._stopped = True

    def close(self) -> None:
        """Let all guests go and remove the sockets, or leave both to a service manager that holds them."""
        if self.succession is not None and self.succession.outlives:
            self.succession.let_go()
        for guest in self.guests:
            self._guests.release(guest)
        if self._control is not None:
            self._control.close()
        self.sockets.close()
        if self._keeper is not None:
            self._keeper.close()
        self._events.close()

    def _now_s(self) -> float:
        return self._clock_ns() / 1e9

    def _until_next_s(self, timeout_s: float) -> float:
        until_s = self._guests.until_look_s(self._costs.until_next_s(timeout_s))
        return self._patience.until_next_s(self._now_s(), until_s)

    def _admit(self, sock: socket.socket, origin: GuestSocket) -> None:
        """Serve a guest that has connected to a socket."""
        keep = None if self.succession is None else self.succession.begin(sock)
        try:
            guest = self.adopt(sock, name=origin.path.stem, keep=keep, origin=origin)
        except Exception:
            _log.exception(OUR_ERROR)
            if keep is not None:
                keep.close()
            sock.close()
            return
        if keep is not None and self.succession is not None:
            self.succession.keep(guest, keep)
        if guest in self._guests:
            self._reception.offer_places()
            self._guests.charge(guest, self._costs.lap_s())
