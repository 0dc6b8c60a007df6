"""`pagetide calibrate`, `conformance` and `explore`: what a machine costs, what a device keeps to, and the designs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pagetide.cli.app import command
from pagetide.machine.config_error import ConfigError

_CALIBRATE_EXAMPLES = """
Examples:

    pagetide calibrate
    pagetide calibrate --out this-machine.json
    pagetide run --machine simulated --costs this-machine.json

Exit status: 0 done; 1 no memory, or the file cannot be written; 2 bad arguments; 130 Ctrl-C.
"""


@command(_CALIBRATE_EXAMPLES)
def calibrate(*, out: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Measure this machine, so that the simulated one takes as long: `run --machine simulated`.

    Takes some 15 s and 200 MiB of memory. What else the machine does meanwhile is measured, too.

    Args:
        out: The file to write. [default: pagetide/costs.json in XDG_DATA_HOME, where `run` looks]
        json: Print what was measured as JSON, instead of a table.
    """
    from pagetide.commands.calibrate import run_calibrate

    return run_calibrate(out, as_json=json)


_CONFORMANCE_EXAMPLES = """
Examples:

    pagetide conformance
    pagetide conformance --device qemu
    pagetide conformance --device /run/vm1.sock --json

Exit status: 0 every vector that the device can be tested with passed; 1 one did not, the device went away, or there
is none; 2 bad arguments; 130 Ctrl-C.
"""


@command(_CONFORMANCE_EXAMPLES)
def conformance(*, device: str = "pagetide", json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Run the conformance vectors on a virtio-balloon device: every queue, rings, features, configuration.

    Effects are read from the memory file, not from return codes. What stock QEMU does differently is
    expected of it, and the table says why.

    Args:
        device: pagetide, qemu (a stock QEMU without a guest), or the path of a vhost-user socket.
        json: Print JSON instead of a table.
    """
    from pagetide.commands.conformance import run_conformance

    return run_conformance(device, as_json=json)


_EXPLORE_EXAMPLES = """
Examples:

    pagetide explore
    pagetide explore --design cursor --scenario zone
    pagetide explore --broken

Exit status: 0 if every invariant holds in every state (with --broken: if every variant is caught); 1 otherwise;
2 bad arguments; 130 Ctrl-C.
"""


@command(_EXPLORE_EXAMPLES)
def explore(
    *,
    design: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    scenario: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    broken: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run every interleaving of two vCPUs, reporter and device over a tiny guest, and check each state.

    The code is the guest's and the host's own, stopped before each lock, atomic, kick and system call. What breaks an
    invariant is shown with the shortest sequence of steps that leads there.

    Two designs have scenarios of their own: shared, with a host that takes frames, and balloon, with a host that
    wants more and fewer pages.

    Args:
        design: Explore only this; may be given more than once. [default: all]
        scenario: Explore only this, such as zone or ring; may be given more than once. One that there is not is
            answered with those that there are. [default: all]
        broken: Explore what is broken on purpose instead; each variant of these designs must be caught.
        json: Print JSON instead of a table.
    """
    from pagetide.commands.explore import explore as explore_all
    from pagetide.explorer.broken.variants import VARIANTS
    from pagetide.explorer.scenarios import scenarios_of
    from pagetide.guest.reporting.registry import DESIGNS

    designs = design or tuple(DESIGNS)
    scenarios = tuple(dict.fromkeys(name for one in DESIGNS for name in scenarios_of(one)))
    for chosen, known, what in ((design, tuple(DESIGNS), "design"), (scenario, scenarios, "scenario")):
        for name in chosen:
            if name not in known:
                raise ConfigError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    if broken and scenario:
        raise ConfigError("each broken variant has its own scenario: --broken goes with --design only")
    breakable = dict.fromkeys(variant.design for variant in VARIANTS.values())
    if broken and not breakable.keys() & set(designs):
        raise ConfigError(f"nothing is broken on purpose in {', '.join(designs)}; choose from {', '.join(breakable)}")
    if not broken and not any(name in scenarios_of(one) for one in designs for name in scenario or scenarios):
        has = "; ".join(f"{one} has {', '.join(scenarios_of(one))}" for one in designs)
        raise ConfigError(f"no chosen design has a scenario {', '.join(scenario)}: {has}")
    return explore_all(designs, scenario or scenarios, broken=broken, as_json=json)
