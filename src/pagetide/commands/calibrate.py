"""`pagetide calibrate`: measures this machine for the simulated one, shows what it found, and writes it to a file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pagetide.commands.run import check_target
from pagetide.commands.status import STATUS_OK
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Cost, Costs, default_path, write_costs
from pagetide.units import format_size


def run_calibrate(out: Path | None, *, as_json: bool) -> int:
    """Measure, write and show; an exit status.

    Args:
        out: the file to write; None is where `run --machine simulated` looks.
        as_json: print what was written, instead of a table.

    Raises:
        ConfigError: the file cannot be written, or kernels do not run compiled, so that nothing measured would mean
            anything.
        OSError: no memory, or the file could not be written after all.
    """
    from pagetide.jit import JIT_DISABLED
    from pagetide.machine.calibration.calibrate import calibrate

    if JIT_DISABLED:
        raise ConfigError("with NUMBA_DISABLE_JIT=1 kernels are plain Python, and their cost says nothing: unset it")
    path = out or default_path()
    check_target(path, "the costs", makes_folders=True)
    costs = calibrate(lambda what: print(f"measuring {what}", file=sys.stderr, flush=True))
    write_costs(costs, path)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(costs), indent=2).decode() + "\n")
    else:
        _print_table(costs)
    print(f"written to {path}", file=sys.stderr)
    return STATUS_OK


def _print_table(costs: Costs) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{costs.cpu}, {costs.cpus} processors, Linux {costs.kernel}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("cost")
    for heading in ("median", "10th percentile", "90th"):
        table.add_column(heading, justify="right")
    for name, cost in _rows(costs):
        table.add_row(name, *(_duration(ns) for ns in (cost.ns, cost.low_ns, cost.high_ns)))
    Console(highlight=False).print(table)


def _rows(costs: Costs) -> Iterator[tuple[str, Cost]]:
    for name in costs.__struct_fields__:
        value = getattr(costs, name)
        if isinstance(value, Cost):
            yield name.replace("_", " "), value
    if costs.taking is not None:
        yield "taking frames: a batch", costs.taking.batch
        yield "taking frames: each frame besides its discard", costs.taking.frame
        yield "taking frames: looking at one", costs.taking.look
    for backing, found in costs.backings.items():
        yield f"{backing}: fault", found.fault
        yield f"{backing}: fault beside another vCPU's", found.fault_shared
        yield f"{backing}: punching a hole again", found.punch
        for piece in found.pieces:
            yield f"{backing}: discarding {format_size(piece.size_bytes)}", piece.cost
        if found.split is not None:
            yield f"{backing}: splitting a huge page first", found.split


def _duration(ns: float) -> str:
    for limit_ns, unit in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms")):
        if ns < limit_ns:
            return f"{ns * 1e3 / limit_ns:.3g} {unit}"
    return f"{ns / 1e9:.3g} s"
