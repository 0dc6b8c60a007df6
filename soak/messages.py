"""Hostile vhost-user messages to a running daemon that serves an honest guest beside."""

import contextlib
import os
import random
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pagetide.operate.host.control import ask
from pagetide.virtio.split_ring import ring
from soak.daemons import ReadDaemon, ReadLog, Sentences
from soak.honest import HonestGuest
from soak.message_mutations import HOSTILE, Step, hostile_script, shares_canary
from soak.part import BrokenError, Part, Trial
from soak.ring_mutations import hostile_case
from soak.rings import CODES
from tests.host.device.hostile_model import GPA as CASE_GPA
from tests.host.guest.descriptor_kinds import fill, open_fd
from tests.host.guest.test_hostile_messages import CANARY_PAGES, GPA, PAGES
from tests.host.guest_ring import PAGE

_GONE_MAX_S = 60.0
_REPLY_S = 0.01
"""For the daemon to have dealt with what was sent, mostly."""
_AS_BEFORE = (("add", HOSTILE), ("resume", HOSTILE), ("uninhibit", HOSTILE), ("remove", "new"), ("remove", "nobody"))
"""What undoes all that a trial may have asked for."""
_REFUSING = [
    *("virtio/vhost_user", "virtio/split_ring", "host/guest", "host/device", "host/memory"),
    *("host/daemon/control.py", "host/daemon/guest_sockets.py"),
]
"""Where the source refuses something, or says what a guest has done to itself."""
CANARY = (bytes(range(1, 256)) * (CANARY_PAGES * PAGE // 255 + 1))[: CANARY_PAGES * PAGE]


def write_ring(ram_fd: int, seed: int) -> None:
    """Canaries, and at the start of what is shared a ring of this seed's; its own memory is as good as any."""
    case = hostile_case(seed)
    shift = GPA - CASE_GPA
    descs = [((gpa + shift) & (1 << 64) - 1, *rest) for gpa, *rest in case.descs]
    os.pwrite(ram_fd, CANARY, 0)
    at = CANARY_PAGES * PAGE
    os.pwrite(ram_fd, b"".join(struct.pack("<QIHH", *desc) for desc in descs), at)
    os.pwrite(ram_fd, struct.pack(f"<HH{len(case.heads)}H", 0, case.idx, *case.heads), at + 0x200)
    os.pwrite(ram_fd, case.array, at + 4 * PAGE)


class Messages(Part):
    """Each seed is one hostile guest, from its connection to its end."""

    name = "messages"
    what = "a hostile front-end beside an honest guest of a running daemon"

    def __init__(self) -> None:
        """Read what the daemon can refuse."""
        broken_rings = {f"a queue needs a reset: {name}": ring.error_text(code) for code, name in CODES.items()}
        self.sentences = Sentences(_REFUSING, broken_rings)

    def paths(self) -> frozenset[str]:
        """Each refusal that the source has for a guest or at the control socket, and each error of a ring."""
        return self.sentences.paths

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """One daemon with an honest guest."""
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            log = ReadLog(self.sentences, reached)
            daemon = ReadDaemon(folder, log, "--socket-dir", str(folder))
            resources.callback(daemon.close)
            for name in ("one", HOSTILE):
                ask(daemon.control, {"command": "add", "guest": name})
            honest = resources.enter_context(HonestGuest(folder / "one.sock", 1))
            honest.check()
            open_fds = daemon.open_fds()

            def trial(seed: int) -> None:
                before, slow = honest.rounds, honest.slow
                with Hostile(folder, seed, log) as hostile:
                    hostile.play(hostile_script(random.Random(seed)))
                daemon.check()
                honest.check()
                for command, name in _AS_BEFORE:
                    ask(daemon.control, {"command": command, "guest": name})
                _wait_until_gone(daemon, open_fds)
                daemon.check()
                reached["honest reports verified beside"] += honest.rounds - before
                reached["of which acknowledged after more than a second"] += honest.slow - slow

            yield trial


class Hostile:
    """A front-end that keeps no rule, its memory, and somebody at the control socket."""

    def __init__(self, folder: Path, seed: int, log: ReadLog) -> None:
        """Connect, with this seed's ring in memory."""
        self._folder, self._log = folder, log
        self._fds: list[int] = []
        self.ram_fd = os.memfd_create("hostile")
        os.ftruncate(self.ram_fd, PAGES * PAGE)
        write_ring(self.ram_fd, seed)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(_GONE_MAX_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()
        for fd in (*self._fds, self.ram_fd):
            os.close(fd)

    def play(self, script: list[Step]) -> None:
        """Do all of it, hang up, and look at what was not shared.

        Raises:
            BrokenError: the daemon takes no connection, or wrote to what was not shared.
        """
        self._connect()
        # Who is cut off can send no more, and who does not read his replies is not listened to.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for step in script:
                self._do(step)
            self._sock.settimeout(_REPLY_S)
            while self._sock.recv(65536):
                pass
        self._sock.close()
        if not shares_canary(script) and os.pread(self.ram_fd, len(CANARY), 0) != CANARY:
            raise BrokenError("memory outside of the guest's regions was changed")

    def _connect(self) -> None:
        """Connect as soon as there is room: the daemon may not have accepted the one before yet."""
        deadline_s = time.monotonic() + _GONE_MAX_S
        while True:
            try:
                return self._sock.connect(str(self._folder / f"{HOSTILE}.sock"))
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise BrokenError(f"the daemon has accepted nobody for {_GONE_MAX_S:g} s") from None
                time.sleep(_REPLY_S)
            except OSError as error:
                raise BrokenError(f"the daemon takes no connection: {error}") from error

    def _do(self, step: Step) -> None:
        match step.act:
            case "send":
                fds = [open_fd(kind, self.ram_fd) for kind in step.kinds]
                self._fds += fds
                socket.send_fds(self._sock, [step.data], fds, socket.MSG_NOSIGNAL)
            case "cut":
                time.sleep(_REPLY_S)
                os.ftruncate(self.ram_fd, CANARY_PAGES * PAGE)
            case "fill":
                time.sleep(_REPLY_S)
                for fd in self._fds:
                    _fill_eventfd(fd)
            case "ask":
                time.sleep(_REPLY_S)
                self._ask(step.data)

    def _ask(self, line: bytes) -> None:
        """Ask at the control socket; what it says is counted like its log."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_GONE_MAX_S)
            sock.connect(str(self._folder / "control"))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(line + b"\n")
                self._log.take(sock.recv(65536).decode())


def _fill_eventfd(fd: int) -> None:
    """Have the next one who writes to this eventfd wait, if it is one."""
    if "eventfd" in Path(f"/proc/self/fd/{fd}").readlink().name:
        fill(fd)


def _wait_until_gone(daemon: ReadDaemon, open_fds: int) -> None:
    """Nothing of the hostile guest's is left open in the daemon."""
    deadline_s = time.monotonic() + _GONE_MAX_S
    while (now := daemon.open_fds()) > open_fds:
        if time.monotonic() > deadline_s:
            raise BrokenError(f"{now - open_fds} descriptors are left open by a guest that has gone")
        time.sleep(0.002)
