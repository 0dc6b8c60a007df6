"""What reports cost the host by how they come: small ones at once, and many ranges in one.

Elements that wait together and adjoin are dealt with as one call over all of them, which is the anchor here. And a
report of 1024 ranges, which a driver may send that has room for as many, is dealt with as fast, a range, as one of 32.
As in discarding.py, both sides take turns, on memory that the guest has touched, and CPU time is the thread's own.
"""

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.host.bare_punch import BarePunch, NoCompilerError
from benchmarks.host.discarding import ROUNDS, Bench, Case, played_guest
from benchmarks.rows import Row, quartiles
from pagetide.host.device.queues.element import ELEMENTS_PER_TURN
from pagetide.machine.live.host_warm_up import warm_up_host
from pagetide.units import PAGE_SIZE_BYTES

_MANY = 1024
_ELEMENTS = ELEMENTS_PER_TURN - 1
"""With the look that finds no more, all of a turn."""

_JOINED = Case("memfd", PAGE_SIZE_BYTES, 8192, 0.95)
_FEW, _LARGE = (Case("memfd", PAGE_SIZE_BYTES, 8192, 1.0, capacity) for capacity in (32, _MANY))


def joined(punch: BarePunch) -> Row:
    """Fifteen elements that adjoin, in one turn, by turns with one call over all of them."""
    case, ratios = _JOINED, []
    step_bytes = _ELEMENTS * case.capacity * case.block_bytes
    rng = np.random.default_rng(1)
    with played_guest(case, verify_share=0.0) as guest:
        places = np.arange(guest.ram.size_bytes // step_bytes)[1:]
        for number in range(1 + ROUNDS):
            guest.ram.words[:: PAGE_SIZE_BYTES // 8] += 0
            spent_ns = [0, 0]
            for turn, start in enumerate(step_bytes * rng.permutation(places), number):
                if turn % 2:
                    start_ns = time.thread_time_ns()
                    punch(guest.ram.fd, np.array([start]), step_bytes)
                    spent_ns[1] += time.thread_time_ns() - start_ns
                else:
                    pages = start + case.block_bytes * np.arange(step_bytes // case.block_bytes)
                    elements = rng.permutation(pages.reshape(_ELEMENTS, case.capacity))
                    spent_ns[0] += guest.report(case.block_bytes, *elements)
            ratios.append(spent_ns[1] / spent_ns[0])
    low, ratio, high = quartiles(ratios[1:])
    name = f"discard, 4 KiB adjacent in {_ELEMENTS} elements, device / one call over all"
    spread = f"half of the {ROUNDS} rounds: {low:.3f} to {high:.3f}"
    return Row(name, ratio, "ratio", at_least=case.at_least, note=spread)


def many_ranges() -> Row:
    """Reports of 1024 ranges by turns with reports of 32, the same blocks."""
    ratios = []
    with played_guest(_FEW, verify_share=0.0) as few, played_guest(_LARGE, verify_share=0.0) as large:
        benches = Bench(_FEW, few), Bench(_LARGE, large)
        for number in range(1 + ROUNDS):
            spent_ns = [0, 0]
            for side in (0, 1) if number % 2 else (1, 0):
                spent_ns[side] = sum(map(benches[side].device_ns, benches[side].refill()))
            ratios.append(spent_ns[0] / spent_ns[1])
    low, ratio, high = quartiles(ratios[1:])
    name = f"discard, 4 KiB blocks, a range of a report of {_MANY} / of {_FEW.capacity}"
    spread = f"half of the {ROUNDS} rounds: {low:.3f} to {high:.3f}"
    return Row(name, ratio, "ratio", at_least=_LARGE.at_least, note=spread)


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    warm_up_host()
    try:
        yield joined(BarePunch())
    except NoCompilerError as error:
        yield Row("discard, 4 KiB adjacent, device / one call over all", None, "ratio", note=str(error))
    yield many_ranges()
