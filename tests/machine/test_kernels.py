"""Kernels are compiled ahead, aloud, and once."""

import re
from pathlib import Path

import pytest

from pagetide import kernel_cache
from pagetide.machine.kernels.ahead import compile_kernels

pytestmark = pytest.mark.jit


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without kernels, here and for processes that are started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    folder = tmp_path / "pagetide" / kernel_cache.CACHE_FOLDER.name
    folder.mkdir(parents=True)
    monkeypatch.setattr(kernel_cache, "CACHE_FOLDER", folder)
    return folder


def test_what_is_compiled_is_told_and_is_there_the_next_time(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step says how many kernels there are and how many are done; when it is done it is not begun again."""
    monkeypatch.setattr("pagetide.machine.kernels.ahead._EVERY_S", 0.0)
    told: list[str] = []
    assert compile_kernels([["taking"]], told.append)
    assert told[0] == "compiling kernels (first run only)"
    counts = [tuple(map(int, found)) for line in told[1:] for found in re.findall(r"kernels (\d+)/(\d+) \(", line)]
    assert len(counts) == len(told) - 1 > 0
    assert all(0 < done <= known for done, known in counts)
    assert counts == sorted(counts)
    assert len(list(empty_cache.rglob("*.nbc"))) >= counts[-1][0]
    told.clear()
    assert compile_kernels([["taking"]], told.append)
    assert told == []


def test_a_step_that_breaks_is_not_done(empty_cache: Path) -> None:
    """It is said, and tried again the next time."""
    assert not compile_kernels([["nothing of this name"]], lambda _: None)
    assert not kernel_cache.is_compiled("nothing of this name")
