"""The daemon's process: a server until SIGTERM or SIGINT, statistics at an interval, and what its log says of both."""

import gc
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pagetide.host.daemon import handover
from pagetide.host.daemon.handover import HandoverError, Predecessor
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.server import Server
from pagetide.host.daemon.service_manager import ServiceManager
from pagetide.host.device.kept_state import UnreadableStateError
from pagetide.host.guest.gone import GuestGoneError

_SIGNALS_MAX = 64
_COLLECT_S = 600.0
"""Between two full collections, of 0.1 ms with 20 guests. Until there is one, CPython 3.11 keeps up to 2,000 freed
tuples of each length (Objects/tupleobject.c), and cycles of what has lived for a while: in hours that is some MiB."""
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})

_log = logging.getLogger(__name__)


def serve(
    server: Server,
    sockets: Sequence[Path],
    control: Path,
    *,
    folder: Path | None = None,
    stats_interval_s: float,
    keeper: Keeper | None = None,
    manager: ServiceManager | None = None,
    predecessor: Predecessor | None = None,
    options: Mapping[str, str] = _NO_OPTIONS,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until a successor has taken over.

    What guests have in their rings is finished and answered before the end, but for a successor's.

    Args:
        server: without guests and sockets yet; the caller closes it.
        sockets: where guests connect.
        control: where control requests come.
        folder: where sockets are made when they are asked for; those that a dead daemon left are listened at again.
        stats_interval_s: how often guests are asked for their memory statistics; 0 for never.
        keeper: the server's; what it has of a daemon before this one is served first.
        manager: who is to be told.
        predecessor: the daemon that gave what the keeper has, to be told when all is taken; the caller closes it.
        options: what this daemon was started with, by name, for its successor to compare with.
        on_ready: called once all sockets are there.

    Raises:
        OSError: a socket cannot be had, or what the predecessor gave cannot be taken.
        UnreadableStateError, GuestGoneError, HandoverError: not all that the predecessor gave can be gone on with, so
            it goes on itself.
    """
    assert stats_interval_s >= 0
    manager = ServiceManager({}) if manager is None else manager
    stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        os.eventfd_write(stop_fd, 1)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    waker = SignalWaker(server)
    try:
        server.wake_by(stop_fd)
        try:
            _listen(server, sockets, control, folder, keeper)
            if server.succession is not None:
                server.succession.take_back()
            if predecessor is not None:
                _succeed(predecessor, options)
        except (OSError, GuestGoneError, UnreadableStateError, HandoverError):
            if predecessor is not None and server.succession is not None:
                server.succession.let_go()  # the predecessor goes on with all of it
            raise
        on_ready()
        manager.ready()
        statistics = _Every(stats_interval_s, server.request_statistics)
        collection = _Every(_COLLECT_S, gc.collect)
        while not stopping:
            manager.alive()
            manager.status(_status(server))
            now_s = time.monotonic()
            statistics.do_if_due(now_s)
            collection.do_if_due(now_s)
            server.run_once(manager.until_due_s(statistics.left_s(now_s)), linger=True)
            if _hand_over(server, options):
                return
        manager.stopping()
        server.finish()
        _tell_what_is_lost(server)
        _log.info("stopping")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waker.close()
        server.no_wake_by(stop_fd)
        os.close(stop_fd)


class _Every:
    """What is to be done again and again, at an interval; never, if that is 0."""

    def __init__(self, interval_s: float, action: Callable[[], object]) -> None:
        self._interval_s, self._action = interval_s, action
        self._due_s = time.monotonic() + interval_s if interval_s else math.inf

    def do_if_due(self, now_s: float) -> None:
        """Do it, if it is; the next time is an interval from now."""
        if now_s >= self._due_s:
            self._action()
            self._due_s = now_s + self._interval_s

    def left_s(self, now_s: float) -> float:
        """Until it is due; -1 if it never is."""
        return -1 if self._due_s == math.inf else max(0.0, self._due_s - now_s)


class SignalWaker:
    """Has every signal end the server's wait, also one that comes between two: its handler is Python's, and runs then.

    Use in the main thread.
    """

    def __init__(self, server: Server) -> None:
        """From now on."""
        self._server = server
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        server.wake_by(self._woken.fileno(), self._take)
        self._before = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)

    def _take(self) -> None:
        self._woken.recv(_SIGNALS_MAX)

    def close(self) -> None:
        """As it was before."""
        signal.set_wakeup_fd(self._before)
        self._server.no_wake_by(self._woken.fileno())
        self._woken.close()
        self._waking.close()


def _listen(server: Server, sockets: Sequence[Path], control: Path, folder: Path | None, keeper: Keeper | None) -> None:
    """Listen at the sockets that were named, at those in a folder, and at those that were handed over."""
    server.listen_control(control)
    for path in sockets:
        server.listen(path)
    taken = [] if folder is None else server.sockets.listen_in(folder, but_not=control)
    for path in () if keeper is None else keeper.paths:
        server.listen(path)
        taken.append(path)
    _log.info("listening at %s, control at %s", ", ".join(map(str, (*sockets, *taken))) or folder, control)


def _succeed(predecessor: Predecessor, options: Mapping[str, str]) -> None:
    """Have the predecessor end, and say what is not as it was with it."""
    predecessor.taken()
    for other in predecessor.other_options(options):
        _log.warning("not as it was with the daemon before this one: %s", other)


def _hand_over(server: Server, options: Mapping[str, str]) -> bool:
    """Give everything to a successor, if one has asked; False if none has it, and this daemon goes on."""
    succession = server.succession
    if succession is None or succession.heir is None:
        return False
    count = len(server.guests)
    try:
        handover.give(succession.heir, succession.let_go(), options)
    except HandoverError as error:
        _log.error("%s; this daemon goes on", error)
        succession.come_back()
        return False
    finally:
        succession.heir.close()
        succession.heir = None
    _log.info("handed over %s to the daemon that has asked for them", _guests(count))
    return True


def _tell_what_is_lost(server: Server) -> None:
    """Say what this daemon's end means for those that are attached."""
    if not server.guests:
        return
    outlive = server.succession is not None and server.succession.outlives
    if outlive:
        kept = [guest for guest in server.guests if guest.keep is not None]
        _log.info("%s left to the daemon after this one; a stop for good ends their balloons", _guests(len(kept)))
    lost = [guest.name for guest in server.guests if not (outlive and guest.keep) and not guest.may_come_back]
    if lost:
        _log.warning(
            "%s: %s; their front-ends are not known to reconnect (`pagetide serve --take-over` replaces a daemon "
            "without that)",
            "1 guest loses its balloon" if len(lost) == 1 else f"{len(lost)} guests lose their balloon",
            ", ".join(lost),
        )


def _status(server: Server) -> str:
    left = 0 if server.succession is None else server.succession.left_count
    return f"{len(server.guests)} guests attached" + (f", {left} left for another release, see the log" if left else "")


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"
