"""A running `pagetide serve` as the host of a real guest.

It is asked for its account of the guest through its control socket, a few times a second and without waiting for the
answer. Nobody may answer there: the guest is served all the same, and the account is not known.
"""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pagetide.host.memory.ledger import WORD_NAMES, Ledger
from pagetide.machine.linux.guest import LinuxGuest
from pagetide.machine.live.processes import STOP_MAX_S
from pagetide.machine.observer import Observer

_ASK_EVERY_S = 0.2
_RECEIVE_BYTES = 1 << 20


class DaemonHost:
    """A running `pagetide serve`. See `BalloonHost`."""

    verify_share = 0.0

    def __init__(self, socket_path: Path, control: Path) -> None:
        """Take where guests connect and where questions are answered."""
        self._path, self._control_path = socket_path, control
        self._socket = str(socket_path.resolve())
        self._control: socket.socket | None = None
        self.ledger: Ledger | None = None
        self._others: set[str] = set()
        self._name: str | None = None
        self._received = b""
        self._asked = self._disowned = False
        self._ask_at_s = 0.0
        self._end = f"the daemon at {socket_path} has ended"

    def listen(self, resources: contextlib.ExitStack, folder: Path, observer: Observer) -> Path:
        """Find out which guests are there before ours, so that ours is known when it comes.

        Raises:
            OSError: nobody serves the socket.
        """
        try:
            self._control = resources.enter_context(socket.socket(socket.AF_UNIX))
            self._control.settimeout(STOP_MAX_S)
            self._control.connect(str(self._control_path))
            self._ask("list")
            while self._asked:
                self._receive(lambda guests: self._others.update(guest["name"] for guest in guests))
        except OSError as error:
            self._control = None
            self._check_served()
            observer.warning(
                f"no daemon answers at {self._control_path} ({error.strerror or error}), so what it accounts for this "
                "guest is not known; --control says where else"
            )
        else:
            self.ledger = Ledger()
        return self._path

    def _check_served(self) -> None:
        with socket.socket(socket.AF_UNIX) as guest:
            try:
                guest.connect(str(self._path))
            except OSError as error:
                why = error.strerror or error
                raise ConnectionRefusedError(f"nobody serves a guest at {self._path}: {why}") from error

    def attach(self, resources: contextlib.ExitStack, guest: LinuxGuest) -> None:
        """The guest connects by itself."""

    @property
    def ready(self) -> bool:
        """Whether the daemon has named our guest, if it answers at all."""
        return self._control is None or self._name is not None

    def fileno(self) -> int | None:
        """The connection to the control socket."""
        return None if self._control is None else self._control.fileno()

    def hear(self) -> bool:
        """Take an answer, or a part of it."""
        try:
            self._receive(self._take)
        except (OSError, msgspec.DecodeError):
            return False
        return self._control is not None

    def look(self, now_s: float) -> None:
        """Ask for the account, if the last answer has come."""
        if self._control is not None and not self._asked and now_s >= self._ask_at_s:
            self._ask_at_s = now_s + _ASK_EVERY_S
            with contextlib.suppress(OSError):  # noticed when receiving
                self._ask("list" if self._name is None else "show")

    def has_lost_guest(self) -> bool:
        """It knows the guest no more: that may have hung up, or have been given up."""
        return self._disowned

    def how_it_ended(self) -> str:
        """The daemon is gone, or has given the guest up."""
        return self._end

    def without_guest(self) -> str:
        """It goes on."""
        return ""

    def cpu_s(self) -> float | None:
        """The daemon may serve others, too."""
        return None

    def stop(self) -> float | None:
        """It goes on."""
        return None

    def _ask(self, command: str) -> None:
        assert self._control is not None
        self._control.sendall(msgspec.json.encode({"command": command, "guest": self._name}) + b"\n")
        self._asked = True

    def _receive(self, take: Callable[[list[dict[str, Any]]], None]) -> None:
        assert self._control is not None
        data = self._control.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError(self._end)
        self._received += data
        if not data.endswith(b"\n"):
            return
        answer, self._received, self._asked = msgspec.json.decode(self._received), b"", False
        if answer["error"] is not None:
            self._disowned = True
            self._end = f"the daemon has given the guest up, its log says why ({answer['error']})"
            raise ConnectionResetError(self._end)
        take(answer["guests"])

    def _take(self, guests: list[dict[str, Any]]) -> None:
        for guest in guests:
            ours = guest["socket"] == self._socket and guest["name"] not in self._others
            if self._name is None and ours:
                self._name = guest["name"]
            if guest["name"] == self._name:
                assert self.ledger is not None
                told = guest["ledger"]
                self.ledger.words[:] = [told.get(name, 0) for name in WORD_NAMES]
