"""How long one waits: for the first run's first burst, and for the default grid.

Runs are of `pagetide run` with a cache of its own: one that `tools/compile_kernels` has filled, as `make setup` does,
and an empty one. With that a wheel brings what was compiled when pip built it; one of another machine brings nothing,
and all is waited for that is compiled, by the guest and the host beside one another; a row says for how long nothing is
said meanwhile, at most.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import Row

_ROOT = Path(__file__).parent.parent
_PAGETIDE = (sys.executable, "-m", "pagetide.cli")
_RUN = (*_PAGETIDE, "run", "--bursts", "1")
_FIRST_BURST_MAX_S = 4
_SILENT_MAX_S = 5


class _Start(NamedTuple):
    """A run's way to its first burst: how long it took, and how long it said nothing at most."""

    first_burst_s: float
    silent_s: float


def start(environment: Mapping[str, str], command: Sequence[str] = _RUN) -> _Start:
    """Run to the end, and time what is said up to the first burst.

    Raises:
        RuntimeError: the run failed, or said nothing of a burst.
    """
    said_s, said = [time.perf_counter()], list[str]()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said_s.append(time.perf_counter())
            said.append(line)
            if "burst 1" in line:
                break
        else:
            raise RuntimeError(f"pagetide run had no burst: {''.join(said)[-500:]}")
        rest = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"pagetide run failed: {rest[-500:]}")
    return _Start(said_s[-1] - said_s[0], max(after - before for before, after in pairwise(said_s)))


def _grid_s(folder: str, environment: Mapping[str, str]) -> float:
    """The default grid with its report."""
    start_s = time.perf_counter()
    grid = [*_PAGETIDE, "compare", "--out", f"{folder}/grid"]
    subprocess.run(grid, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start_s


def _of_wheel() -> Iterator[Row]:
    """How long pip builds a wheel, and the first run of what it has installed."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(prefix="pagetide-") as folder:
        start_s = time.perf_counter()
        built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(_ROOT)]
        subprocess.run(built, check=True, stdout=subprocess.DEVNULL)
        yield Row("start, pip builds a wheel", time.perf_counter() - start_s, "s")
        wheels = [str(path) for path in Path(folder).glob("*.whl")]
        subprocess.run([*pip, "install", "--no-deps", "--target", f"{folder}/installed", *wheels], check=True)
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache", "PYTHONPATH": f"{folder}/installed"}
        first = start(environment)
        yield Row("start, as after pip install, to its first burst", first.first_burst_s, "s", _FIRST_BURST_MAX_S)


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with tempfile.TemporaryDirectory(prefix="pagetide-") as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        start_s = time.perf_counter()
        subprocess.run([_ROOT / "tools/compile_kernels"], check=True, stdout=subprocess.DEVNULL, env=environment)
        yield Row("start, compiling all kernels", time.perf_counter() - start_s, "s")
        first = start(environment)
        yield Row("start, first run to its first burst", first.first_burst_s, "s", at_most=_FIRST_BURST_MAX_S)
        yield Row("default grid, its report included", _grid_s(folder, environment), "s", at_most=60)
    yield from _of_wheel()
    with tempfile.TemporaryDirectory(prefix="pagetide-") as folder:
        first = start(os.environ | {"XDG_CACHE_HOME": folder})
        yield Row("start, a wheel of another machine, to its first burst", first.first_burst_s, "s")
        yield Row("start, a wheel of another machine, nothing said for", first.silent_s, "s", at_most=_SILENT_MAX_S)
