"""`pagetide compare` as a process of its own, on a grid of small guests that takes some seconds."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store
from pagetide.jit import JIT_DISABLED

WAIT_MAX_S = 120.0
"""How long anything may take: with a cold cache two workers compile kernels first."""

SIMULATED_BURSTS = 3 if JIT_DISABLED else 300
SETTINGS = f"bursts = {SIMULATED_BURSTS}\nrest = 1.0\neat-share = 0.5\ndelay = 0.1\n"
"""A simulated run of 16 MiB takes half a second: the last of them ends seconds after the first."""

LIVE_SETTINGS = "bursts = 1\nhold = 0.1\nrest = 0.1\neat-share = 0.5\n"
"""A live run takes as long as its processes take to start."""

DESIGNS = ("off", "scan", "cursor", "sync", "notify", "hybrid")
GRID = ("--workloads", "burst", "--designs", *DESIGNS, "--faults", "none", "--repeat", "4", "--ram", "16MiB")
RUNS = 24
"""How many runs GRID has."""


class CompareProcess:
    """A grid in a process; use it in a `with` statement, which kills what is left of it."""

    def __init__(self, folder: Path, *arguments: str, settings: str = SETTINGS) -> None:
        """Start it, with its results in this folder, and with these settings for every run."""
        path = folder.parent / "settings.toml"
        path.write_text(settings)
        grid = [] if "--resume" in arguments else ["--config", str(path), *GRID]
        command = [sys.executable, "-m", "pagetide.cli", "compare", "--out", str(folder), *grid, *arguments]
        self._log = folder.parent / f"{folder.name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.workers: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def await_first_run(self) -> None:
        """Wait until a run is done and others are not."""
        give_up_s = time.monotonic() + WAIT_MAX_S
        while not re.search(r"^[1-9]\d* of \d+ runs, ", self.output, re.MULTILINE):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < give_up_s, self.output
            time.sleep(0.005)
        below = psutil.Process(self.process.pid).children()
        self.workers = {child for child in below if "spawn_main" in " ".join(child.cmdline())}

    def await_live_guest(self) -> None:
        """Wait until a worker has started the processes of a live run; they count as workers from then on."""
        give_up_s = time.monotonic() + WAIT_MAX_S
        while len(below := psutil.Process(self.process.pid).children(recursive=True)) <= len(self.workers) + 1:
            assert time.monotonic() < give_up_s, self.output
            time.sleep(0.005)
        self.workers |= set(below)

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end_by_ctrl_c(self) -> None:
        """Interrupt it; it ends and says so, and so do its workers."""
        self.interrupt()
        assert self.status() == 130
        self.await_workers_end()

    def status(self) -> int:
        """Wait for its end."""
        return self.process.wait(WAIT_MAX_S)

    def await_workers_end(self) -> None:
        """Wait until no worker that was seen is left."""
        psutil.wait_procs(list(self.workers), WAIT_MAX_S)
        assert not any(worker.is_running() for worker in self.workers)


def runs_of(folder: Path) -> list[Run]:
    """What a folder has, each run once."""
    with Store.open(folder, read_only=True) as store:
        runs = store.runs()
    assert len({run.key for run in runs}) == len(runs)
    return runs
