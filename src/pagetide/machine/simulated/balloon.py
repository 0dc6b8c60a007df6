"""The worker of a simulated guest with a balloon: balloon_worker.py's, in virtual time."""

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.driver.inflate import InflateDriver
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.machine.costs import Costs
from pagetide.machine.simulated.host import SimulatedHost
from pagetide.machine.simulated.loop import Loop, Task
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.worker import SimulatedWorker


class SimulatedBalloonWorker(SimulatedWorker):
    """Drives a balloon over its driver; it waits for the host whenever it reads or writes the configuration."""

    def __init__(
        self,
        loop: Loop,
        zone: Zone,
        balloon: Balloon,
        driver: InflateDriver,
        host: SimulatedHost,
        costs: Costs,
        shared: npt.NDArray[np.int64],
        processors: Processors,
    ) -> None:
        """As SimulatedWorker, with the host that answers."""
        super().__init__(loop, zone, balloon, driver, host.called, costs, shared, processors)
        self._balloon, self._config, self._host = balloon, driver, host
        self._told_pages = 0

    def report_all(self) -> Task:
        """Read what the host wants, come as near to it as can be, and say how near that is."""
        yield from self._host.answers()
        self._balloon.wanted_pages = self._config.num_pages()
        yield from super().report_all()
        held_pages = self._balloon.held_pages
        if held_pages != self._told_pages:
            yield from self._host.answers()
            self._config.set_actual(held_pages)
            self._told_pages = held_pages
