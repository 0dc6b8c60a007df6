"""The daemon's control socket: the I/O around `control.handle`.

The loop answers one request a round, the next client's in turn, and all clients share an allowance of the loop's time
as the guests of a socket do (allowance.py): who asks without pause is answered all the same, and keeps nobody waiting.
"""

import contextlib
import functools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Collection, Hashable
from pathlib import Path

from pagetide.host.daemon.control import ControlError, refusal
from pagetide.host.daemon.listener import Listener
from pagetide.host.device.allowance import CONTROL_BURST_S, START_S
from pagetide.host.guest.fd_events import READABLE, WRITABLE, FdEvents
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.patience import Patience
from pagetide.host.sharing.retries import Retries

CLIENTS_MAX = 16
"""Most clients at once; one that is not waiting for an answer goes when another comes."""

LINE_BYTES_MAX = 4096
"""The longest request."""

_RECEIVE_BYTES = 65536
_OUR_ERROR = "an error in pagetide, please report it"

_log = logging.getLogger(__name__)


class LineReader:
    """Cuts what comes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[bytes]:
        """The lines that are whole now.

        Raises:
            ControlError: a line is too long.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > LINE_BYTES_MAX for line in (*lines, self._rest)):
            raise ControlError(f"a request is longer than {LINE_BYTES_MAX} bytes")
        return lines


class ControlClient:
    """One client: lines that are not answered yet, and what of an answer it has not taken yet.

    Attributes:
        connection: its socket.
        lines: requests that wait.
        unsent: the rest of an answer.
        waits_for: what the loop hears of it now.
    """

    connection: socket.socket
    lines: deque[bytes]
    unsent: bytes
    waits_for: int | None

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        self.connection = sock
        self.lines = deque()
        self.unsent = b""
        self.waits_for = None
        self._reader = LineReader()

    def receive(self) -> bool:
        """Take what has come; False once it has hung up.

        Raises:
            OSError: it has gone.
            ControlError: a line is too long.
        """
        data = self.connection.recv(_RECEIVE_BYTES)
        self.lines.extend(self._reader.receive(data))
        return bool(data)

    def flush(self) -> None:
        """Send what it takes now.

        Raises:
            OSError: it has gone.
        """
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.connection.send(self.unsent, socket.MSG_NOSIGNAL) :]


class ControlSocket:
    """Answers clients, who may each ask any number of times. One that does not read its answers is asked no more.

    Attributes:
        asking: whose request is being answered, if one is.
    """

    asking: socket.socket | None

    def __init__(
        self,
        path: Path,
        events: FdEvents,
        handle: Callable[[bytes], bytes],
        costs: Costs[Hashable],
        listen: Callable[[Path], Listener] = Listener,
        *,
        patience: Patience[Hashable],
        clock_s: Callable[[], float],
    ) -> None:
        """Listen at a path, and answer each line with what `handle` says.

        Args:
            path: where.
            events: where to watch.
            handle: answers a line.
            costs: who pays; the socket and its clients are parties of it.
            listen: how to listen at the path.
            patience: with clients that do not read; `end_wait` is called when it ends.
            clock_s: the time by which it does.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        self._events = events
        self._handle = handle
        self._costs = costs
        self._patience = patience
        self._clock_s = clock_s
        self._clients: dict[ControlClient, None] = {}
        self._asking: dict[ControlClient, None] = {}  # those with lines, in the order of their turns
        self.asking = None
        self._listener = listen(path)
        self._retries: Retries[ControlSocket] = Retries()
        self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        costs.enter(self, CONTROL_BURST_S)
        self.listen()

    @property
    def waiting(self) -> Collection[ControlClient]:
        """Whose requests are to be answered: always the same object."""
        return self._asking

    @property
    def has_work(self) -> bool:
        """Whether a turn would answer a request."""
        return bool(self._asking)

    def turn(self) -> None:
        """Answer one request."""
        client = next(iter(self._asking))
        self._attempt(client, functools.partial(self._answer, client))

    def listen(self) -> None:
        """Accept clients, from the start and after a rest of the socket's own."""
        self._events.watch(self._listener.socket.fileno(), READABLE, self._accept)

    def attend(self, client: ControlClient) -> None:
        """Hear what a client does next, if anything may come of it now; so also after its rest."""
        rests = self._costs.is_resting(client)
        self._asking.pop(client, None)
        if client.lines and not client.unsent and not rests:
            self._asking[client] = None
        wanted = None if rests else WRITABLE if client.unsent else None if client.lines else READABLE
        if wanted == client.waits_for:
            return
        client.waits_for = wanted
        self._events.unwatch(client.connection.fileno())
        if wanted is not None:
            ready = functools.partial(self._attempt, client, functools.partial(self._on_ready, client))
            try:
                self._events.watch(client.connection.fileno(), wanted, ready)
            except OSError:  # the kernel has no room for one more (epoll(7), max_user_watches)
                self._drop(client)

    def end_wait(self, client: ControlClient) -> None:
        """A client has read nothing for long enough."""
        self._attempt(client, lambda: False)

    def close(self) -> None:
        """Let all clients go and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._events.unwatch(self._listener.socket.fileno())
        self._costs.leave(self)
        self._listener.close()
        if self._spare_fd >= 0:
            os.close(self._spare_fd)

    def _accept(self) -> None:
        try:
            client = ControlClient(self._listener.socket.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._turn_away(error)
            return
        self._retries.succeeded(self)
        if len(self._clients) >= CLIENTS_MAX:
            at_rest = (known for known in self._clients if not known.lines and not known.unsent)
            self._drop(next(at_rest, next(iter(self._clients))))
        self._clients[client] = None
        self._costs.enter(client, START_S, at=self)
        self.attend(client)
        self._pay(self._costs.lap_s())

    def _turn_away(self, error: OSError) -> None:
        """No descriptor is left for a client, so hang up on it: its call would make the listener readable for ever."""
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
            self._spare_fd = -1
            with contextlib.suppress(OSError):
                self._listener.socket.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._spare_fd < 0:  # others took that, too
            _log.error("no control client can be accepted for now: %s", error)
            self._events.unwatch(self._listener.socket.fileno())
            self._costs.rest_until(self, self._costs.clock_s + self._retries.failed(self))

    def _on_ready(self, client: ControlClient) -> bool:
        if client.unsent:
            client.flush()
            return True
        return client.receive() or bool(client.lines)

    def _answer(self, client: ControlClient) -> bool:
        self.asking = client.connection
        try:
            client.unsent = self._handle(client.lines.popleft())
        except Exception as error:
            _log.exception(_OUR_ERROR)
            client.unsent = refusal(f"{_OUR_ERROR}: {error!r}")
        self.asking = None
        client.flush()
        return True

    def _attempt(self, client: ControlClient, action: Callable[[], bool]) -> None:
        """Do something for a client, at its cost; it is dropped if it has gone, or what it does is wrong."""
        try:
            stays = action()
        except BlockingIOError:
            stays = True
        except (OSError, ControlError):
            stays = False
        except Exception:
            _log.exception(_OUR_ERROR)
            stays = False
        self._costs.charge(client, self._costs.lap_s())
        if stays:
            self._patience.note(client, self._clock_s() if client.unsent else None)
            self.attend(client)
        else:
            self._drop(client)

    def _drop(self, client: ControlClient) -> None:
        del self._clients[client]
        self._patience.note(client, None)
        self._asking.pop(client, None)
        self._events.unwatch(client.connection.fileno())
        client.connection.close()
        self._costs.leave(client)
        self._pay(self._costs.lap_s())

    def _pay(self, used_s: float) -> None:
        """Charge all who connect here with what is nobody's own any more."""
        if self._costs.charge(self, used_s):
            self._events.unwatch(self._listener.socket.fileno())
