"""A real Dask cluster: a scheduler and two workers of one thread, each a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil

_READY_MAX_S = 60.0


class DaskCluster:
    """The processes; use it in a `with` statement, which kills them.

    Attributes:
        address: the scheduler's.
        workers: the processes of the workers.
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        """Start them, and wait until the scheduler is there; workers connect when they are ready."""
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        found = folder / "scheduler.json"
        try:
            self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(found))
            self.address = self._address(found)
            self.workers = [
                self._start(
                    "worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1",
                    "--local-directory", str(folder), number=number,
                ) for number in range(workers)
            ]  # fmt: skip
            self._await_workers(workers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, what: str, *arguments: str, number: int = 0) -> psutil.Process:
        command = [sys.executable, "-m", "dask", what, "--no-dashboard", *arguments]
        with (self._folder / f"{what}{number}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder))
        return psutil.Process(self._processes[-1].pid)

    def _address(self, path: Path) -> str:
        give_up_s = time.monotonic() + _READY_MAX_S
        while True:
            assert time.monotonic() < give_up_s, self.log("scheduler")
            try:
                return str(json.loads(path.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.05)

    def _await_workers(self, count: int) -> None:
        give_up_s = time.monotonic() + _READY_MAX_S
        while self.log("scheduler").count("Register worker") < count:
            assert time.monotonic() < give_up_s, self.log("scheduler")
            time.sleep(0.05)

    def log(self, what: str, number: int = 0) -> str:
        """What a process has written."""
        return (self._folder / f"{what}{number}.log").read_text()
