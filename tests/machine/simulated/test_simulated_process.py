"""The host's process in virtual time: how long its work takes."""

import pytest

from pagetide.machine.costs import PS_PER_S, read_costs
from pagetide.machine.faults import Fault
from pagetide.machine.simulated.loop import NEVER_PS, Loop, Task
from pagetide.machine.simulated.process import Processors, SimulatedProcess
from pagetide.memory.metadata import MetadataFile, punch_metadata, stamp_metadata
from pagetide.units import PAGE_SIZE_BYTES

pytestmark = pytest.mark.jit  # no kernel is called

MIB = 1 << 20
PAGES = 512


def process_of(loop: Loop, processors: Processors, *faults: Fault) -> tuple[SimulatedProcess, MetadataFile]:
    """A process with memory of 2 MiB that is all resident."""
    file = MetadataFile(2 * MIB)
    stamp_metadata(file.address, 0, PAGES)
    process = SimulatedProcess(loop, file, read_costs().backing("memfd"), processors)
    for fault in faults:
        process.add_fault(fault)
    return process, file


def pass_time(loop: Loop, until_s: float = float("inf")) -> None:
    """Let happen what happens up to this time."""
    while loop.next_ps < NEVER_PS and loop.next_ps <= until_s * PS_PER_S:
        loop.step()


@pytest.mark.parametrize(
    ("fault", "done_s"),
    [
        (Fault("stop", 4.0, 5.0), 15.0),
        (Fault("stop", 6.0, 5.0), 15.0),
        (Fault("slow", 4.0, 100.0, factor=3.0), 22.0),
        (Fault("stop", 11.0, 5.0), 10.0),
    ],
)
def test_a_fault_that_is_told_of_meanwhile_delays_what_is_under_way(fault: Fault, done_s: float) -> None:
    """As a fault that was known before: ten seconds of work, of which four are done when it is told of."""
    for known in (True, False):
        loop = Loop()
        process, _ = process_of(loop, Processors(2), *((fault,) if known else ()))
        ended_s = []

        def task() -> Task:
            yield from process.work(lambda: 10 * PS_PER_S)  # noqa: B023 - it runs right here
            ended_s.append(loop.now_s)  # noqa: B023

        loop.resume(task())
        if not known:
            loop.at(4 * PS_PER_S, lambda: process.add_fault(fault))  # noqa: B023
        pass_time(loop)
        assert ended_s == [pytest.approx(done_s)]


def test_what_is_discarded_goes_steadily_until_the_work_is_done() -> None:
    """Half of it is gone when half of the time is over, later if a fault makes it later; the costs say how long."""
    loop = Loop()
    process, file = process_of(loop, Processors(2))
    loop.resume(process.work(lambda: punch_metadata(file.address, 0, 2 * MIB) + PS_PER_S))
    assert file.resident_bytes == 0
    pass_time(loop, 0.0)
    assert process.resident_bytes == 2 * MIB
    loop.at(PS_PER_S // 2, lambda: process.add_fault(Fault("slow", 0.5, 100.0, factor=2.0)))
    pass_time(loop, 0.5)
    # All will be done after 1.5 s now, so that a third is gone.
    assert process.resident_bytes == pytest.approx(2 * MIB * 2 / 3, abs=8 * PAGE_SIZE_BYTES)
    pass_time(loop)
    assert process.resident_bytes == 0
    discard_s = read_costs().backing("memfd").pieces[2].cost.ns / 1e9
    assert process.busy_ps / PS_PER_S == pytest.approx(1.0 + discard_s, rel=1e-3)


@pytest.mark.parametrize(("vcpus", "others", "times"), [(1, 0, 1), (2, 0, 1.5), (2, 1, 2)])
def test_work_takes_longer_where_more_want_a_processor_than_there_are(vcpus: int, others: int, times: float) -> None:
    """The host itself, vCPUs at work and threads that never rest take turns on two processors."""
    loop, processors = Loop(), Processors(2, others)
    processors.vcpus = vcpus
    process, _ = process_of(loop, processors)
    loop.resume(process.work(lambda: PS_PER_S))
    pass_time(loop)
    assert loop.now_ps == times * PS_PER_S
    assert processors.others == others
