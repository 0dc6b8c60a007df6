"""What a process that ahead.py starts does: it compiles by doing a little of everything, and says what it compiled."""

import signal
import sys
from collections.abc import Sequence

from pagetide.guest.reporting.registry import DESIGNS
from pagetide.jit import kernel_names, telling_compiled
from pagetide.kernel_cache import mark_compiled
from pagetide.machine.config import RAM_BYTES_MIN, RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.kernels.ahead import DONE, KNOWN
from pagetide.machine.live.guest_warm_up import warm_up_design, warm_up_guest
from pagetide.machine.live.host_warm_up import warm_up_host, warm_up_taking
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.processes import set_parent_death_signal


def _designs() -> None:
    for name in DESIGNS:
        warm_up_design(name)


def _simulated() -> None:
    for design in ("scan", "shared", "balloon"):  # what reports, what is taken from, and what takes
        config = RunConfig(ram_bytes=RAM_BYTES_MIN, bursts=1, hold_s=0.1, design=design)
        SimulatedMachine(config, read_costs()).run(Nobody())


_STEPS = {
    "guest": warm_up_guest,
    "host": warm_up_host,
    "taking": warm_up_taking,
    "designs": _designs,
    "simulated": _simulated,
}


def main(steps: Sequence[str]) -> None:
    """Do some steps, each of which is then known to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    set_parent_death_signal(signal.SIGKILL)
    _say(KNOWN, kernel_names())
    with telling_compiled(lambda name: _say(DONE, [name])):
        for step in steps:
            _STEPS[step]()
            mark_compiled(step)


def _say(what: str, names: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{what} {name}\n" for name in names))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
