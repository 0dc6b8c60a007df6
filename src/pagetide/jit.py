"""The one decorator that compiles kernels.

A kernel is a plain function over integers and arrays. `@kernel` compiles it with numba: it holds no reference counts
(`_nrt=False`; with them, a call between kernels costs eight times as much), releases the GIL, and is cached on disk.
numba notices a changed file only for the functions in that file, so the cache's folder is named after a hash of every
file of the package with kernels, or with what they are compiled from.

With `NUMBA_DISABLE_JIT=1` kernels run as plain Python.

Addresses and values are int64 throughout: numba turns a mix of int64 and uint64 into floating point.
"""

import ctypes
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding
from numba import types
from numba.core import event

_names: list[str] = []
_Function = TypeVar("_Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parent
_IMPORTED = re.compile(rb"^\s*from pagetide\.([\w.]+) import", re.MULTILINE)
_COMPILED = re.compile(rb"@(inline_)?kernel|@intrinsic")
_STALE_AFTER_S = 14 * 24 * 3600
_FOLDERS_MAX = 16
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


def _cache_folder() -> Path:
    """The folder for this package's compiled kernels, made if need be; those of old sources are removed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pagetide"
    folder = base / f"kernels-{source_key()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"pagetide-{os.getuid()}-{folder.name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # what is in there gets executed
            folder = Path(tempfile.mkdtemp(prefix="pagetide-"))
    else:
        _remove_others(base, folder)
    return folder


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
"""Where compiled kernels are kept; numba makes a folder below it for each of our source folders."""

# numba reads the variable when it is imported, which may have happened, and again whenever a NUMBA variable changes.
os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(CACHE_FOLDER)

JIT_DISABLED: bool = bool(numba.config.DISABLE_JIT)
"""Whether kernels run as plain Python."""


def kernel(function: _Function) -> _Function:
    """Compile a function over integers and arrays: cached, without the GIL and without reference counts.

    An argument array must be owned by the caller for as long as the call lasts. A kernel allocates nothing, raises
    nothing, and answers failures with negative numbers.
    """
    return _compiled(function, forceinline=False)


def inline_kernel(function: _Function) -> _Function:
    """The same, but what calls it has its body: for what is short and runs often, as a call costs several ns.

    An array is seven words to a call. What such a kernel does seldom, and takes long, is a kernel of its own.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: _Function, forceinline: bool) -> _Function:
    options = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False, "forceinline": forceinline}
    compiled: Any = numba.njit(**options)(function)
    if not JIT_DISABLED:
        _names.append(_name_of(function))
        template_of = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: template_of(tuple(map(_widened, args)), kws)
    return compiled  # type: ignore[no-any-return]


def _widened(kind: Any) -> Any:
    """An argument's type in a call between kernels: numba would compile a kernel for each constant and each width."""
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) else kind


def kernel_names() -> list[str]:
    """The kernels of all that was imported, as `telling_compiled` names them."""
    return list(_names)


@contextmanager
def telling_compiled(tell: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile, have this called with a kernel's name whenever one was compiled, and not when one was loaded."""

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, happened: event.Event) -> None:
            pass

        def on_end(self, happened: event.Event) -> None:
            tell(_name_of(happened.data["dispatcher"].py_func))

    listener = Listener()
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)


def is_compiled(step: str) -> bool:
    """Whether all kernels of a step were compiled for this processor, as `mark_compiled` was told."""
    return JIT_DISABLED or _mark_of(step).exists()


def mark_compiled(step: str) -> None:
    """Keep that all kernels of a step, whatever the caller means by it, are in the cache."""
    _mark_of(step).touch()


def _mark_of(step: str) -> Path:
    """Named after all by which numba tells kernels apart: where their source is, and what compiled them for what."""
    place = hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:8]
    python, processor = sys.implementation.cache_tag, binding.get_host_cpu_name()
    return CACHE_FOLDER / f"{step}-{place}-{python}-{numba.__version__}-{processor}.compiled"


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def external(name: str, returns: Any, *arguments: Any) -> Any:
    """A C function of this process, callable from kernels and, with JIT off, from Python."""
    if not JIT_DISABLED:
        return types.ExternalFunction(name, returns(*arguments))
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = _CTYPES[returns]
    function.argtypes = [_CTYPES[argument] for argument in arguments]
    return function


int32 = types.int32
"""A C `int`, for `external`."""

int64 = types.int64
"""A C `long`, `size_t`, `off_t` or pointer, for `external`."""

void = types.void
"""No result, for `external`."""

_CTYPES = {int32: ctypes.c_int32, int64: ctypes.c_int64, void: None}
