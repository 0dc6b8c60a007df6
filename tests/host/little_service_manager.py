"""A small service manager: starts `pagetide serve`, hears what it tells, keeps its descriptors, and starts it again."""

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from tests.host.guest.served_guest import TIMEOUT_S

START_MAX_S = 180.0
"""The first start after a change compiles kernels."""

_START = """
import os, sys
first, count, *command = sys.argv[1:]
fds = [int(word) for word in first.split(",") if word]
moved = [os.dup(fd) for fd in fds]
high = [__import__("fcntl").fcntl(fd, 0, 1000) for fd in moved]  # F_DUPFD: out of the way
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
os.closerange(3 + len(high), 65536)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class LittleServiceManager:
    """One service, as sd_notify(3) and sd_listen_fds(3) say.

    Attributes:
        told: every assignment that came, in order, but for those about descriptors.
        store: the descriptors that are kept, by name.
        process: the service's.
        log: all that it has said on standard error.
    """

    told: list[str]
    store: dict[str, list[int]]
    process: subprocess.Popen[str]
    log: list[str]

    def __init__(self, folder: Path, *options: str, watchdog_s: float = 0.0, keeps: bool = True) -> None:
        """Start the service, and wait until it is ready."""
        self.told, self.store, self.log = [], {}, []
        self._readers: list[threading.Thread] = []
        self._folder, self._watchdog_s, self._keeps = folder, watchdog_s, keeps
        self._command = [sys.executable, "-m", "pagetide.cli", "serve", "--control", str(folder / "control"), *options]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._hear, daemon=True)
        self._listener.start()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the service with what is kept, and wait until it is ready."""
        with self._heard:
            self.told.clear()
            pairs = [(name, fd) for name, fds in self.store.items() for fd in fds]
        fds = [fd for _, fd in pairs]
        environment = dict(os.environ, NOTIFY_SOCKET=str(self._folder / "notify"))
        if self._keeps:
            environment |= {"FDSTORE": "1000"}
        if pairs:
            environment |= {"LISTEN_FDS": str(len(pairs)), "LISTEN_FDNAMES": ":".join(name for name, _ in pairs)}
        if self._watchdog_s:
            environment |= {"WATCHDOG_USEC": str(int(self._watchdog_s * 1e6))}
        start = [sys.executable, "-c", _START, ",".join(map(str, fds)), str(len(fds)), *self._command]
        self.process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment, pass_fds=fds)
        self._readers.append(threading.Thread(target=self._read, args=(self.process,), daemon=True))
        self._readers[-1].start()
        self.wait_for("READY=1")

    def wait_for(self, line: str) -> None:
        """Wait until the service has told this."""
        with self._heard:
            assert self._heard.wait_for(lambda: line in self.told or self.process.poll() is not None, START_MAX_S), line
            # What it told before it ended may still be on its way.
            assert self._heard.wait_for(lambda: line in self.told, TIMEOUT_S), "".join(self.log)

    def end(self, number: int) -> None:
        """Send the service a signal, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(TIMEOUT_S)
        assert self.process.returncode in (0, -number), "".join(self.log)

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End it in this way, and start it again."""
        self.end(number)
        self.start()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller, contextlib.suppress(TimeoutError):
            teller.settimeout(TIMEOUT_S)
            teller.sendto(b"over", str(self._folder / "notify"))
        self._listener.join(TIMEOUT_S)
        self._socket.close()
        for fds in self.store.values():
            for fd in fds:
                os.close(fd)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            self.log += process.stderr

    def _hear(self) -> None:
        while True:
            data, ancillary, flags, _ = self._socket.recvmsg(4096, 4096, socket.MSG_CMSG_CLOEXEC)
            assert not flags & socket.MSG_CTRUNC
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            if data == b"over":
                return
            lines = data.decode().split("\n")
            with self._heard:
                self._take(lines, list(fds))
                self._heard.notify_all()

    def _take(self, lines: list[str], fds: list[int]) -> None:
        name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
        if "FDSTORE=1" in lines:
            assert self._keeps
            assert "FDPOLL=0" in lines
            assert name not in self.store, "a name is used once"
            self.store[name] = fds
        elif "FDSTOREREMOVE=1" in lines:
            for fd in self.store.pop(name, []):
                os.close(fd)
        else:
            self.told += lines
