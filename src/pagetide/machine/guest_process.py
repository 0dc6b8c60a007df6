"""The guest's process of a live machine."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from pagetide.guest.driver import BalloonDriver
from pagetide.guest.inflate_driver import InflateDriver
from pagetide.guest.reporting.balloon import Balloon
from pagetide.guest.reporting.design import ReportingSettings
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.guest.vhost_user_link import VhostUserLink
from pagetide.guest.zone import Zone
from pagetide.jit import kernels_are_cached
from pagetide.linux import set_parent_death_signal
from pagetide.machine.balloon_worker import BalloonWorker, InBalloon
from pagetide.machine.config import RunConfig
from pagetide.machine.guest_run import GuestRun
from pagetide.machine.guest_warm_up import warm_up_design, warm_up_guest
from pagetide.machine.guest_worker import GuestWorker
from pagetide.machine.in_flight import InFlight, TakenByHost
from pagetide.machine.messages import Channel, Command, Ended, GuestSetup, Ready, Stage
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.burst import Burst
from pagetide.workload.phases import Workload

HOST_SILENT_MAX_S = 600.0
"""How long the host may take to answer on the connection: stopping it for a while is what some runs are about."""


def make_workload(config: RunConfig) -> Workload:
    """The workload that these settings ask for."""
    return Burst(
        eat_bytes=int(config.ram_bytes * config.eat_share),
        bursts=config.bursts,
        hold_s=config.hold_s,
        vcpus=config.vcpus,
        seed=config.seed,
    )


def tuning_of(config: RunConfig) -> ReportingSettings:
    """How these settings tune a design."""
    return ReportingSettings(
        order=config.order,
        delay_s=config.delay_s,
        capacity=config.capacity,
        pace=config.pace,
        cool_s=config.cool_s,
        wake=config.wake,
        wake_blocks=config.wake_blocks,
        oom=config.oom,
        in_flight_max_bytes=config.in_flight_bytes,
        hints_max=config.hints_max,
    )


def make_worker(
    config: RunConfig, zone: Zone, ram_address: int, link: VhostUserLink
) -> tuple[GuestWorker, InFlight | None, Callable[[int], int] | None]:
    """The worker for a design, and what of the zone's free memory is elsewhere meanwhile: `in_flight`, `relieve`."""
    design = DESIGNS[config.design](zone, tuning_of(config))
    if isinstance(design, Balloon):
        deflates = config.oom == "wait"
        driver = InflateDriver(zone, ram_address, link, deflate_on_oom=deflates)
        worker = BalloonWorker(design, driver, link)
        return worker, InBalloon(zone, design, worker), design.deflate_on_oom if deflates else None
    if config.design in ("off", "shared"):
        in_flight = TakenByHost(zone) if config.design == "shared" else None
        return GuestWorker(design, None, link), in_flight, None
    return GuestWorker(design, BalloonDriver(zone, ram_address, link, config.capacity), link), None, None


def run_guest(setup: GuestSetup, channel: Channel) -> None:
    """Start the guest, run its workload once the word comes, and end.

    Raises:
        Exception: what ended the guest before its time; the message is for people.
    """
    config = setup.config
    with (
        GuestRam.from_fd(setup.ram_fd, config.ram_bytes) as ram,
        socket.socket(fileno=setup.socket_fd) as connection,
        VhostUserLink(connection, ram, timeout_s=HOST_SILENT_MAX_S) as link,
    ):
        if not kernels_are_cached():
            channel.send(Stage("compiling kernels (first run only)"))
        warm_up_guest()
        warm_up_design(config.design)
        zone = Zone(config.ram_bytes // PAGE_SIZE_BYTES, vcpus=config.vcpus, arena_fd=setup.arena_fd)
        worker, in_flight, relieve = make_worker(config, zone, ram.address, link)
        run = GuestRun(
            zone,
            ram.address,
            make_workload(config),
            config.vcpus,
            worker,
            channel.send,
            waits_before_oom=config.oom == "wait",
            cools=config.cool_s > 0,
            in_flight=in_flight,
            relieve=relieve,
        )
        started = threading.Event()
        threading.Thread(target=_obey, args=(channel, run, started), daemon=True).start()
        channel.send(Ready())
        started.wait()
        with worker:
            run.run()


def _obey(channel: Channel, run: GuestRun, started: threading.Event) -> None:
    """Do what the starting process says, until it is gone."""
    while not channel.closed:
        for message in channel.receive():
            if isinstance(message, Command) and message.name == "stop":
                run.stop()
            started.set()
    run.stop()
    started.set()


def main() -> int:
    """Run as `python -m pagetide.machine.guest_process SETUP`."""
    setup = msgspec.json.decode(sys.argv[1], type=GuestSetup)
    set_parent_death_signal(signal.SIGKILL)
    channel = Channel(socket.socket(fileno=setup.control_fd))
    try:
        run_guest(setup, channel)
    except Exception as error:
        channel.send(Ended(str(error) or type(error).__name__, time.process_time()))
        return 1
    channel.send(Ended(None, time.process_time()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
