"""The host's process in virtual time: its work takes as long as it costs, faults and busy processors allowing."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pagetide.machine.costs import PS_PER_S, BackingCosts
from pagetide.machine.faults import Fault
from pagetide.machine.simulated.faults import finish_s
from pagetide.machine.simulated.loop import Loop, Signal, Task
from pagetide.memory.metadata import GONE_PAGES, PRICES, MetadataFile, discarding_ps
from pagetide.units import PAGE_SIZE_BYTES

_Ps = TypeVar("_Ps", int, npt.NDArray[np.int64])


class Processors:
    """Who wants a processor; those beyond their number take turns.

    Attributes:
        count: how many processors there are.
        vcpus: vCPUs at work.
        others: others at work: the host, the guest's worker, and a thread that never rests.
    """

    def __init__(self, count: int, others: int = 0) -> None:
        """Begin with no vCPU at work."""
        self.count, self.vcpus, self.others = count, 0, others

    def stretched_ps(self, work_ps: _Ps) -> _Ps:
        """How long this much work of one of them takes as things are."""
        wanted = self.vcpus + self.others
        return work_ps if wanted <= self.count else work_ps * wanted // self.count

    def worked_ps(self, passed_ps: int) -> int:
        """How much one of them has worked after as long at work as things are."""
        wanted = self.vcpus + self.others
        return passed_ps if wanted <= self.count else passed_ps * self.count // wanted


class SimulatedProcess:
    """The host's process: what it does takes time, one thing at a time, and what it discards goes steadily.

    A fault can become known while work is under way, since the stream's clock says when it begins: then it is worked
    out anew when the work will be done. How many want a processor is looked at when work begins.

    Attributes:
        busy_ps: how long it has worked.
    """

    def __init__(self, loop: Loop, file: MetadataFile, backing: BackingCosts, processors: Processors) -> None:
        """Begin with nothing to do."""
        self.busy_ps = 0
        self._loop, self._file, self._processors = loop, file, processors
        self._faults: list[Fault] = []
        self._fault_known = Signal(loop)
        self._prices = backing.prices_ps()
        self._seen = np.zeros(PRICES, np.int64)
        self._discarding = (0, 1, 0)

    @property
    def resident_bytes(self) -> int:
        """What the host holds for the guest."""
        start_ps, end_ps, pages = self._discarding
        left = min(1.0, max(0.0, (end_ps - self._loop.now_ps) / (end_ps - start_ps)))
        return self._file.resident_bytes + int(pages * left) * PAGE_SIZE_BYTES

    def add_fault(self, fault: Fault) -> None:
        """A `stop` or `slow` that begins, in virtual time, now or later; what is under way suffers from it, too."""
        self._faults.append(fault)
        self._fault_known.notify()

    def goes_on(self) -> Task:
        """Wait for as long as the process is stopped."""
        if self._faults:
            yield from self._pass(0, 0)

    def work(self, does: Callable[[], int]) -> Task:
        """Do something at once, and then take as long as it costs.

        Args:
            does: does it; says how many picoseconds it costs besides discarding, which is seen by what is gone.
        """
        words = self._file.words
        gone_pages = words.item(GONE_PAGES)
        work_ps = does() + int(discarding_ps(words, self._seen, self._prices))
        self.busy_ps += work_ps
        self._processors.others += 1
        yield from self._pass(self._processors.stretched_ps(work_ps), words.item(GONE_PAGES) - gone_pages)
        self._processors.others -= 1

    def _pass(self, work_ps: int, gone_pages: int) -> Task:
        loop, start_ps = self._loop, self._loop.now_ps
        end_ps = self._end_ps(start_ps, work_ps)
        waited = False
        while not waited or loop.now_ps < end_ps:
            if gone_pages:
                self._discarding = (start_ps, max(end_ps, start_ps + 1), gone_pages)
            waited = True
            yield self._fault_known, end_ps
            end_ps = self._end_ps(start_ps, work_ps)

    def _end_ps(self, start_ps: int, work_ps: int) -> int:
        """When work is done that was begun then."""
        if not self._faults:
            return start_ps + work_ps
        done_s = finish_s(start_ps / PS_PER_S, work_ps / PS_PER_S, self._faults)
        return max(start_ps, round(done_s * PS_PER_S))
