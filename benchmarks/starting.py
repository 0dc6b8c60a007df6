"""How long one waits: for the first run's first burst once kernels are compiled, and for the default grid.

The first is of `pagetide run` with a cache of its own, which `tools/compile_kernels` fills as `make setup` does.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row

_ROOT = Path(__file__).parent.parent
_PAGETIDE = (sys.executable, "-m", "pagetide.cli")


def _first_burst_s(environment: dict[str, str]) -> float:
    start_s = time.perf_counter()
    with subprocess.Popen(
        [*_PAGETIDE, "run", "--bursts", "1"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        eating_s = next(time.perf_counter() - start_s for line in process.stdout if "burst 1" in line)
        process.stdout.read()
    return eating_s


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with tempfile.TemporaryDirectory(prefix="pagetide-") as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        start_s = time.perf_counter()
        subprocess.run([_ROOT / "tools/compile_kernels"], check=True, stdout=subprocess.DEVNULL, env=environment)
        yield Row("start, compiling all kernels", time.perf_counter() - start_s, "s")
        yield Row("start, first run to its first burst", _first_burst_s(environment), "s", at_most=4)
        start_s = time.perf_counter()
        grid = [*_PAGETIDE, "compare", "--out", f"{folder}/grid"]
        subprocess.run(grid, check=True, capture_output=True, env=environment)
        yield Row("default grid, its report included", time.perf_counter() - start_s, "s", at_most=60)
