"""Arrays at addresses: the same memory, in kernels and without."""

import numpy as np
import numpy.typing as npt

from pagetide.jit import kernel
from pagetide.views import rows_at, words_at


@kernel
def _first_and_last(words: npt.NDArray[np.int64]) -> int:
    """A kernel that takes an array: it is the same for one that numpy made."""
    return int(words[0] + words[words.shape[0] - 1])


@kernel
def _through_views(address: int, rows: int, columns: int) -> int:
    words = words_at(address, rows * columns)
    table = rows_at(address, rows, columns)
    words[columns] += 100
    table[rows - 1, columns - 1] *= 2
    return int(_first_and_last(words) + table.shape[0] * 1000 + words_at(address, 0).shape[0])


def test_a_view_is_the_memory_itself() -> None:
    """What is written through one of them is seen through the others, row by row; an empty view is one."""
    memory = np.arange(1, 13).reshape(4, 3)
    assert _through_views(memory.ctypes.data, 4, 3) == 1 + 2 * 12 + 4000
    assert memory[1, 0] == 104
    assert memory[3, 2] == 24
    assert _first_and_last(memory.ravel()) == 25
