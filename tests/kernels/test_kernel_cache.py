"""Where compiled kernels are kept, and when an earlier compilation is used again."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba
import pytest

from pagetide import kernel_cache
from pagetide.kernel_cache import KernelLocator, source_key

pytestmark = pytest.mark.slow

DAY_S = 24 * 3600
KERNELS = "from pagetide.jit import kernel\n@kernel\ndef f(a):\n    return a\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with kernels, without, and with words about kernels."""
    folder = tmp_path / "package"
    (folder / "below").mkdir(parents=True)
    (folder / "below/kernels.py").write_text(KERNELS)
    (folder / "plain.py").write_text("import sys\n")
    (folder / "README.md").write_text("A @kernel is a function.\n")
    return folder


def test_a_changed_kernel_changes_the_key(package: Path) -> None:
    """Any change of a file that holds kernels gives another key, and undoing it gives the first one again."""
    key = source_key(package)
    (package / "below/kernels.py").write_text(KERNELS.replace("return a", "return a + 1"))
    assert source_key(package) != key
    (package / "below/kernels.py").write_text(KERNELS)
    assert source_key(package) == key


def test_a_changed_inlined_kernel_changes_the_key(package: Path) -> None:
    """A file all of whose kernels are inlined counts as well."""
    inlined = KERNELS.replace("kernel", "inline_kernel")
    (package / "inlined.py").write_text(inlined)
    key = source_key(package)
    (package / "inlined.py").write_text(inlined.replace("return a", "return a + 1"))
    assert source_key(package) != key


def test_a_moved_or_added_kernel_changes_the_key(package: Path) -> None:
    """The key depends on where kernels are, and on all of them."""
    key = source_key(package)
    (package / "below/kernels.py").rename(package / "kernels.py")
    moved = source_key(package)
    (package / "below/kernels.py").write_text(KERNELS)
    assert len({key, moved, source_key(package)}) == 3


def test_a_changed_constant_changes_the_key(package: Path) -> None:
    """Constants are compiled into kernels: a file that a kernel's file imports counts, and what that one imports."""
    (package / "below/sizes.py").write_text("SIZE = 1\n")
    (package / "below/layout.py").write_text("from pagetide.below.sizes import SIZE\n")
    (package / "below/kernels.py").write_text("from pagetide.below.layout import SIZE\n" + KERNELS)
    key = source_key(package)
    (package / "below/sizes.py").write_text("SIZE = 2\n")
    assert source_key(package) != key
    key = source_key(package)
    (package / "plain.py").write_text("import os\n")
    assert source_key(package) == key


def test_words_do_not_change_the_key(package: Path) -> None:
    """A document may say what it likes about kernels."""
    key = source_key(package)
    (package / "README.md").write_text("A @kernel is something else.\n")
    (package / "notes.txt").write_text(KERNELS)
    assert source_key(package) == key


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of a user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pagetide"


def made(folder: Path, days_ago: float) -> Path:
    """A folder of compiled kernels, last used so long ago."""
    (folder / "memory").mkdir(parents=True)
    (folder / "memory/kernel.nbc").write_bytes(b"")
    os.utime(folder, times=(time.time() - days_ago * DAY_S,) * 2)
    return folder


def test_the_cache_is_the_users_and_named_after_the_sources(cache: Path) -> None:
    """The folder is made below XDG_CACHE_HOME, and carries the key."""
    folder = kernel_cache._cache_folder()
    assert folder == cache / f"kernels-{source_key()}"
    assert folder.is_dir()


def test_stale_folders_are_removed(cache: Path) -> None:
    """Kernels of other sources that nobody used for two weeks go; recent ones and all else stay."""
    stale, recent, other = made(cache / "kernels-1", 15), made(cache / "kernels-2", 13), made(cache / "results", 99)
    kernel_cache._cache_folder()
    assert (stale.exists(), recent.exists(), other.exists()) == (False, True, True)


def test_of_many_folders_those_used_last_stay(cache: Path) -> None:
    """Beyond sixteen, this source's own among them, the others go that were not used within the last two hours."""
    made(cache / f"kernels-{source_key()}", 0)
    lately = [made(cache / f"kernels-{number}", 0.01) for number in range(3)]
    older = [made(cache / f"kernels-{number}", number / 2) for number in range(3, 20)]
    kernel_cache._cache_folder()
    assert all(folder.exists() for folder in lately)
    assert [folder.exists() for folder in older] == [True] * 12 + [False] * 5
    for number in range(20, 40):
        made(cache / f"kernels-{number}", 0.02)
    kernel_cache._cache_folder()
    assert [folder.exists() for folder in older] == [False] * 17
    assert len(list(cache.iterdir())) == 1 + 3 + 20


@pytest.mark.jit
def test_who_runs_on_kernels_that_are_removed_goes_on(tmp_path: Path) -> None:
    """What it has compiled stays with it, and what it compiles from then on is kept in the folder made anew."""
    (tmp_path / "kernels.py").write_text(
        "import shutil\nfrom pagetide.jit import kernel\nfrom pagetide.kernel_cache import CACHE_FOLDER\n\n"
        "@kernel\ndef one(a: int) -> int:\n    return a + 1\n\n"
        "@kernel\ndef two(a: int) -> int:\n    return a + 2\n\n"
        "assert one(1) == 2\nassert list(CACHE_FOLDER.rglob('*one*.nbc'))\nshutil.rmtree(CACHE_FOLDER)\n"
        "assert (one(1), two(1)) == (2, 3)\nassert list(CACHE_FOLDER.rglob('*two*.nbc'))\n"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "kernels.py"], cwd=tmp_path, env=environment, check=True)


def test_a_folder_in_use_is_not_stale(cache: Path) -> None:
    """However long ago it was made, this source's own folder stays, and using it makes it recent."""
    mine = made(cache / f"kernels-{source_key()}", 99)
    assert kernel_cache._cache_folder() == mine
    assert (mine / "memory/kernel.nbc").exists()
    assert time.time() - mine.stat().st_mtime < DAY_S


def test_without_a_home_kernels_are_cached_elsewhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache cannot be made, a folder for temporary files serves, which nobody else may enter."""
    cache.write_text("a file, where the folder should be")
    monkeypatch.setattr(tempfile, "tempdir", str(cache.parent / "tmp"))
    (cache.parent / "tmp").mkdir()
    folder = kernel_cache._cache_folder()
    assert folder.parent == cache.parent / "tmp"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.jit
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (sys.implementation, "cache_tag", "cpython-399"),
        (numba, "__version__", "9.9"),
    ],
)
def test_what_another_python_or_numba_compiled_does_not_count(
    where: object, name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are looked for by all of these, so a step is compiled for one of each alone."""
    monkeypatch.setattr(kernel_cache, "CACHE_FOLDER", tmp_path)
    kernel_cache.mark_compiled("step")
    assert kernel_cache.is_compiled("step")
    with monkeypatch.context() as other:
        other.setattr(where, name, value)
        assert not kernel_cache.is_compiled("step")
    assert kernel_cache.is_compiled("step")


@pytest.mark.jit
@pytest.mark.parametrize("first", ["pagetide.jit", "pagetide.atomics", "numba"])
def test_a_second_process_compiles_nothing(first: str, tmp_path: Path) -> None:
    """Kernels that one process compiled are in our folder and loaded by the next, whatever is imported first."""
    script = f"""
import {first}
import numba
import numpy as np
from pagetide.kernel_cache import CACHE_FOLDER
before = any(CACHE_FOLDER.rglob('*.nbc'))
from pagetide.memory.region_map import find_region
find_region(np.zeros((1, 5), np.int64), 0, 1)
assert find_region.stats.cache_path.startswith(str(CACHE_FOLDER))
print(before, sum(find_region.stats.cache_hits.values()), sum(find_region.stats.cache_misses.values()))
"""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    said = [subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).split() for _ in "12"]
    assert said == [["False", "0", "1"], ["True", "1", "0"]]


@pytest.mark.jit
def test_what_one_copy_of_the_package_compiled_serves_another(tmp_path: Path) -> None:
    """The same sources at another place load it; a kernel in a file outside of the package is known by its path."""
    script = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from pagetide.memory.region_map import find_region
find_region(np.zeros((1, 5), np.int64), 0, 1)
assert find_region.py_func.__code__.co_filename.startswith(sys.argv[1])
print(sum(find_region.stats.cache_hits.values()))
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("PYTHONPATH", None)
    hits = []
    for name in ("one", "other"):
        shutil.copytree(kernel_cache._PACKAGE, tmp_path / name / "pagetide")
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        hits.append(subprocess.check_output(command, env=environment, text=True).strip())
    assert hits == ["0", "1"]
    theirs = [KernelLocator(tmp_path / name / "kernels.py", 1).get_cache_path() for name in ("one", "other")]
    assert len(set(theirs)) == 2


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What a wheel of these sources brings."""
    made(tmp_path / f"built/kernels-{source_key()}", 99)
    return tmp_path / "built"


def test_what_a_wheel_brings_is_where_a_new_folder_begins(cache: Path, built: Path) -> None:
    """It is copied whole into a folder that only its user may enter, and what is there already stays as it is."""
    folder = kernel_cache._cache_folder(built)
    kept = folder / "memory/kernel.nbc"
    assert kept.read_bytes() == b""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in cache.iterdir()] == [folder.name]
    kept.write_bytes(b"mine")
    assert kernel_cache._cache_folder(built) == folder
    assert kept.read_bytes() == b"mine"


def test_what_a_wheel_brings_for_other_sources_is_left_alone(cache: Path, built: Path) -> None:
    """Somebody changed a file of the installed package: the folder begins empty."""
    next(built.iterdir()).rename(built / "kernels-0")
    assert list(kernel_cache._cache_folder(built).iterdir()) == []


def test_who_is_second_to_bring_it_uses_what_is_there(
    cache: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the folder while this one copies: that one's is used, and nothing is left over."""
    right = shutil.copytree

    def copied_late(*arguments: Any, **options: Any) -> Any:
        result = right(*arguments, **options)
        made(cache / f"kernels-{source_key()}", 0)
        return result

    monkeypatch.setattr(shutil, "copytree", copied_late)
    folder = kernel_cache._cache_folder(built)
    assert (folder / "memory/kernel.nbc").exists()
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_what_is_left_of_a_copy_goes_as_other_folders_do(
    cache: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed as it copies leaves a folder, which nobody uses, and which is stale in two weeks."""

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as copying:
        copying.setattr(shutil, "copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            kernel_cache._cache_folder(built)
    (left,) = cache.iterdir()
    os.utime(left, times=(time.time() - 15 * DAY_S,) * 2)
    folder = kernel_cache._cache_folder(built)
    assert list(cache.iterdir()) == [folder]
