"""How long `pagetide fleet` takes as a whole, on two workers, and how much memory: a month of 500 VMs, and many more.

The usage is a made-up month of 500 VMs, written to a file as monitors write it, and read by the command; a larger fleet
is drawn from it. Memory is that of the command and all its workers, what they share counted once (PSS), looked at every
second, so that a shorter peak is missed.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np

from benchmarks.rows import Row
from pagetide.fleet.learning.settings import SETTINGS
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.units import GIB

MILLION = 1_000_000
_VMS, _DAYS, _WORKERS = 500, 30, 2
_EVERY_S = 1.0


class Spent(NamedTuple):
    """What a command took."""

    wall_s: float
    cpu_s: float
    most_bytes: int


def month() -> Iterator[Row]:
    """500 VMs under every setting that there is, first without other VMs drawn from them, then with."""
    with tempfile.TemporaryDirectory(prefix="pagetide-fleet-") as folder:
        usage = _written(Path(folder))
        for what, more, at_most in (("", ("--draws", "0"), 20.0), (", 40 draws", (), None)):
            name = f"fleet, a month of 500 VMs, all settings{what}"
            try:
                took = _run(usage, Path(folder) / f"out{what}", ("--settings", ",".join(SETTINGS), *more))
            except RuntimeError as failed:
                yield Row(name, None, "s", note=str(failed))
                continue
            note = f"{len(SETTINGS)} settings for two kinds of guests; {took.cpu_s:.0f} s of CPU"
            yield Row(name, took.wall_s, "s", at_most=at_most, note=note)


def drawn(vms: int) -> Iterator[Row]:
    """So many VMs, under one setting for one kind of guest, and the two bounds."""
    name = f"fleet, {vms:,} VMs over {_DAYS} days"
    share = vms / MILLION
    with tempfile.TemporaryDirectory(prefix="pagetide-fleet-") as folder:
        more = (
            "--drawn",
            str(vms),
            "--settings",
            "linux-9",
            "--guests",
            "anywhere",
            "--place",
            "quantile:0.95",
            "--draws",
            "0",
        )
        try:
            took = _run(_written(Path(folder)), Path(folder) / "out", more)
        except RuntimeError as failed:
            yield Row(name, None, "s", note=str(failed))
            return
    yield Row(name, took.wall_s, "s", at_most=600 * share, note=f"{took.cpu_s:.0f} s of CPU, two workers")
    yield Row(f"{name}, memory", took.most_bytes / GIB, "GiB", at_most=2.0, note="the command and its workers")


def _written(folder: Path) -> Path:
    """A made-up month as a Parquet file with a row a sample."""
    fleet = MadeUp(_VMS, _DAYS, seed=1)
    usage, _ = fleet.read(0, _VMS)
    vm, step = (index.ravel() for index in np.indices(usage.used_bytes.shape))
    columns = {
        "vm": vm,
        "time_s": fleet.grid.start_s + step * fleet.grid.step_s,
        "capacity_bytes": usage.capacity_bytes.ravel().astype(np.int64),
        "used_bytes": usage.used_bytes.ravel().astype(np.int64),
    }
    path = folder / "usage.parquet"
    with duckdb.connect() as database:
        database.register("samples", columns)
        database.execute(f"COPY (SELECT * FROM samples) TO '{path}' (FORMAT parquet)")
    return path


def _run(usage: Path, out: Path, more: Sequence[str]) -> Spent:
    """Run the command.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "pagetide.cli", "fleet", "--usage", str(usage), "--out", str(out), *more]
    return spent([*command, "--workers", str(_WORKERS)])


def spent(command: Sequence[str]) -> Spent:
    """Run a command, and see what it takes; it is killed if this is interrupted.

    Raises:
        RuntimeError: it failed.
    """
    start_s, over, most_bytes = time.perf_counter(), threading.Event(), [0]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)

        def sample() -> None:
            while not over.is_set():
                most_bytes.append(sum(map(_pss_bytes, _family(process.pid))))
                over.wait(_EVERY_S)

        sampler = threading.Thread(target=sample, name="sampler", daemon=True)
        sampler.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - start_s
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            over.set()
            sampler.join()
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[0]} failed: {said.read().decode(errors='replace')[-500:]}")
    return Spent(wall_s, used.ru_utime + used.ru_stime, max(most_bytes))


def _family(pid: int) -> Iterator[int]:
    """A process and all that come from it, as far as they are still there."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _family(child)


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
