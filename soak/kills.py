"""A daemon that is killed, stopped and taken over while guests report without pause, and misses nothing."""

import contextlib
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from soak.daemons import ReadDaemon, ReadLog, Sentences
from soak.honest import HonestGuest
from soak.part import BrokenError, Part, Trial
from tests.host.daemon.test_restart import take_over
from tests.host.little_service_manager import LittleServiceManager

_GUESTS = 3
_END_MAX_S = 120.0
_WAYS = ("killed with SIGKILL", "stopped with SIGTERM", "taken over")


class Kills(Part):
    """Each seed is one end of a daemon at a moment of chance, and its successor."""

    name = "kills"
    what = "a daemon that ends under load, and its successor"

    def __init__(self, *, keeps: bool = True) -> None:
        """Under a service manager that keeps descriptors, unless this is to be broken."""
        self._keeps = keeps
        self.sentences = Sentences(["host/daemon", "host/guest/keep.py", "host/guest/kept_connection.py"])

    def paths(self) -> frozenset[str]:
        """Each way to end, with and without a report that is out, and what a daemon can say of it."""
        moments = {f"{way}, a report {moment}" for way in _WAYS for moment in ("out", "not out")}
        return frozenset(moments | self.sentences.paths)

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """Daemons with guests: one under a service manager, and one that is taken over."""
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            managed = Managed(folder / "managed", ReadLog(self.sentences, reached), resources, keeps=self._keeps)
            alone = TakenOver(folder / "alone", ReadLog(self.sentences, reached), resources)

            def trial(seed: int) -> None:
                rng = random.Random(seed)
                way = rng.choice(_WAYS[:1] * 3 + _WAYS[1:])
                scene = alone if way == _WAYS[2] else managed
                before = scene.rounds()
                time.sleep(rng.choice((0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.3))))
                out = any(guest.is_waiting for guest in scene.guests)
                scene.end(way)
                reached[f"{way}, a report {'out' if out else 'not out'}"] += 1
                for guest in scene.guests:
                    guest.check(more=2)
                scene.log.check()
                reached["reports verified"] += scene.rounds() - before

            yield trial


class _Scene:
    """A daemon and its guests."""

    guests: list[HonestGuest]
    log: ReadLog

    def rounds(self) -> int:
        """Reports acknowledged and verified."""
        return sum(guest.rounds for guest in self.guests)

    def attach(self, resources: ExitStack, path: Path) -> None:
        """Have guests report."""
        self.guests = [resources.enter_context(HonestGuest(path, seed)) for seed in range(_GUESTS)]


class Managed(_Scene):
    """Started again by a service manager, as systemd would."""

    def __init__(self, folder: Path, log: ReadLog, resources: ExitStack, *, keeps: bool) -> None:
        folder.mkdir()
        self.log = log
        path = folder / "one.sock"
        self._manager = resources.enter_context(LittleServiceManager(folder, "--socket", str(path), keeps=keeps))
        self._read = 0
        self.attach(resources, path)

    def end(self, way: str) -> None:
        """End the daemon so, and start it again."""
        try:
            self._manager.restart(signal.SIGKILL if "KILL" in way else signal.SIGTERM)
        except AssertionError as error:
            raise BrokenError(f"the daemon does not start again: {str(error)[-400:]}") from error
        lines = self._manager.log[self._read :]
        self._read += len(lines)
        for line in lines:
            self.log.take(line)


class TakenOver(_Scene):
    """Taken over by `pagetide serve --take-over`."""

    def __init__(self, folder: Path, log: ReadLog, resources: ExitStack) -> None:
        folder.mkdir()
        self.log, self._folder = log, folder
        first = ReadDaemon(folder, log)
        resources.callback(first.close)
        self._process = first.process
        resources.callback(self._close)
        self.attach(resources, folder / "one.sock")

    def end(self, way: str) -> None:
        """Have a successor take over, and the daemon end."""
        successor = take_over(self._folder)
        threading.Thread(target=self._follow, args=(successor.stderr,), daemon=True).start()
        before, self._process = self._process, successor
        try:
            status = before.wait(_END_MAX_S)
        except Exception as error:
            raise BrokenError(f"the daemon that was taken over goes on: {error}") from error
        finally:
            if before.poll() is None:
                before.kill()
                before.wait()
        if status != 0:
            raise BrokenError(f"the daemon that was taken over ended with status {status}")

    def _follow(self, stream: Iterator[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in stream:
                self.log.take(line)

    def _close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
