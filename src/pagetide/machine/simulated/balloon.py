"""The worker of a simulated guest with a balloon: it waits in virtual time for what the host answers."""

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.balloon_worker import BalloonWorker
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

    def steps(self) -> BalloonWorker:
        """The steps that `run` runs."""
        return BalloonWorker(self, self._balloon, self._config)

    def _answer(self) -> Task:
        return self._host.answers()
