"""Where compiled kernels are kept, and for what they hold.

numba notices a changed file only for the functions in that file, so the folder is named after a hash of every file of
the package with kernels, or with what they are compiled from. In it a kernel has its place by that of its file in the
package, so what one copy of the package has compiled serves any other that is the same.

A wheel brings what was compiled where it was built (`BUILT`); numba tells by processor and version whether it fits.
"""

import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numba
from llvmlite import binding
from numba.core.caching import _CacheLocator

_PACKAGE = Path(__file__).parent
_IMPORTED = re.compile(rb"^\s*from pagetide\.([\w.]+) import", re.MULTILINE)
_COMPILED = re.compile(rb"@(inline_)?kernel|@intrinsic")
_STALE_AFTER_S = 14 * 24 * 3600
_FOLDERS_MAX = 16
BUILT = _PACKAGE / "compiled"
"""Where a wheel has a folder of kernels (tools/build_kernels.py)."""

_IN_USE_S = 2 * 3600
"""A folder that was used so lately stays, however many there are: somebody may be compiling into it."""


def source_key(package: Path = _PACKAGE) -> str:
    """Hash of the package's files that hold kernels, and of all they import: constants are compiled in."""
    sources = {path: path.read_bytes() for path in sorted(package.rglob("*.py"))}
    hashed = [path for path, source in sources.items() if _COMPILED.search(source)]
    for path in hashed:  # it grows
        for name in _IMPORTED.findall(sources[path]):
            imported = package.joinpath(*name.decode().split(".")).with_suffix(".py")
            if imported in sources and imported not in hashed:
                hashed.append(imported)
    digest = hashlib.sha256()
    for path in sorted(hashed):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + sources[path] + b"\0")
    return digest.hexdigest()[:16]


def _cache_folder(built: Path = BUILT) -> Path:
    """The folder for this package's compiled kernels, made if need be; those of old sources are removed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pagetide"
    folder = base / f"kernels-{source_key()}"
    built = built / folder.name
    try:
        base.mkdir(parents=True, exist_ok=True)
        _make(folder, built)
        os.utime(folder)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"pagetide-{os.getuid()}-{folder.name}"
        _make(folder, built)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # what is in there gets executed
            folder = Path(tempfile.mkdtemp(prefix="pagetide-"))
    else:
        _remove_others(base, folder)
    return folder


def _make(folder: Path, built: Path) -> None:
    """Make a folder that only we may enter, with what was built, if there is none: all of it at once, or nothing.

    What is left of a copy that was broken off goes as other folders do.
    """
    if not folder.exists() and built.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            shutil.copytree(built, fresh, dirs_exist_ok=True, copy_function=shutil.copyfile)
            fresh.chmod(0o700)
            fresh.rename(folder)
        except OSError:  # no room, or another process was first
            shutil.rmtree(fresh, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _remove_others(base: Path, own: Path) -> None:
    """Remove what nobody has used for long, and beyond so many all but what is in use.

    Whoever still runs on what is removed has its kernels in memory, and numba makes the folder anew for further ones.
    """
    used_s: dict[Path, float] = {}
    for other in base.glob("kernels-*"):
        with suppress(OSError):  # another process may be removing it
            used_s[other] = time.time() - other.stat().st_mtime
    used_s.pop(own, None)
    for number, other in enumerate(sorted(used_s, key=used_s.__getitem__), 2):
        if used_s[other] > (_STALE_AFTER_S if number <= _FOLDERS_MAX else _IN_USE_S):
            shutil.rmtree(other, ignore_errors=True)


CACHE_FOLDER = _cache_folder()
"""Where compiled kernels are kept, in a folder for each of our source folders."""


class KernelLocator(_CacheLocator):  # type: ignore[misc]
    """Where numba keeps a kernel, and what of. numba before 0.62 does not ask for it, and goes by the source's path."""

    def __init__(self, file: Path, line: int) -> None:
        """A kernel that begins at a line of this file."""
        self._file, self._line = file, line

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self | None:
        """That of a function; None for one that is in no file."""
        file = Path(py_file)
        return cls(file, py_func.__code__.co_firstlineno) if file.exists() else None

    def get_cache_path(self) -> str:
        """The folder."""
        if self._file.is_relative_to(_PACKAGE):
            return str(CACHE_FOLDER / self._file.relative_to(_PACKAGE).parent)
        return str(CACHE_FOLDER / self.get_suitable_cache_subpath(str(self._file)))

    def get_source_stamp(self) -> bytes:
        """A hash of the file."""
        return _hash_of(self._file)

    def get_disambiguator(self) -> str:
        """What tells it from others of its name."""
        return str(self._line)


@functools.cache
def _hash_of(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def have_kernels_kept() -> None:
    """Have numba keep what it compiles from now on in the folder, in processes that are started, too."""
    settings = {"CACHE_DIR": str(CACHE_FOLDER), "CACHE_LOCATOR_CLASSES": f"{__name__}.{KernelLocator.__name__}"}
    for name, value in settings.items():
        # It reads variables when it is imported, which may have happened, and again whenever one of its own changes.
        os.environ[f"NUMBA_{name}"] = value
        setattr(numba.config, name, value)


def is_compiled(step: str) -> bool:
    """Whether all kernels of a step were compiled for this processor, as `mark_compiled` was told."""
    return _mark_of(step).exists()


def mark_compiled(step: str) -> None:
    """Keep that all kernels of a step, whatever the caller means by it, are in the cache."""
    _mark_of(step).touch()


def _mark_of(step: str) -> Path:
    """Named after all by which numba tells kernels of the same source apart: what compiled them for what."""
    python, processor = sys.implementation.cache_tag, binding.get_host_cpu_name()
    return CACHE_FOLDER / f"{step}-{python}-{numba.__version__}-{processor}.compiled"
