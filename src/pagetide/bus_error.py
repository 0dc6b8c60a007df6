"""Living through a memory file that is cut short while it is mapped.

A load or store beyond the end of a mapped file raises SIGBUS (mmap(2)), and files that are not sealed with
F_SEAL_SHRINK can be cut by whoever has them. Python's own signal handlers run long after the instruction, so the
handler here is machine code of its own: it puts a page of zeros where the access went, if that is in a range that is
guarded, notes it, and has the instruction repeated. What is read then is nonsense, like anything else that a guest may
write; whoever guards the range looks afterwards whether it was cut. Any other SIGBUS ends the process as ever.

A mapping of hugetlbfs raises SIGBUS, too, where the system has no huge page left for it, and can be replaced in whole
huge pages only.

The handler needs no lock and calls only mmap(2) and signal(2). One thread guards and looks.
"""

import ctypes
import functools
import signal
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from pagetide import linux
from pagetide.units import PAGE_SIZE_BYTES

RANGES_MAX = 1 << 16
"""Most ranges that can be guarded at once; those beyond are not."""

_SA_SIGINFO = 4  # include/uapi/asm-generic/signal-defs.h
_SIGSET_WORDS = 16
_START, _END, _CUT, _PAGE = range(4)
_COLUMNS = 4
_HEAD_WORDS = 2  # faults handled so far, and ranges in use

# siginfo_t has si_addr after three ints and padding (include/uapi/asm-generic/siginfo.h); the table is words as above.
_HANDLER = """
declare i64 @mmap(i64, i64, i32, i32, i32, i64)
declare i64 @signal(i32, i64)

define void @bus_error(i32 %number, i64 %info, i64 %context) {{
entry:
  %place = add i64 %info, 16
  %place.p = inttoptr i64 %place to i64*
  %address = load i64, i64* %place.p
  %used.p = inttoptr i64 {used} to i64*
  %used = load i64, i64* %used.p
  br label %next
next:
  %index = phi i64 [ 0, %entry ], [ %after, %more ]
  %done = icmp uge i64 %index, %used
  br i1 %done, label %fatal, label %look
look:
  %row = mul i64 %index, 32
  %start.a = add i64 %row, {rows}
  %end.a = add i64 %start.a, 8
  %cut.a = add i64 %start.a, 16
  %size.a = add i64 %start.a, 24
  %start.p = inttoptr i64 %start.a to i64*
  %end.p = inttoptr i64 %end.a to i64*
  %start = load i64, i64* %start.p
  %end = load i64, i64* %end.p
  %low = icmp uge i64 %address, %start
  %high = icmp ult i64 %address, %end
  %within = and i1 %low, %high
  br i1 %within, label %found, label %more
more:
  %after = add i64 %index, 1
  br label %next
found:
  %size.p = inttoptr i64 %size.a to i64*
  %size = load i64, i64* %size.p
  %mask = sub i64 0, %size
  %page = and i64 %address, %mask
  %mapped = call i64 @mmap(i64 %page, i64 %size, i32 {protection}, i32 {flags}, i32 -1, i64 0)
  %failed = icmp eq i64 %mapped, -1
  br i1 %failed, label %fatal, label %noted
noted:
  %cut.p = inttoptr i64 %cut.a to i64*
  store volatile i64 1, i64* %cut.p
  %faults.p = inttoptr i64 {faults} to i64*
  %faults = load i64, i64* %faults.p
  %faults.next = add i64 %faults, 1
  store volatile i64 %faults.next, i64* %faults.p
  ret void
fatal:
  %old = call i64 @signal(i32 %number, i64 0)
  ret void
}}
"""


class _SigAction(ctypes.Structure):
    """struct sigaction as glibc and musl have it on x86-64 and aarch64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * _SIGSET_WORDS),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


@functools.cache
def _table() -> tuple[int, Any, ctypes.c_int64]:
    """The words that the handler reads: their address, a view, and the first of them."""
    count = _HEAD_WORDS + _COLUMNS * RANGES_MAX
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE
    address = linux.mmap(0, 8 * count, linux.PROT_READ | linux.PROT_WRITE, flags)
    words = np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(address))
    return address, words, ctypes.c_int64.from_address(address)


@functools.cache
def install() -> None:
    """Have this process live through cut files in the ranges that it guards. A second call does nothing.

    Raises:
        OSError: the handler cannot be installed.
    """
    table = _table()[0]
    text = _HANDLER.format(
        faults=table,
        used=table + 8,
        rows=table + 8 * _HEAD_WORDS,
        protection=linux.PROT_READ | linux.PROT_WRITE,
        flags=linux.MAP_FIXED | linux.MAP_PRIVATE | linux.MAP_ANONYMOUS,
    )
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    _keep.append(engine)  # the code goes with it
    action = _SigAction(handler=engine.get_function_address("bus_error"), flags=_SA_SIGINFO)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), None) != 0:
        raise OSError(ctypes.get_errno(), "sigaction")


_keep: list[Any] = []


class GuardedRange:
    """A range of addresses in which the end of a mapped file may come too soon."""

    def __init__(self, address: int, size_bytes: int, page_bytes: int = PAGE_SIZE_BYTES) -> None:
        """Guard it from now on.

        Args:
            address: where it begins.
            size_bytes: how long it is.
            page_bytes: of the pages that it is mapped in; every one of them must be within one mapping.
        """
        words = _table()[1]
        rows = words[_HEAD_WORDS:].reshape(RANGES_MAX, _COLUMNS)
        free = np.flatnonzero(rows[: int(words[1]) + 1, _END] == 0)
        self._row = rows[free[0]] if len(free) else np.zeros(_COLUMNS, np.int64)
        self._row[:] = address, address + size_bytes, 0, page_bytes
        if len(free) and free[0] == words[1] < RANGES_MAX:
            words[1] += 1

    @property
    def was_cut(self) -> bool:
        """Whether an access went beyond the end of the file."""
        return bool(self._row[_CUT])

    def close(self) -> None:
        """Guard it no more; before it is unmapped."""
        self._row[:] = 0
        self._row = np.zeros(_COLUMNS, np.int64)  # the other one is somebody else's from now on


def fault_count() -> ctypes.c_int64:
    """How many accesses went beyond the end of a file, in all guarded ranges: a number that the handler changes."""
    return _table()[2]
