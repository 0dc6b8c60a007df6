"""The guest's process of a live machine."""

import signal
import socket
import sys
import threading
import time

import msgspec

from pagetide.guest.driver import BalloonDriver
from pagetide.guest.reporting.design import ReportingSettings
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.guest.vhost_user_link import VhostUserLink
from pagetide.guest.zone import Zone
from pagetide.jit import kernels_are_cached
from pagetide.linux import set_parent_death_signal
from pagetide.machine.config import RunConfig
from pagetide.machine.fault_player import FaultPlayer
from pagetide.machine.faults import Fault, of_kind, ring_entries
from pagetide.machine.guest_run import GuestRun
from pagetide.machine.guest_warm_up import warm_up_guest
from pagetide.machine.guest_worker import GuestWorker
from pagetide.machine.messages import Channel, ClockStarted, Command, Ended, GuestSetup, Message, Ready, Stage
from pagetide.machine.workloads import make_stream
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import PAGE_SIZE_BYTES


def tuning_of(config: RunConfig) -> ReportingSettings:
    """How these settings tune a design."""
    return ReportingSettings(
        order=config.order,
        delay_s=config.delay_s,
        capacity=config.report_blocks_max,
        pace=config.pace,
        cool_s=config.cool_s,
        wake=config.wake,
        wake_blocks=config.wake_blocks,
        oom=config.oom,
        in_flight_max_bytes=config.in_flight_bytes,
        hints_max=config.hints_max,
    )


def run_guest(setup: GuestSetup, channel: Channel) -> None:
    """Start the guest, run its workload once the word comes, and end.

    Raises:
        Exception: what ended the guest before its time; the message is for people.
    """
    config = setup.config
    with (
        GuestRam.from_fd(setup.ram_fd, config.ram_bytes) as ram,
        socket.socket(fileno=setup.socket_fd) as connection,
        VhostUserLink(connection, ram) as link,
    ):
        if not kernels_are_cached():
            channel.send(Stage("compiling kernels (first run only)"))
        warm_up_guest()
        zone = Zone(config.ram_bytes // PAGE_SIZE_BYTES, vcpus=config.vcpus, arena_fd=setup.arena_fd)
        driver = None
        if config.design != "off":
            entries = ring_entries(config.parsed_faults)
            driver = BalloonDriver(zone, ram.address, link, config.report_blocks_max, entries)
        design = DESIGNS[config.design](zone, tuning_of(config))
        worker = GuestWorker(design, driver, link)
        player = FaultPlayer(
            of_kind(config.parsed_faults, "off", "ring-full"),
            lambda fault: _set_fault(worker, fault, True),
            lambda fault: _set_fault(worker, fault, False),
        )

        def tell(message: Message) -> None:
            if isinstance(message, ClockStarted):
                player.clock_started(message)
            channel.send(message)

        run = GuestRun(
            zone,
            ram.address,
            make_stream(config),
            config.vcpus,
            worker,
            tell,
            waits_before_oom=config.oom == "wait",
            cools=config.cool_s > 0,
        )
        started = threading.Event()
        threading.Thread(target=_obey, args=(channel, run, started), daemon=True).start()
        channel.send(Ready())
        started.wait()
        with worker, player:
            run.run()


def _set_fault(worker: GuestWorker, fault: Fault, begins: bool) -> None:
    if fault.kind == "off":
        worker.switch(not begins)
    else:
        worker.ring_full = begins


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
