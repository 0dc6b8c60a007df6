"""The host of a simulated machine takes frames by itself, where the design is `shared`: host_taking.py's thread."""

from pagetide.host.device.taking import Begun, FrameTaker
from pagetide.machine.costs import PS_PER_S, TakingCosts
from pagetide.machine.simulated.loop import Loop, Signal, Task
from pagetide.machine.simulated.process import SimulatedProcess


def take_frames(
    loop: Loop, taker: FrameTaker, process: SimulatedProcess, costs: TakingCosts, delay_s: float, worked: Signal
) -> Task:
    """Take what is free, a pass every so often; frames are TAKING for as long as discarding them takes.

    Args:
        loop: the clock.
        taker: takes them.
        process: whose time it takes.
        costs: what it costs besides discarding.
        delay_s: from the end of a pass to the next one.
        worked: notified after each batch of frames.
    """
    begun: list[Begun] = []

    def begin() -> int:
        begun.append(taker.begin())
        return costs.batch.ps + begun[-1].frames * costs.frame.ps + begun[-1].looked * costs.look.ps

    while True:
        yield from loop.sleep(round(delay_s * PS_PER_S))
        frames = 1
        while frames:
            yield from process.goes_on()
            yield from process.work(begin)
            taker.end()
            frames = begun.pop().frames
            if frames:
                worked.notify()
