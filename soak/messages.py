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

from soak.daemons import ReadDaemon, ReadLog, Sentences
from soak.honest import HonestGuest
from soak.message_mutations import Step, hostile_script, open_fd
from soak.part import BrokenError, Part, Trial
from soak.ring_mutations import hostile_case
from tests.host.device.hostile_model import GPA as CASE_GPA
from tests.host.guest.test_hostile_messages import CANARY_PAGES, GPA, PAGES
from tests.host.guest_ring import PAGE

_GONE_MAX_S = 60.0
_CANARY = (bytes(range(1, 256)) * (CANARY_PAGES * PAGE // 255 + 1))[: CANARY_PAGES * PAGE]


def _write_ring(ram_fd: int, seed: int) -> None:
    """Canaries, and at the start of what is shared a ring of this seed's; its own memory is as good as any."""
    case = hostile_case(seed)
    shift = GPA - CASE_GPA
    descs = [((gpa + shift) & (1 << 64) - 1, *rest) for gpa, *rest in case.descs]
    os.pwrite(ram_fd, _CANARY, 0)
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
        self.sentences = Sentences(
            [
                "virtio/vhost_user",
                "host/guest",
                "host/memory/guest_memory.py",
                "host/device",
                "virtio/split_ring/ring.py",
            ]
        )

    def paths(self) -> frozenset[str]:
        """Each refusal that the source has for a guest."""
        return self.sentences.paths

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """One daemon with an honest guest."""
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            daemon = ReadDaemon(folder, ReadLog(self.sentences, reached))
            resources.callback(daemon.close)
            honest = resources.enter_context(HonestGuest(folder / "one.sock", 1))
            honest.check()
            open_fds = daemon.open_fds()

            def trial(seed: int) -> None:
                before = honest.rounds
                self.play(folder / "two.sock", seed)
                daemon.check()
                honest.check()
                _wait_until_gone(daemon, open_fds)
                daemon.check()
                reached["honest reports verified beside"] += honest.rounds - before

            yield trial

    def play(self, path: Path, seed: int) -> None:
        """Be this seed's hostile guest.

        Raises:
            BrokenError: the daemon wrote to what was not shared, or takes no connection.
        """
        rng = random.Random(seed)
        play_script(path, hostile_script(rng), seed)


def play_script(path: Path, script: list[Step], seed: int) -> None:
    """Send a script, hang up, and look at what was not shared."""
    ram_fd = os.memfd_create("hostile")
    try:
        os.ftruncate(ram_fd, PAGES * PAGE)
        _write_ring(ram_fd, seed)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_GONE_MAX_S)
            try:
                sock.connect(str(path))
            except OSError as error:
                raise BrokenError(f"the daemon takes no connection: {error}") from error
            _converse(sock, script, ram_fd)
        if os.pread(ram_fd, len(_CANARY), 0) != _CANARY:
            raise BrokenError("memory outside of the guest's regions was changed")
    finally:
        os.close(ram_fd)


def _converse(sock: socket.socket, script: list[Step], ram_fd: int) -> None:
    """Send it all, read what is answered, until the daemon has had a moment with the rest or has hung up."""
    # Who is cut off can send no more, and who does not read his replies is not listened to.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
        for data, kinds in script:
            fds = [open_fd(kind, ram_fd) for kind in kinds]
            try:
                socket.send_fds(sock, [data], fds, socket.MSG_NOSIGNAL)
            finally:
                for fd in fds:
                    os.close(fd)
        sock.settimeout(0.02)
        while sock.recv(65536):
            pass


def _wait_until_gone(daemon: ReadDaemon, open_fds: int) -> None:
    """Nothing of the hostile guest's is left open in the daemon."""
    deadline_s = time.monotonic() + _GONE_MAX_S
    while (now := daemon.open_fds()) > open_fds:
        if time.monotonic() > deadline_s:
            raise BrokenError(f"{now - open_fds} descriptors are left open by a guest that has gone")
        time.sleep(0.002)
