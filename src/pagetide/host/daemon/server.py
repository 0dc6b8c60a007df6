"""The host: one loop that serves many guests, each over its own vhost-user connection.

Guests connect to a socket that the server listens on, or are handed over as connected sockets. What one of them does
wrong ends its own connection and nobody else's. The loop first takes what has come on any descriptor, then gives each
guest with elements waiting one bounded turn; while some have, it does not sleep. A guest that keeps the loop from its
work, with garbage in its rings or messages without end, rests for a while (allowance.py).
"""

import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pagetide.foreign_fds import Closer
from pagetide.host.daemon.control import handle, refusal
from pagetide.host.daemon.control_socket import ControlClient, ControlSocket
from pagetide.host.daemon.guest_sockets import UNCLOSED_MAX, GuestSocket, GuestSockets
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.listener import Listener
from pagetide.host.device.allowance import GUEST_BURST_S, LISTENER_BURST_S, WANTED, Use
from pagetide.host.device.balloon import FEATURES
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.wishes import Wishes
from pagetide.host.memory.guest_memory import SharedMemoryLimit
from pagetide.host.memory.ledger import Ledger
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.descriptor_share import descriptor_share
from pagetide.host.sharing.hold_ups import HoldUps
from pagetide.host.sharing.patience import Patience
from pagetide.host.sharing.refault_looks import RefaultLooks
from pagetide.host.sharing.retries import Retries

FINISH_MAX_S = 10.0
"""Longest time for `finish`; what is left then stays in the rings, not acknowledged."""

GUESTS_MAX = 1024
"""Most guests at once; more wait to be accepted, and the last places are kept for sockets without a guest."""

_T = TypeVar("_T")
_OUR_ERROR = "an error in pagetide, please report it"

_HELD_UP = "kept everybody waiting for %.3f s by what is done to its memory file, and rests"

_log = logging.getLogger(__name__)


class Server:
    """Serves guests. Use as a context manager, or call `close`.

    Attributes:
        sockets: where guests connect.
        successor: the connection of one that has asked for everything, for `let_go`; the caller's to close.
    """

    sockets: GuestSockets
    successor: socket.socket | None

    def __init__(
        self,
        *,
        verify_share: float = 1.0,
        features: int = int(FEATURES),
        on_guest_gone: Callable[[AttachedGuest, str], None] | None = None,
        on_busy: Callable[[], None] = lambda: None,
        on_idle: Callable[[], None] = lambda: None,
        hold_ups: HoldUps | None = None,
        keeper: Keeper | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start without guests.

        Args:
            verify_share: share of the elements whose discarding is read back, from 0 to 1.
            features: what to offer to drivers.
            on_guest_gone: called with each guest that has gone and a sentence why, after all it had is given back.
            on_busy: called before anything is done for a guest.
            on_idle: called before the server sleeps.
            hold_ups: notices guests that keep the loop waiting; the loop's thread must have the interpreter to itself,
                or waits for that count, too. None for nobody.
            keeper: where guests and sockets are kept for a successor; the server closes it.
            clock_ns: the time, for how long reports wait.
        """
        self._verify_share = verify_share
        self._features = features
        self._control: ControlSocket | None = None
        self._on_guest_gone = on_guest_gone
        self._on_busy = on_busy
        self._on_idle = on_idle
        self._clock_ns = clock_ns
        self._events = FdEvents(clock_ns)
        self._looks: RefaultLooks[AttachedGuest] = RefaultLooks()
        self._costs: Costs[Hashable] = Costs()
        self._hold_ups = HoldUps(waits=lambda: None) if hold_ups is None else hold_ups
        self._retries: Retries[GuestSocket] = Retries()
        self._patience: Patience[Hashable] = Patience()
        self._unclosed: set[GuestSocket] = set()
        self.sockets = GuestSockets(
            self._events,
            on_guest=self._accept,
            on_made=lambda made: self._costs.enter(made, LISTENER_BURST_S),
            on_removed=self._forget_socket,
            listen=self._listen,
            share=descriptor_share(),
        )
        self._closer = Closer()  # of guests that came otherwise
        self._keeper = keeper
        self.successor: socket.socket | None = None
        self._guests: dict[AttachedGuest, GuestSocket | None] = {}  # and where it came from
        self._working: dict[AttachedGuest, None] = {}  # a set that keeps its order
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
            self._obey,
            self._costs,
            self._listen_control,
            patience=self._patience,
            clock_s=self._now_s,
        )

    def wake_by(self, fd: int) -> None:
        """End waiting in `run_once` whenever this descriptor is readable."""
        self._events.watch(fd, READABLE, lambda: None)

    def no_wake_by(self, fd: int) -> None:
        """Forget a descriptor of `wake_by`."""
        self._events.unwatch(fd)

    def request_statistics(self) -> None:
        """Ask every guest for new memory statistics, and begin to count what has come back of what was discarded."""
        for guest in self.guests:
            self._looks.want(guest)
            self._attempt(guest, guest.request_statistics)

    def look_for_refaults(self, guest: AttachedGuest) -> None:
        """Count what has come back of what was discarded: a piece of its memory now, and the rest by and by."""
        self._looks.want(guest)
        self._look(guest)

    def finish(self) -> None:
        """Serve what guests have put in their rings until now, for at most `FINISH_MAX_S`."""
        self._costs.lap_s()
        self._events.wait(0)  # kicks that have come
        for guest in self.guests:
            self._fenced(guest, guest.finish)
        end_s = self._now_s() + FINISH_MAX_S
        while turns := tuple(guest for guest in self._guests if guest.has_work):
            if self._now_s() > end_s:
                names = ", ".join(guest.name for guest in turns)
                _log.warning("not all is served after %g s, and is left in the rings of %s", FINISH_MAX_S, names)
                return
            for guest in turns:
                self._attempt(guest, guest.turn)

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
            origin: where it connected, if it was at one of the server's sockets.
        """
        if keep is not None:
            ledger = keep.ledger
        guest = AttachedGuest(
            self._free_name(name or "guest"),
            sock,
            Ledger() if ledger is None else ledger,
            self._events,
            self._note_work,
            verify_share=self._verify_share,
            features=self._features,
            wishes=wishes,
            memory_limit=memory_limit,
            keep=keep,
            clock_ns=self._clock_ns,
        )
        self._events.watch(guest.fileno(), READABLE, functools.partial(self._talk, guest))
        self._costs.enter(guest, GUEST_BURST_S, at=origin)
        self._guests[guest] = origin
        if origin is not None:
            origin.attached.append(guest.name)
        wanted = "" if wishes is None else str(wishes)
        if keep is not None and keep.kept is not None:
            return guest
        _log.info("attached, and as it was left: %s" if wanted else "attached%s", wanted, extra={"guest": guest.name})
        return guest

    def take_back(self) -> int:
        """Serve the guests that a predecessor's keeper has kept; how many there are.

        Raises:
            UnreadableStateError, OSError, GuestGoneError: one cannot be, and the keeper is strict.
        """
        assert self._keeper is not None
        keeps = self._keeper.take_guests()
        for keep in keeps:
            assert keep.kept is not None
            path = None if keep.kept.socket is None else Path(keep.kept.socket)
            origin = self.sockets.at(path)
            guest = self.adopt(
                socket.socket(fileno=keep.take_connection()),
                name=keep.kept.name,
                wishes=origin.wishes if origin else None,
                memory_limit=origin.memory_limit if origin else None,
                keep=keep,
                origin=origin,
            )
            if self._keeper.strict:
                guest.restore()
            else:
                self._attempt(guest, functools.partial(_restore, guest))
            if guest in self._guests:
                keep.close_rest()
                _log.info("taken over as it was", extra={"guest": guest.name})
        self._offer_places()
        return len(keeps)

    @property
    def keeps_guests(self) -> bool:
        """Whether a service manager holds the guests if this process ends."""
        return self._keeper is not None and self._keeper.outlives

    def hand_over(self) -> None:
        """Note that the control client whose request this is asks for everything: `successor` is its connection.

        Raises:
            ValueError: that is for the service manager to do, or cannot be done.
        """
        if self._keeper is None or self._control is None or self._control.asking is None:
            raise ValueError("this server keeps nothing")
        if self._keeper.outlives:
            raise ValueError("a service manager runs it; have that restart it (systemctl restart)")
        if self.successor is not None:
            raise ValueError("another daemon is taking over")
        if any(guest.keep is None for guest in self._guests):
            raise ValueError("not all of its guests could be kept; its log says why")
        self.successor = self._control.asking.dup()

    def let_go(self) -> dict[str, list[int]]:
        """Let all guests go that are kept, as they are: what a successor needs, by name. `come_back` undoes that."""
        assert self._keeper is not None
        for guest in self.guests:
            if guest.keep is not None:
                self._events.unwatch(guest.fileno())
                guest.let_go()
                self._forget(guest)
                self._keeper.let_go(guest.keep)
        return self._keeper.all_kept()

    def come_back(self) -> None:
        """Nobody took over what `let_go` gave: go on with it."""
        assert self._keeper is not None
        self._keeper.stay()
        self.take_back()

    def run_once(self, timeout_s: float) -> None:
        """Wait until something happens, but at most this long (for ever if negative), and deal with it."""
        self._costs.begin_round()
        for rested in self._costs.take_rested():
            self._go_on(rested)
        self._on_idle()
        busy = self._working or (self._control is not None and self._control.has_work)
        slept_s = self._events.wait(0 if busy else self._until_next_s(timeout_s))
        turns, self._working = self._working, {}
        for guest in turns:
            if guest.has_work:
                self._attempt(guest, guest.turn)
                if guest.has_work:
                    self._note_work(guest)
        if self._control is not None and self._control.has_work:
            self._control.turn()
        if not turns:
            self._costs.lap_s()
        due = self._looks.take_due(self._now_s())
        if due is not None:
            self._look(due)
        for party in self._patience.take_due(self._now_s()):
            self._end_wait(party)
        self._costs.end_round(slept_s)

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
        if self.keeps_guests:
            self.let_go()
        for guest in self.guests:
            self._release(guest)
        if self._control is not None:
            self._control.close()
        self.sockets.close()
        if self._keeper is not None:
            self._keeper.close()
        self._events.close()

    def _now_s(self) -> float:
        return self._clock_ns() / 1e9

    def _until_next_s(self, timeout_s: float) -> float:
        now_s = self._now_s()
        until_s = self._costs.until_next_s(timeout_s)
        return self._patience.until_next_s(now_s, self._looks.until_next_s(now_s, until_s))

    def _look(self, guest: AttachedGuest) -> None:
        """Look at a piece of a guest's memory."""
        start_s = self._now_s()
        self._attempt(guest, guest.look_for_refaults)
        self._looks.looked(guest, start_s, self._now_s(), more=guest.looking)

    def _free_name(self, wanted: str) -> str:
        """A name that neither a guest has nor another socket's guest will have."""
        taken = {guest.name for guest in self._guests} | ({sock.name for sock in self.sockets} - {wanted})
        names = (f"{wanted}-{number}" if number > 1 else wanted for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def _note_work(self, guest: AttachedGuest) -> None:
        if guest in self._guests:
            self._working[guest] = None

    def _talk(self, guest: AttachedGuest) -> None:
        """Take a guest's messages, and note whether it keeps its connection from going on."""
        self._attempt(guest, guest.talk)
        self._patience.note(guest, guest.waits_since_s if guest in self._guests else None)

    def _end_wait(self, party: Hashable) -> None:
        """Somebody was waited for long enough."""
        if isinstance(party, AttachedGuest):
            self._attempt(party, party.end_wait)
        elif isinstance(party, ControlClient) and self._control is not None:
            self._control.end_wait(party)

    def _attempt(self, guest: AttachedGuest, action: Callable[[], Use]) -> None:
        """Do something for a guest, if it is attached still, at its cost as far as that was in vain."""
        if guest not in self._guests:
            return
        self._on_busy()
        self._hold_ups.begin(guest)
        use = self._fenced(guest, action)
        if use is None:
            return
        used_s = self._costs.lap_s()
        held_s = self._hold_ups.end(guest, used_s)
        if held_s and guest.memory_is_ram and self._costs.hold_up(guest, held_s):
            _log.warning(_HELD_UP, held_s, extra={"guest": guest.name})
            self._rest(guest)
        if guest in self._guests and self._costs.account(guest, use, used_s):
            self._rest(guest)

    def _fenced(self, guest: AttachedGuest, action: Callable[[], _T]) -> _T | None:
        """Do something for a guest: what the action says, or None if it raised something and the guest is given up.

        All that is done for a guest goes through here, so that a mistake of ours costs that guest its connection, and
        the others nothing.
        """
        origin = self._guests.get(guest)
        try:
            with self._closer if origin is None else origin.closer:
                return action()
        except GuestGoneError as error:
            reason, held_up_s = str(error), error.held_up_s
        except Exception as error:
            _log.exception(_OUR_ERROR, extra={"guest": guest.name})
            reason, held_up_s = f"an error in pagetide: {error!r}", 0.0
        self._costs.charge(guest, self._costs.lap_s() + held_up_s)
        self._give_up(guest, reason)
        return None

    def _give_up(self, guest: AttachedGuest, reason: str) -> None:
        level = logging.INFO if reason == "disconnected" else logging.ERROR
        _log.log(level, "%s", reason, extra={"guest": guest.name})
        self._release(guest)
        if self._on_guest_gone is not None:
            self._on_guest_gone(guest, reason)

    def _obey(self, line: bytes) -> bytes:
        """Answer a control request."""
        try:
            return handle(line, self)
        except Exception as error:
            _log.exception(_OUR_ERROR)
            return refusal(f"an error in pagetide, please report it: {error!r}")

    def _charge(self, guest: AttachedGuest, used_s: float) -> None:
        """Charge a guest with what it used in vain; if its allowance is used up, it rests."""
        if self._costs.charge(guest, used_s):
            self._rest(guest)

    def _rest(self, guest: AttachedGuest) -> None:
        self._fenced(guest, guest.rest)
        self._working.pop(guest, None)

    def _go_on(self, rested: Hashable) -> None:
        """Hear somebody again whose rest is over."""
        match rested:
            case GuestSocket():
                self.sockets.go_on(rested)
            case ControlSocket():
                rested.listen()
            case ControlClient():
                assert self._control is not None, "it is one of its clients"
                self._control.attend(rested)
            case AttachedGuest():
                talk = functools.partial(self._talk, rested)
                self._fenced(rested, functools.partial(rested.go_on, talk))
                talk()

    def _release(self, guest: AttachedGuest) -> None:
        held_until_s = self._held_until_s(guest)
        origin, allowed_s = self._forget(guest)
        try:
            guest.log_account()
            self._events.unwatch(guest.fileno())
            with self._closer if origin is None else origin.closer:
                guest.close()
        except Exception:  # it has gone all the same
            _log.exception(_OUR_ERROR, extra={"guest": guest.name})
        if guest.keep is not None and self._keeper is not None:
            self._keeper.end(guest.keep)
        spent_s = allowed_s + self._costs.lap_s()  # to let it go is at its own cost, too
        if origin is not None and self._costs.charge(origin, spent_s):
            self.sockets.rest(origin)
        if origin is not None and held_until_s > max(self._costs.clock_s, self._costs.rests_until_s(origin)):
            self._costs.rest_until(origin, held_until_s)  # who leaves does not leave its rest behind
            self.sockets.rest(origin)
        for starved in self._retries.failing:  # there is a place, and there are descriptors now
            self._costs.rest_until(starved, self._costs.clock_s)
        self._offer_places()

    def _held_until_s(self, guest: AttachedGuest) -> float:
        """Until when a guest rests that kept everybody waiting; 0 if it did not."""
        return self._costs.rests_until_s(guest) if self._hold_ups.is_suspect(guest) else 0.0

    def _forget(self, guest: AttachedGuest) -> tuple[GuestSocket | None, float]:
        """It is attached no more: where it came from, and what it has spent in vain."""
        self._working.pop(guest, None)
        self._looks.forget(guest)
        self._patience.note(guest, None)
        self._hold_ups.forget(guest)
        origin = self._guests.pop(guest)
        if origin is not None:
            origin.attached.remove(guest.name)
        return origin, self._costs.leave(guest)

    def _listen(self, path: Path) -> Listener:
        return Listener(path) if self._keeper is None else self._keeper.listener(path)

    def _listen_control(self, path: Path) -> Listener:
        return Listener(path) if self._keeper is None else self._keeper.control(path)

    def _forget_socket(self, sock: GuestSocket) -> None:
        self._retries.succeeded(sock)
        self._unclosed.discard(sock)
        self._costs.leave(sock)
        if self._keeper is not None:
            self._keeper.listens_no_more(sock.path)

    def _accept(self, origin: GuestSocket) -> None:
        self._costs.lap_s()
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
        if sock is None:
            return
        keep = None if self._keeper is None else self._keeper.begin(sock.fileno())
        try:
            guest = self.adopt(
                sock,
                name=origin.path.stem,
                wishes=origin.wishes,
                memory_limit=origin.memory_limit,
                keep=keep,
                origin=origin,
            )
        except Exception:
            _log.exception(_OUR_ERROR)
            if keep is not None:
                keep.close()
            sock.close()
            return
        if keep is not None and self._keeper is not None:
            self._attempt(guest, functools.partial(_keep, guest, keep, self._keeper))
        if guest not in self._guests:
            return
        self._offer_places()
        self._charge(guest, self._costs.lap_s())

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

    def _offer_places(self) -> None:
        self.sockets.offer(GUESTS_MAX - len(self._guests))


def _restore(guest: AttachedGuest) -> Use:
    """Have it go on where a predecessor was."""
    guest.restore()
    return WANTED


def _keep(guest: AttachedGuest, keep: Keep, keeper: Keeper) -> Use:
    """Have its first state kept."""
    guest.keep_state()
    keeper.kept(keep)
    return WANTED
