"""A wheel, as pip builds and installs it: what it brings, and that a user of it waits for no compiler."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pagetide.kernel_cache import source_key

pytestmark = [pytest.mark.slow, pytest.mark.jit, pytest.mark.alone]

ROOT = Path(__file__).parents[2]

STARTED = """
from pagetide.machine.kernels.ahead import ALL, compile_kernels
told = []
assert compile_kernels(ALL, told.append)
import pagetide
print(pagetide.__file__, told)
"""


def build(folder: Path, **variables: str) -> Path:
    """Build a wheel of this source with what is installed here."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--no-index"]
    environment = os.environ | variables
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_who_installs_a_wheel_waits_for_no_compiler(tmp_path: Path) -> None:
    """It is for this Python and machine, brings all kernels of these sources, and the first start compiles none."""
    wheel = build(tmp_path)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.split("-", 2)[2].startswith(f"{python}-{python}-linux_")
    with zipfile.ZipFile(wheel) as file:
        kernels = [name for name in file.namelist() if name.endswith(".nbc")]
        assert len(kernels) > 200
        assert {Path(name).parts[:3] for name in kernels} == {("pagetide", "compiled", f"kernels-{source_key()}")}
        file.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = subprocess.check_output([sys.executable, "-c", STARTED], env=environment, cwd=tmp_path, text=True).split()
    assert said == [str(tmp_path / "installed/pagetide/__init__.py"), "[]"]


def test_a_wheel_for_other_machines_brings_no_kernels(tmp_path: Path) -> None:
    """With PAGETIDE_KERNELS=0 it is the same for all, and the first start compiles."""
    wheel = build(tmp_path, PAGETIDE_KERNELS="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        assert not any("compiled" in name for name in file.namelist())


def test_where_no_kernels_can_be_compiled_the_wheel_has_none(tmp_path: Path) -> None:
    """A Python without a compiler, here one that says so: the build goes on."""
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    wheel = build(tmp_path, PYTHONPATH=str(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
