"""What a design needs of a simulated machine besides its worker: drivers, and tasks of the host's."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import NR_PAGES
from pagetide.guest.driver.inflate import InflateDriver
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.guest.in_flight import InBalloon, InFlight, Isolated, TakenByHost
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.vcpu_loop import Relief
from pagetide.host.device.taking import FrameTaker
from pagetide.host.memory.ledger import Ledger
from pagetide.machine.balloon_policy import BalloonPolicy, settled
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.faults import ring_entries
from pagetide.machine.live import host_ballooning, host_taking
from pagetide.machine.simulated.balloon import SimulatedBalloonWorker
from pagetide.machine.simulated.host import SimulatedHost
from pagetide.machine.simulated.loop import Loop, Signal, Task
from pagetide.machine.simulated.process import Processors, SimulatedProcess
from pagetide.machine.simulated.ram import SimulatedRam
from pagetide.machine.simulated.taking import take_frames
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.memory.frame_table import FRAME_PAGES


class Ground(NamedTuple):
    """What every design of a run stands on."""

    config: RunConfig
    loop: Loop
    zone: Zone
    ram: SimulatedRam
    ledger: Ledger
    costs: Costs
    processors: Processors
    process: SimulatedProcess
    host: SimulatedHost
    happened: Signal
    shared: npt.NDArray[np.int64]


class Parts(NamedTuple):
    """What a design runs with.

    Attributes:
        worker: drives it.
        in_flight: what of the guest's free memory the host has at the moment.
        relief: as for GuestRun.
        tasks: what else is to run.
    """

    worker: SimulatedWorker
    in_flight: InFlight
    relief: Relief | None = None
    tasks: tuple[Task, ...] = ()


def make_parts(ground: Ground) -> Parts:
    """Make what the design of the settings runs with, as guest_process.py and host_process.py do for a live one."""
    config, zone = ground.config, ground.zone
    design = make_design(config.design, zone, config.tuning)
    if isinstance(design, Balloon):
        return _balloon(ground, design)
    driver = None
    if config.design not in ("off", "shared"):
        entries = ring_entries(config.parsed_faults)
        driver = BalloonDriver(zone, ground.ram.address, ground.host, config.report_blocks_max, entries)
    survey = ground.costs.survey if config.design == "pool" else None
    worker = SimulatedWorker(
        ground.loop, zone, design, driver, ground.host.called, ground.costs, ground.shared, ground.processors, survey
    )
    if config.design == "shared":
        return Parts(worker, TakenByHost(zone), None, (_taking(ground),))
    return Parts(worker, Isolated(zone, worker))


def _balloon(ground: Ground, design: Balloon) -> Parts:
    config, zone, host = ground.config, ground.zone, ground.host
    deflates = config.oom == "wait"
    driver = InflateDriver(zone, ground.ram.address, host, deflate_on_oom=deflates)
    worker = SimulatedBalloonWorker(
        ground.loop, zone, design, driver, host, ground.costs, ground.shared, ground.processors
    )
    host.set_policy(BalloonPolicy(zone.words), host_ballooning.delay_s(config))
    return Parts(worker, InBalloon(zone, design, worker, settled), design if deflates else None)


def _taking(ground: Ground) -> Task:
    config, zone = ground.config, ground.zone
    taker = FrameTaker(
        zone.frame_table,
        int(zone.words[NR_PAGES]) // FRAME_PAGES,
        ground.ram.region_map,
        ground.ledger,
        capacity=host_taking.batch_frames(config),
        verify_share=config.verify_share,
    )
    delay_s = host_taking.delay_s(config)
    costs = ground.costs.of_taking()
    return take_frames(ground.loop, taker, ground.process, costs, delay_s, ground.happened)
