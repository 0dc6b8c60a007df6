"""Atomics: what each does, in both modes, and the proof on two CPUs that they are atomic, with its control."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide import atomics
from pagetide.atomics import (
    atomic_add,
    atomic_compare_exchange,
    atomic_exchange,
    atomic_load,
    atomic_store,
    load_i64,
    load_u16,
    load_u16_acquire,
    load_u32,
    store_i64,
    store_u16,
    store_u16_release,
    store_u32,
)
from pagetide.jit import JIT_DISABLED, external, int32, kernel
from tests.two_cpus import (
    ADDED,
    EXCHANGED,
    ROUNDS,
    TORN,
    TRIES,
    WORDS,
    increment,
    store_then_load,
)

pytestmark = pytest.mark.alone

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
ROOT = Path(__file__).parent.parent


@kernel
def each_atomic(words: npt.NDArray[np.int64], a: int, b: int, answers: npt.NDArray[np.int64]) -> None:
    """Do everything to the second word, and keep the answers."""
    atomic_store(words, 1, a)
    answers[0] = atomic_load(words, 1)
    answers[1] = atomic_exchange(words, 1, b)
    answers[2] = atomic_compare_exchange(words, 1, a, 5)
    answers[3] = words[1]
    answers[4] = atomic_compare_exchange(words, 1, words[1], 7)
    answers[5] = atomic_add(words, 1, -10)
    answers[6] = words[1]


@given(a=INT64, b=INT64)
def test_each_operation_answers_with_the_old_value(a: int, b: int) -> None:
    """Every read-modify-write gives what was there before, and touches no other word."""
    words, answers = np.full(3, -1, np.int64), np.zeros(7, np.int64)
    each_atomic(words, a, b, answers)
    expected = 5 if a == b else b
    assert answers.tolist() == [a, a, b, expected, expected, 7, -3]
    assert words.tolist() == [-1, -3, -1]


@kernel
def each_raw(address: int, value: int, answers: npt.NDArray[np.int64]) -> None:
    """Store and load each width, eight bytes apart."""
    store_u16(address, value)
    store_u32(address + 8, value)
    store_i64(address + 16, value)
    store_u16_release(address + 24, value)
    answers[0] = load_u16(address)
    answers[1] = load_u32(address + 8)
    answers[2] = load_i64(address + 16)
    answers[3] = load_u16_acquire(address + 24)


@given(value=INT64, shift=st.sampled_from([0, 2, 4]))
def test_raw_accesses_are_as_wide_as_their_names(value: int, shift: int) -> None:
    """Each width stores its low bytes, little-endian and no others, and loads them unsigned (64 bits: signed)."""
    memory, answers = np.full(40, 0xEE, np.uint8), np.zeros(4, np.int64)
    each_raw(memory.ctypes.data + shift, value, answers)
    assert answers.tolist() == [value & 0xFFFF, value & 0xFFFFFFFF, value, value & 0xFFFF]
    whole = (value & ((1 << 64) - 1)).to_bytes(8, sys.byteorder)
    expected = bytearray(b"\xee" * 40)
    for at, width in ((0, 2), (8, 4), (16, 8), (24, 2)):
        expected[shift + at : shift + at + width] = whole[:width]
    assert memory.tobytes() == bytes(expected)


_close = external("close", int32, int32)


@kernel
def close_nothing() -> int:
    """Fail in a C call, and answer with its errno."""
    return -1 if _close(-1) == 0 else atomics.errno()


def test_errno_is_that_of_the_failed_call() -> None:
    """A kernel reads the errno of the C call that has just failed."""
    assert close_nothing() == errno.EBADF


@kernel
def clock(ends: npt.NDArray[np.int64]) -> None:
    """Read the clock twice, with all that orders nothing in between."""
    ends[0] = atomics.monotonic_ns()
    atomics.fence()
    atomics.pause()
    atomics.sched_yield()
    ends[1] = atomics.monotonic_ns()


def test_the_clock_is_the_monotonic_one() -> None:
    """A kernel's time lies between two readings of Python's."""
    ends = np.zeros(2, np.int64)
    before = time.monotonic_ns()
    clock(ends)
    assert before <= ends[0] <= ends[1] <= time.monotonic_ns()


def test_abort_ends_the_process() -> None:
    """A kernel that must not go on ends its process with SIGABRT, in both modes."""
    script = "import resource; from tests.test_atomics import give_up; resource.setrlimit(4, (0, 0)); give_up()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGABRT


@kernel
def give_up() -> None:
    """End the process."""
    atomics.abort()


@pytest.fixture
def cpus() -> tuple[int, int]:
    """Two CPUs that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.fail("this proof needs two CPUs: on one, nothing happens at the same time and it would prove nothing")
    return usable[0], usable[1]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """With JIT off the threads take turns under the interpreter's lock: often enough to get in each other's way."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


def check_counts(words: npt.NDArray[np.int64]) -> None:
    """The atomic loops counted every increment; the torn one, without which this proves nothing, lost some."""
    assert (words[ADDED], words[EXCHANGED]) == (2 * ROUNDS, 2 * ROUNDS)
    assert words[TORN] < 2 * ROUNDS * words[TRIES], "a load and a store lost nothing: nothing is proved"


def test_threads_on_two_cpus_lose_nothing(cpus: tuple[int, int], quick_switches: None) -> None:
    """Two pinned threads add 10^6 each (less with JIT off), exactly; the control, not atomic, loses updates."""
    words = np.zeros(WORDS, np.int64)
    with ThreadPoolExecutor(2) as threads:
        for side in [threads.submit(increment, words, cpu) for cpu in cpus]:
            side.result(60)
    check_counts(words)


@pytest.mark.jit
def test_processes_on_two_cpus_lose_nothing(cpus: tuple[int, int]) -> None:
    """The same of two processes over a shared memory file; the Python twins promise this only among threads."""
    fd = os.memfd_create("words")
    try:
        os.ftruncate(fd, WORDS * 8)
        commands = [[sys.executable, "-m", "tests.two_cpus", str(fd), str(cpu)] for cpu in cpus]
        sides = [subprocess.Popen(command, cwd=ROOT, pass_fds=[fd]) for command in commands]
        assert [side.wait(60) for side in sides] == [0, 0]
        check_counts(np.frombuffer(os.pread(fd, WORDS * 8, 0), np.int64))
    finally:
        os.close(fd)


def both_saw_nothing(cpus: tuple[int, int], fenced: bool) -> int:
    """In how many steps each side stored, and then loaded the other's place as it was before the other's store."""
    places, seen, progress = np.zeros((2, 50_000), np.int64), np.ones((2, 50_000), np.int64), np.zeros(16, np.int64)

    def run(side: int) -> None:
        os.sched_setaffinity(0, {cpus[side]})
        assert store_then_load(places[side], places[1 - side], seen[side], progress, side, fenced) == 0

    with ThreadPoolExecutor(2) as threads:
        for result in [threads.submit(run, side) for side in (0, 1)]:
            result.result(60)
    return int(np.count_nonzero((seen == 0).all(axis=0)))


@pytest.mark.jit
def test_a_fence_orders_a_store_before_a_load(cpus: tuple[int, int]) -> None:
    """With fences, one of two sides always sees the other's store; without, a processor lets loads overtake stores."""
    assert sum(both_saw_nothing(cpus, fenced=True) for _ in range(4)) == 0
    without = any(both_saw_nothing(cpus, fenced=False) > 0 for _ in range(50))
    assert without, "no load overtook a store: the two CPUs never met, so nothing is proved"


@pytest.mark.jit
def test_a_float_array_is_refused() -> None:
    """Atomics are for integers: a kernel that uses them on floats does not compile."""
    import numba

    assert not JIT_DISABLED
    with pytest.raises(numba.core.errors.TypingError):
        each_atomic(np.zeros(3), 0, 0, np.zeros(7, np.int64))  # type: ignore[arg-type]
