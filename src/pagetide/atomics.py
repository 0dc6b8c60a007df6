"""Atomics, raw loads and stores, and the few C calls that kernels need.

`atomic_*` work on an element of an integer array and are exact between threads and between processes that share the
memory. `load_*` and `store_*` work on an address that the caller has checked. All values are int64.

With JIT off they are Python twins under one lock: exact between the threads of a process; between processes they are
the processor's own aligned loads and stores.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pagetide.jit import JIT_DISABLED, external, int32, int64, kernel, void

sched_yield = external("sched_yield", int32)
"""Give the processor to another thread (sched_yield(2))."""

abort = external("abort", void)
"""End the process: for what must not go on (abort(3))."""

_errno_location = external("__errno_location", int64)


if JIT_DISABLED:
    _lock = threading.Lock()

    def atomic_load(array: Any, index: int) -> int:
        """The element, read with acquire ordering."""
        with _lock:
            return int(array[index])

    def atomic_store(array: Any, index: int, value: int) -> None:
        """Write the element with release ordering."""
        with _lock:
            array[index] = value

    def atomic_add(array: Any, index: int, value: int) -> int:
        """Add to the element; the old value, sequentially consistent."""
        with _lock:
            old = int(array[index])
            array[index] = old + value
            return old

    def atomic_exchange(array: Any, index: int, value: int) -> int:
        """Replace the element; the old value, sequentially consistent."""
        with _lock:
            old = int(array[index])
            array[index] = value
            return old

    def atomic_compare_exchange(array: Any, index: int, expected: int, value: int) -> int:
        """Replace the element if it is as expected; the old value in any case, sequentially consistent."""
        with _lock:
            old = int(array[index])
            if old == expected:
                array[index] = value
            return old

    def fence() -> None:
        """Full memory barrier, stores before loads included."""
        with _lock:
            pass

    def pause() -> None:
        """Tell the processor that this is a spin loop."""

    def monotonic_ns() -> int:
        """CLOCK_MONOTONIC in nanoseconds."""
        return time.monotonic_ns()

    def thread_ns() -> int:
        """CPU time of the calling thread in nanoseconds."""
        return time.thread_time_ns()

    def errno() -> int:
        """The calling thread's errno, to be read right after a failed external call."""
        return ctypes.get_errno()

    def _peek(ctype: Any) -> Callable[[int], int]:
        def load(address: int) -> int:
            return int(ctype.from_address(int(address)).value)

        return load

    def _poke(ctype: Any) -> Callable[[int, int], None]:
        def store(address: int, value: int) -> None:
            ctype.from_address(int(address)).value = int(value)

        return store

    load_u8, load_u16, load_u32, load_i64 = map(
        _peek, (ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int64)
    )
    store_u16, store_u32, store_i64 = map(_poke, (ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int64))

    def load_u16_acquire(address: int) -> int:
        """16 bits at this address, read with acquire ordering."""
        value = load_u16(address)
        fence()
        return value

    def store_u16_release(address: int, value: int) -> None:
        """Write 16 bits at this address with release ordering."""
        fence()
        store_u16(address, value)

else:

    def _element_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, args[0])
        index = context.cast(builder, args[1], signature.args[1], types.intp)
        return cgutils.get_item_pointer(context, builder, kind, array, [index])

    def _is_integer_array(array: Any) -> bool:
        return isinstance(array, types.Array) and isinstance(array.dtype, types.Integer)

    @intrinsic
    def atomic_load(typingctx: Any, array: Any, index: Any) -> Any:
        """The element, read with acquire ordering."""
        if not _is_integer_array(array):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _element_pointer(context, builder, signature, args)
            return builder.load_atomic(pointer, "acquire", array.dtype.bitwidth // 8)

        return array.dtype(array, types.intp), generate

    @intrinsic
    def atomic_store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        """Write the element with release ordering."""
        if not _is_integer_array(array):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _element_pointer(context, builder, signature, args)
            builder.store_atomic(args[2], pointer, "release", array.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, array.dtype), generate

    def _read_modify_write(operation: str) -> Any:
        def typing(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
            if not _is_integer_array(array):
                return None

            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                pointer = _element_pointer(context, builder, signature, args)
                return builder.atomic_rmw(operation, pointer, args[2], "seq_cst")

            return array.dtype(array, types.intp, array.dtype), generate

        return intrinsic(typing)

    atomic_add = _read_modify_write("add")
    atomic_exchange = _read_modify_write("xchg")

    @intrinsic
    def atomic_compare_exchange(typingctx: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
        """Replace the element if it is as expected; the old value in any case, sequentially consistent."""
        if not _is_integer_array(array):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _element_pointer(context, builder, signature, args)
            outcome = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
            return builder.extract_value(outcome, 0)

        return array.dtype(array, types.intp, array.dtype, array.dtype), generate

    @intrinsic
    def fence(typingctx: Any) -> Any:
        """Full memory barrier, stores before loads included."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def pause(typingctx: Any) -> Any:
        """Tell the processor that this is a spin loop."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if os.uname().machine == "x86_64":
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
            return context.get_dummy_value()

        return types.void(), generate

    def _clock_ns(clock: int) -> Any:
        """An intrinsic that reads a clock (clock_gettime(2))."""

        def typing(typingctx: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                i32, i64 = ir.IntType(32), ir.IntType(64)
                spec = cgutils.alloca_once(builder, ir.ArrayType(i64, 2))
                address = builder.ptrtoint(spec, i64)
                kind = ir.FunctionType(i32, [i32, i64])
                function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
                builder.call(function, [i32(clock), address])
                seconds, nanoseconds = cgutils.unpack_tuple(builder, builder.load(spec))
                return builder.add(builder.mul(seconds, i64(1_000_000_000)), nanoseconds)

            return types.int64(), generate

        return intrinsic(typing)

    monotonic_ns = _clock_ns(time.CLOCK_MONOTONIC)
    thread_ns = _clock_ns(time.CLOCK_THREAD_CPUTIME_ID)

    def _raw(bits: int, signed: bool, store: bool, ordering: str) -> Any:
        """An intrinsic that loads or stores an integer at an address."""
        kind = types.Integer.from_bitwidth(bits, signed)

        def pointer(builder: Any, address: Any) -> Any:
            return builder.inttoptr(address, ir.IntType(bits).as_pointer())

        def load_typing(typingctx: Any, address: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                place = pointer(builder, args[0])
                value = builder.load_atomic(place, ordering, bits // 8) if ordering else builder.load(place, align=1)
                return context.cast(builder, value, kind, types.int64)

            return types.int64(types.int64), generate

        def store_typing(typingctx: Any, address: Any, value: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                place = pointer(builder, args[0])
                value = context.cast(builder, args[1], types.int64, kind)
                if ordering:
                    builder.store_atomic(value, place, ordering, bits // 8)
                else:
                    builder.store(value, place, align=1)
                return context.get_dummy_value()

            return types.void(types.int64, types.int64), generate

        return intrinsic(store_typing if store else load_typing)

    load_u8 = _raw(8, False, False, "")
    load_u16 = _raw(16, False, False, "")
    load_u32 = _raw(32, False, False, "")
    load_i64 = _raw(64, True, False, "")
    store_u16 = _raw(16, False, True, "")
    store_u32 = _raw(32, False, True, "")
    store_i64 = _raw(64, True, True, "")
    load_u16_acquire = _raw(16, False, False, "acquire")
    store_u16_release = _raw(16, False, True, "release")

    @kernel
    def errno() -> int:
        """The calling thread's errno, to be read right after a failed external call."""
        return load_u32(_errno_location())
