"""Arrays of int64 at an address, for kernels that find what they work on by addresses kept in another array.

Whoever keeps an address keeps the memory there, for as long as anybody may look. With JIT off they are numpy's views.
"""

import ctypes
from typing import Any

from pagetide.jit import JIT_DISABLED

_WORD_BYTES = 8

if JIT_DISABLED:
    import numpy as np

    def words_at(address: int, count: int) -> Any:
        """So many words, as an array."""
        if count == 0:
            return np.zeros(0, np.int64)
        return np.ctypeslib.as_array((ctypes.c_int64 * int(count)).from_address(int(address)))

    def rows_at(address: int, rows: int, columns: int) -> Any:
        """So many rows of so many words, as an array of two dimensions."""
        return words_at(address, rows * columns).reshape(rows, columns)

else:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array, populate_array

    def _view(address: Any, *shape: Any) -> Any:
        """The type of a view of this many dimensions, and how it is made: a contiguous array that owns nothing."""
        kind = types.Array(types.int64, len(shape), "C")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            place, *sizes = args
            strides = [word(_WORD_BYTES)]
            for size in reversed(sizes[1:]):
                strides.insert(0, builder.mul(strides[0], size))
            array = make_array(kind)(context, builder)
            data = builder.inttoptr(place, word.as_pointer())
            populate_array(array, data=data, shape=sizes, strides=strides, itemsize=word(_WORD_BYTES), meminfo=None)
            return array._getvalue()

        return kind(*[types.int64] * (1 + len(shape))), generate

    @intrinsic
    def words_at(typingctx: Any, address: Any, count: Any) -> Any:
        """So many words, as an array."""
        return _view(address, count)

    @intrinsic
    def rows_at(typingctx: Any, address: Any, rows: Any, columns: Any) -> Any:
        """So many rows of so many words, as an array of two dimensions."""
        return _view(address, rows, columns)
