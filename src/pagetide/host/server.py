"""The host: one loop that serves many guests, each over its own vhost-user connection.

Guests connect to a socket that the server listens on, or are handed over as connected sockets. What one of them does
wrong ends its own connection and nobody else's. The loop first takes what has come on any descriptor, then gives each
guest with elements waiting one bounded turn; while some have, it does not sleep. A guest that keeps the loop from its
work, with garbage in its rings or messages without end, rests for a while (allowance.py).
"""

import functools
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pagetide.host.allowance import GUEST_BURST_S, LISTENER_BURST_S, Allowance
from pagetide.host.attached_guest import AttachedGuest
from pagetide.host.control import handle
from pagetide.host.control_socket import ControlSocket
from pagetide.host.device import FEATURES
from pagetide.host.fd_events import READABLE, FdEvents
from pagetide.host.guest_gone import GuestGoneError
from pagetide.host.ledger import Ledger
from pagetide.host.listener import Listener
from pagetide.host.wishes import Wishes

FINISH_TURNS_MAX = 256
"""Most turns of one guest in `finish`: enough for five rings of 512 elements each."""

GUESTS_MAX = 1024
"""Most guests at once; more wait to be accepted."""

SOCKET_SUFFIX = ".sock"
"""What the name of a guest's socket ends with, in a folder of sockets."""

_GUEST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

_log = logging.getLogger(__name__)


class Server:
    """Serves guests. Use as a context manager, or call `close`."""

    def __init__(
        self,
        *,
        verify_share: float = 1.0,
        features: int = int(FEATURES),
        on_guest_gone: Callable[[AttachedGuest, str], None] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start without guests.

        Args:
            verify_share: share of the elements whose discarding is read back, from 0 to 1.
            features: what to offer to drivers.
            on_guest_gone: called with each guest that has gone and a sentence why, after all it had is given back.
            clock_ns: the time, for how long reports wait.
        """
        self._verify_share = verify_share
        self._features = features
        self._control: ControlSocket | None = None
        self._on_guest_gone = on_guest_gone
        self._clock_ns = clock_ns
        self._events = FdEvents(clock_ns)
        self._listeners: list[Listener] = []
        self._wishes: dict[Listener, Wishes] = {}
        self._came_by: dict[AttachedGuest, Listener] = {}
        self._folder: Path | None = None
        self._listening = True
        self._guests: dict[AttachedGuest, Allowance] = {}
        self._allowances: dict[Listener, Allowance] = {}
        self._resting: dict[AttachedGuest | Listener, float] = {}  # until when
        self._working: dict[AttachedGuest, None] = {}  # a set that keeps its order
        self._clock_s = 0.0  # passes while the loop works or sleeps, and not while others have its processor
        self._lap_end_s = 0.0  # the thread's CPU time when it was last asked
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
        """Accept guests at a socket of this path, which only this user may connect to. A dead server's is replaced.

        What an earlier server wanted of the socket's guest is wanted still.

        Raises:
            OSError: the path cannot be had, or somebody listens there, or what is wanted cannot be read.
        """
        listener = Listener(Path(path))
        try:
            self._wishes[listener] = Wishes(listener.path)
        except OSError:
            listener.close()
            raise
        self._listeners.append(listener)
        self._allowances[listener] = Allowance(LISTENER_BURST_S, self._clock_s)
        if self._listening:
            self._watch_listener(listener)

    def listen_in(self, folder: Path, *, but_not: Path | None = None) -> list[Path]:
        """Have `add_socket` make sockets in this folder, and listen at those that a dead server left; which.

        One that somebody listens at is left alone, and so is `but_not`, the control socket perhaps.
        """
        self._folder = folder
        taken = []
        for path in sorted(folder.glob(f"*{SOCKET_SUFFIX}")):
            if not path.is_socket() or (but_not is not None and path.absolute() == but_not.absolute()):
                continue
            try:
                self.listen(path)
            except OSError as error:
                _log.warning("%s is left alone: %s", path, error)
            else:
                taken.append(path)
        return taken

    def add_socket(self, name: str) -> Path:
        """Listen at a socket for a guest of this name; its path.

        Raises:
            ValueError: there is no folder for sockets, or the name makes none, or it cannot be had.
        """
        if self._folder is None:
            raise ValueError("the daemon was not started with --socket-dir, so it makes no sockets")
        if not _GUEST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a guest: up to 64 letters, digits, and _ . - after the first")
        path = self._folder / f"{name}{SOCKET_SUFFIX}"
        try:
            self.listen(path)
        except OSError as error:
            raise ValueError(f"no socket can be had at {path}: {error}") from error
        _log.info("listening at %s", path)
        return path

    def remove_socket(self, name: str) -> Path:
        """Listen no more at the socket for a guest of this name, and forget what was wanted of it; its path.

        Raises:
            ValueError: there is none, or its guest is attached.
        """
        listener = next((listener for listener in self._listeners if listener.path.stem == name), None)
        if listener is None:
            raise ValueError(f"there is no socket for a guest {name!r}")
        attached = [guest.name for guest, door in self._came_by.items() if door is listener]
        if attached:
            raise ValueError(f"{attached[0]} is attached; stop that guest first")
        self._events.unwatch(listener.socket.fileno())
        self._listeners.remove(listener)
        self._resting.pop(listener, None)
        self._wishes.pop(listener).forget()
        del self._allowances[listener]
        listener.close()
        _log.info("listening no more at %s", listener.path)
        return listener.path

    @property
    def waiting(self) -> tuple[str, ...]:
        """Names of the sockets at which no guest is attached."""
        used = set(self._came_by.values())
        return tuple(listener.path.stem for listener in self._listeners if listener not in used)

    def listen_control(self, path: str | os.PathLike[str]) -> None:
        """Answer control requests at a socket of this path, which only this user may connect to.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        assert self._control is None, "one control socket"
        self._control = ControlSocket(Path(path), self._events, self._obey)

    def wake_by(self, fd: int) -> None:
        """End waiting in `run_once` whenever this descriptor is readable."""
        self._events.watch(fd, READABLE, lambda: None)

    def no_wake_by(self, fd: int) -> None:
        """Forget a descriptor of `wake_by`."""
        self._events.unwatch(fd)

    def request_statistics(self) -> None:
        """Ask every guest for new memory statistics, and count what has come back of what was discarded."""
        for guest in self.guests:
            try:
                guest.count_refaulted()
                guest.request_statistics()
            except GuestGoneError as error:
                self._give_up(guest, str(error))

    def finish(self) -> None:
        """Serve what guests have put in their rings, and no more after that.

        What comes meanwhile may or may not be served: a guest gets at most as many turns as a full ring takes.
        """
        self._lap_s()
        self._events.wait(0)  # kicks that have come
        for _ in range(FINISH_TURNS_MAX):
            turns = tuple(guest for guest in self._guests if guest.has_work)
            if not turns:
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
    ) -> AttachedGuest:
        """Serve the guest at the other end of a connected socket, which is the server's from now on.

        Args:
            sock: a Unix stream socket.
            ledger: where to account for it, for example in shared memory; otherwise a new one.
            name: what it is called, followed by a number if another guest is called so.
            wishes: what the host wants of it, and where to note what it comes to want.
        """
        guest = AttachedGuest(
            self._free_name(name or "guest"),
            sock,
            Ledger() if ledger is None else ledger,
            self._events,
            self._note_work,
            verify_share=self._verify_share,
            features=self._features,
            wishes=wishes,
            clock_ns=self._clock_ns,
        )
        self._events.watch(guest.fileno(), READABLE, functools.partial(self._attempt, guest, guest.talk))
        self._guests[guest] = Allowance(GUEST_BURST_S, self._clock_s)
        wanted = "" if wishes is None else str(wishes)
        _log.info("attached, and as it was left: %s" if wanted else "attached%s", wanted, extra={"guest": guest.name})
        return guest

    def run_once(self, timeout_s: float) -> None:
        """Wait until something happens, but at most this long (for ever if negative), and deal with it."""
        self._lap_s()
        start_s = self._lap_end_s
        if self._resting:
            self._end_rests()
        slept_s = self._events.wait(0 if self._working else self._until_next(timeout_s))
        turns, self._working = self._working, {}
        for guest in turns:
            if guest.has_work:
                self._attempt(guest, guest.turn)
                if guest.has_work:
                    self._note_work(guest)
        if not turns:
            self._lap_s()
        self._clock_s += slept_s + self._lap_end_s - start_s

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
        """Let all guests go and remove the sockets."""
        for guest in self.guests:
            self._release(guest)
        if self._control is not None:
            self._control.close()
        for listener in self._listeners:
            self._events.unwatch(listener.socket.fileno())
            listener.close()
        self._listeners.clear()
        self._events.close()

    def _free_name(self, wanted: str) -> str:
        taken = {guest.name for guest in self._guests}
        names = (f"{wanted}-{number}" if number > 1 else wanted for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def _note_work(self, guest: AttachedGuest) -> None:
        self._working[guest] = None

    def _lap_s(self) -> float:
        """The thread's CPU time since this was last asked: one reading ends an action and begins the next."""
        start_s, self._lap_end_s = self._lap_end_s, time.thread_time()
        return self._lap_end_s - start_s

    def _attempt(self, guest: AttachedGuest, action: Callable[[], float]) -> None:
        """Do something for a guest; it is charged with the share that the action says was in vain."""
        try:
            in_vain = action()
        except GuestGoneError as error:
            self._charge(guest, self._lap_s())
            self._give_up(guest, str(error))
            return
        used_s = self._lap_s()
        if in_vain:
            self._charge(guest, in_vain * used_s)

    def _give_up(self, guest: AttachedGuest, reason: str) -> None:
        level = logging.INFO if reason == "disconnected" else logging.ERROR
        _log.log(level, "%s", reason, extra={"guest": guest.name})
        self._release(guest)
        if self._on_guest_gone is not None:
            self._on_guest_gone(guest, reason)

    def _obey(self, line: bytes) -> bytes:
        """Answer a control request, at nobody's cost."""
        answer = handle(line, self)
        self._lap_s()
        return answer

    def _charge(self, guest: AttachedGuest, used_s: float) -> None:
        """Take what a guest used in vain from its allowance; if there is none left, it rests."""
        now_s = self._clock_s
        allowance = self._guests[guest]
        allowance.spend(used_s, now_s)
        rest_s = allowance.rest_s(now_s)
        if rest_s > 0 and guest not in self._resting:
            guest.rest()
            self._working.pop(guest, None)
            self._resting[guest] = now_s + rest_s

    def _charge_listener(self, listener: Listener, used_s: float) -> None:
        now_s = self._clock_s
        allowance = self._allowances[listener]
        allowance.spend(used_s, now_s)
        rest_s = allowance.rest_s(now_s)
        if rest_s > 0 and listener not in self._resting:
            self._events.unwatch(listener.socket.fileno())
            self._resting[listener] = now_s + rest_s

    def _end_rests(self) -> None:
        """Hear those again whose rest is over."""
        now_s = self._clock_s
        for rested in [rested for rested, until_s in self._resting.items() if until_s <= now_s]:
            del self._resting[rested]
            if isinstance(rested, AttachedGuest):
                rested.go_on(functools.partial(self._attempt, rested, rested.talk))
                self._attempt(rested, rested.talk)
            elif self._listening:
                self._watch_listener(rested)

    def _until_next(self, timeout_s: float) -> float:
        """For how long to wait: not longer than the shortest rest."""
        if not self._resting:
            return timeout_s
        left_s = max(0.0, min(self._resting.values()) - self._clock_s)
        return left_s if timeout_s < 0 else min(timeout_s, left_s)

    def _release(self, guest: AttachedGuest) -> None:
        self._events.unwatch(guest.fileno())
        guest.close()
        assert not guest.has_work
        self._working.pop(guest, None)
        self._resting.pop(guest, None)
        spent_s = self._guests.pop(guest).spent_s
        origin = self._came_by.pop(guest, None)
        if origin in self._allowances:
            self._charge_listener(origin, spent_s)
        self._listen_again()

    def _accept(self, listener: Listener) -> None:
        self._lap_s()
        try:
            sock, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.error("no more guests can be accepted until one goes: %s", error)
            self._listen_no_more()
            return
        guest = self.adopt(sock, name=listener.path.stem, wishes=self._wishes[listener])
        self._came_by[guest] = listener
        self._guests[guest].spend(self._lap_s(), self._clock_s)
        if len(self._guests) >= GUESTS_MAX:
            self._listen_no_more()

    def _watch_listener(self, listener: Listener) -> None:
        self._events.watch(listener.socket.fileno(), READABLE, functools.partial(self._accept, listener))

    def _listen_no_more(self) -> None:
        self._listening = False
        for listener in self._listeners:
            self._events.unwatch(listener.socket.fileno())

    def _listen_again(self) -> None:
        if not self._listening and len(self._guests) < GUESTS_MAX:
            self._listening = True
            for listener in self._listeners:
                if listener not in self._resting:
                    self._watch_listener(listener)
