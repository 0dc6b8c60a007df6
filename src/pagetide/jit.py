"""The one decorator that compiles kernels.

A kernel is a plain function over integers and arrays. `@kernel` compiles it with numba: it holds no reference counts
(`_nrt=False`; with them, a call between kernels costs eight times as much), releases the GIL, and is kept on disk
(kernel_cache.py).

With `NUMBA_DISABLE_JIT=1` kernels run as plain Python.

Addresses and values are int64 throughout: numba turns a mix of int64 and uint64 into floating point.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
from numba import types
from numba.core import event

from pagetide.kernel_cache import have_kernels_kept

have_kernels_kept()

JIT_DISABLED: bool = bool(numba.config.DISABLE_JIT)
"""Whether kernels run as plain Python."""

_names: list[str] = []
_Function = TypeVar("_Function", bound=Callable[..., Any])


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
