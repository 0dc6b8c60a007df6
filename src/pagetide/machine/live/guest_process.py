"""The guest's process of a live machine."""

import signal
import socket
import sys
import threading
import time
from functools import partial

import msgspec

from pagetide.guest.allocator.report_costs import note_reported
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import HOLDS_TIMED
from pagetide.guest.driver.inflate import InflateDriver
from pagetide.guest.driver.link import VhostUserLink, connect
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.guest.in_flight import InBalloon, InFlight, TakenByHost
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.vcpu_loop import Relief
from pagetide.machine.balloon_policy import settled
from pagetide.machine.faults import Fault, FaultError, of_kind, ring_entries
from pagetide.machine.kernels.ahead import compiling_aloud
from pagetide.machine.live.balloon_worker import BalloonWorker
from pagetide.machine.live.fault_player import FaultPlayer
from pagetide.machine.live.guest_run import GuestRun
from pagetide.machine.live.guest_warm_up import warm_up_design, warm_up_guest
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.messages import Channel, ClockStarted, Command, Ended, GuestSetup, Message, Ready, Stage
from pagetide.machine.qemu.device import QemuLink
from pagetide.machine.qemu.qtest import Qtest
from pagetide.machine.workloads import has_migratetypes, make_stream
from pagetide.memory.guest_ram import GuestRam
from pagetide.processes import set_parent_death_signal
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

HOST_SILENT_MAX_S = 600.0
"""How long the host may take to answer on the connection: stopping it for a while is what some runs are about."""


def run_guest(setup: GuestSetup, channel: Channel) -> float:
    """Start the guest, run its workload once the word comes, and end; CPU seconds that went into reporting.

    Raises:
        Exception: what ended the guest before its time; the message is for people.
    """
    config = setup.config
    with (
        GuestRam.from_fd(setup.ram_fd, config.ram_bytes) as ram,
        _link(setup, ram) as link,
    ):
        with compiling_aloud("guest", lambda line: channel.send(Stage(line))):
            warm_up_guest()
            warm_up_design(config.design)
        work = make_stream(config)
        zone = Zone(
            config.ram_bytes // PAGE_SIZE_BYTES,
            vcpus=config.vcpus,
            pcp_max=config.pcp_max_pages,
            migratetypes=has_migratetypes(config, work),
            arena_fd=setup.arena_fd,
        )
        if config.device == "qemu":
            _reserve_what_is_no_ram(zone)
        worker, in_flight, relief = _worker(setup, zone, ram.address, link)
        player = FaultPlayer(
            of_kind(config.parsed_faults, "off", "ring-full"),
            lambda fault: _set_fault(worker, fault, True),
            lambda fault: _set_fault(worker, fault, False),
            lambda: run.stop(),  # noqa: PLW0108 - it is made below, before any fault can begin
        )

        def tell(message: Message) -> None:
            if isinstance(message, ClockStarted):
                player.clock_started(message)
            channel.send(message)

        run = GuestRun(
            zone,
            ram.address,
            work,
            config.vcpus,
            worker,
            tell,
            waits_before_oom=config.oom == "wait",
            cools=config.keeps_clock,
            in_flight=in_flight,
            relief=relief,
        )
        started = threading.Event()
        threading.Thread(target=_obey, args=(channel, run, started), daemon=True).start()
        channel.send(Ready())
        started.wait()
        with worker, player:
            run.run()
        if player.failure is not None:
            raise FaultError(player.failure)
        return worker.cpu_s


def _worker(
    setup: GuestSetup, zone: Zone, ram_address: int, link: VhostUserLink | QemuLink
) -> tuple[GuestWorker, InFlight | None, Relief | None]:
    """The worker for the design, and what `GuestRun` calls `in_flight` and `relief`."""
    config = setup.config
    design = make_design(config.design, zone, config.tuning)
    zone.words[HOLDS_TIMED] = 1
    noting = partial(note_reported, zone.words, zone.pages)
    if isinstance(design, Balloon):
        assert isinstance(link, VhostUserLink), "RunConfig.check refuses other devices"
        deflates = config.oom == "wait"
        balloon_worker = BalloonWorker(
            design, InflateDriver(zone, ram_address, link, deflate_on_oom=deflates), link, noting
        )
        in_balloon = InBalloon(zone, design, balloon_worker, settled)
        return balloon_worker, in_balloon, design if deflates else None
    if config.design in ("off", "shared"):
        return GuestWorker(design, None, link), TakenByHost(zone) if config.design == "shared" else None, None
    reconnecting = link if setup.socket_path is not None and isinstance(link, VhostUserLink) else None
    entries = ring_entries(config.parsed_faults)
    driver = BalloonDriver(zone, ram_address, link, config.report_blocks_max, entries)
    return GuestWorker(design, driver, link, reconnecting, noting), None, None


def _link(setup: GuestSetup, ram: GuestRam) -> VhostUserLink | QemuLink:
    """The way to the device."""
    if setup.socket_path is not None:
        return VhostUserLink(connect(setup.socket_path), ram, path=setup.socket_path)
    device = socket.socket(fileno=setup.socket_fd)
    if setup.qemu_pid is None:
        return VhostUserLink(device, ram, timeout_s=HOST_SILENT_MAX_S)
    return QemuLink(Qtest(device), setup.qemu_pid)


def _reserve_what_is_no_ram(zone: Zone) -> None:
    """Keep the block with a PC's hole at 640 KiB: QEMU's device breaks on a report that reaches into it."""
    first = zone.allocate(ORDER_MAX)
    assert first == 0


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
    """Run as `python -m pagetide.machine.live.guest_process SETUP`."""
    setup = msgspec.json.decode(sys.argv[1], type=GuestSetup)
    set_parent_death_signal(signal.SIGKILL)
    channel = Channel(socket.socket(fileno=setup.control_fd))
    try:
        reporting_cpu_s = run_guest(setup, channel)
    except Exception as error:
        channel.send(Ended(str(error) or type(error).__name__, time.process_time()))
        return 1
    channel.send(Ended(None, time.process_time(), reporting_cpu_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
