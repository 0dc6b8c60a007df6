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
from pagetide.machine.guest_run import GuestRun
from pagetide.machine.guest_warm_up import warm_up_guest
from pagetide.machine.guest_worker import GuestWorker
from pagetide.machine.messages import Channel, Command, Ended, GuestSetup, Ready, Stage
from pagetide.machine.workloads import make_stream
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import PAGE_SIZE_BYTES


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
        driver = BalloonDriver(zone, ram.address, link, config.capacity) if config.design != "off" else None
        design = DESIGNS[config.design](zone, tuning_of(config))
        worker = GuestWorker(design, driver, link)
        run = GuestRun(
            zone,
            ram.address,
            make_stream(config),
            config.vcpus,
            worker,
            channel.send,
            waits_before_oom=config.oom == "wait",
            cools=config.cool_s > 0,
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
