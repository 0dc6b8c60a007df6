"""The decorator: what kernels are compiled to."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pagetide.jit import inline_kernel, kernel
from pagetide.kernel_cache import CACHE_FOLDER
from pagetide.machine.live.guest_warm_up import warm_up_guest
from pagetide.machine.live.host_warm_up import warm_up_host

pytestmark = pytest.mark.slow


@kernel
def total(values: npt.NDArray[np.int64], start: int) -> int:
    """A sum, by calls with an array from one kernel to another."""
    return 0 if start >= len(values) else values[start] + total_from(values, start + 1)


@kernel
def total_from(values: npt.NDArray[np.int64], start: int) -> int:
    """The sum of the rest."""
    rest = 0
    for index in range(start, len(values)):
        rest += values[index]
    return rest


def test_a_kernel_computes_what_its_python_says() -> None:
    """Compiled or not, the answer is the same."""
    assert total(np.arange(100), 1) == sum(range(1, 100))


@inline_kernel
def count_up(values: Any, at: int) -> Any:
    """Add one to a value; what it was."""
    values[at] += 1
    return values[at] - 1


@kernel
def total_counted_up(values: Any) -> int:
    """A sum of what another kernel answers, whose body it has."""
    sum_ = 0
    for at in range(len(values)):
        sum_ += count_up(values, at)
    return sum_


def test_an_inlined_kernel_computes_what_its_python_says() -> None:
    """Compiled or not, the answer is the same, and what was written is there."""
    values = np.arange(100)
    assert total_counted_up(values) == sum(range(100))
    assert list(values) == list(range(1, 101))


@pytest.mark.jit
def test_no_kernel_counts_references() -> None:
    """No compiled kernel, of the guest, the host or those that other tests left in the cache, refers to NRT_incref."""
    warm_up_guest()
    warm_up_host()
    compiled = list(CACHE_FOLDER.rglob("*.nbc"))
    assert len(compiled) >= 20
    assert [path.name for path in compiled if b"NRT_incref" in path.read_bytes()] == []


@pytest.mark.jit
def test_without_the_decorator_references_are_counted(tmp_path: Path) -> None:
    """The control of the test above: the same code, compiled with numba's own decorator, does refer to it."""
    source = Path(__file__).read_text()
    start, end = source.index("@kernel\ndef total"), source.index("def test_a_kernel")
    plain = (
        source[start:end]
        .replace("@kernel", "@numba.njit(nogil=True, cache=True)")
        .replace("npt.NDArray[np.int64]", "object")
    )
    (tmp_path / "plain.py").write_text(f"import numba\nimport numpy as np\n{plain}\nassert total(np.arange(100), 1)")
    subprocess.run(
        [sys.executable, "plain.py"],
        cwd=tmp_path,
        env=os.environ | {"NUMBA_CACHE_DIR": "cache", "NUMBA_CACHE_LOCATOR_CLASSES": ""},
        check=True,
    )
    compiled = list(tmp_path.rglob("*.nbc"))
    assert any(b"NRT_incref" in path.read_bytes() for path in compiled)
