"""The host's process of a live machine: a server with one guest."""

import contextlib
import logging
import mmap
import signal
import socket
import sys
import time

import msgspec
import numpy as np

from pagetide import bus_error
from pagetide.host.daemon.server import Server
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.memory.ledger import LEDGER_WORDS, Ledger
from pagetide.jit import kernels_are_cached
from pagetide.machine.config import RunConfig
from pagetide.machine.faults import of_kind
from pagetide.machine.live.host_ballooning import serve_and_balloon
from pagetide.machine.live.host_taking import taking_frames
from pagetide.machine.live.host_warm_up import warm_up_host, warm_up_taking
from pagetide.machine.live.mm_lock import MmLockHolder
from pagetide.machine.messages import Channel, Command, Ended, HostSetup, Ready, Stage
from pagetide.processes import set_parent_death_signal


def run_host(setup: HostSetup, channel: Channel) -> str | None:
    """Serve the guest until it has gone, or the starting process says stop; what went wrong, if anything did.

    What the host does by a clock of its own, taking frames or moving a balloon's target, begins when the guest does:
    how long before that the host was ready differs from run to run.
    """
    reasons: list[str] = []

    def gone(_: AttachedGuest, reason: str) -> None:
        reasons.append(reason)
        server.stop()

    if not kernels_are_cached():
        channel.send(Stage("compiling kernels (first run only)"))
    bus_error.install()
    warm_up_host()
    takes = setup.config.design == "shared"
    if takes:
        warm_up_taking()
    ledger = Ledger(np.frombuffer(mmap.mmap(setup.ledger_fd, LEDGER_WORDS * 8), np.int64, LEDGER_WORDS))
    with Server(verify_share=setup.config.verify_share, on_guest_gone=gone) as server, _contention(setup.config):
        server.adopt(socket.socket(fileno=setup.socket_fd), ledger=ledger, name="guest")
        channel.send(Ready())
        server.run(channel.fileno())  # while the guest gets ready
        if not reasons and channel.receive() == [Command("start")]:
            with taking_frames(setup, ledger) if takes else contextlib.nullcontext():
                if setup.config.design == "balloon":
                    serve_and_balloon(server, setup, channel.fileno(), lambda: bool(reasons))
                else:
                    server.run(channel.fileno())
    return None if reasons in ([], ["disconnected"]) else reasons[0]


def _contention(config: RunConfig) -> contextlib.AbstractContextManager[object]:
    """Who else wants the mm lock of this process (S10), if a fault says so."""
    for fault in of_kind(config.parsed_faults, "mmlock", "mmlock-split"):
        return MmLockHolder(config.ram_bytes if fault.kind == "mmlock-split" else 0)
    return contextlib.nullcontext()


def main() -> int:
    """Run as `python -m pagetide.machine.live.host_process SETUP`."""
    setup = msgspec.json.decode(sys.argv[1], type=HostSetup)
    set_parent_death_signal(signal.SIGKILL)
    logging.basicConfig(format="pagetide host: %(message)s", level=logging.WARNING)
    channel = Channel(socket.socket(fileno=setup.control_fd))
    try:
        failure = run_host(setup, channel)
    except Exception as error:
        failure = str(error) or type(error).__name__
    channel.send(Ended(failure, time.process_time()))
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
