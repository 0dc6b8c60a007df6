"""`pagetide fleet`: for who plans what hosts hold."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from pagetide.cli.app import app, whole

_MADE_UP = Group("A made-up fleet", sort_key=1)
_FILE = Group("Columns of a file", sort_key=2)

_FLEET_EXAMPLES = """
Examples:

    pagetide fleet
    pagetide fleet --usage rnd/2013-8
    pagetide fleet --usage usage.parquet --capacity-column ram --used-column active --memory-unit MiB --json

Exit status: 0 done; 1 the usage cannot be read, or too much of it is odd; 2 bad arguments; 130 Ctrl-C.
"""

fleet = App(name="fleet", help_epilogue=_FLEET_EXAMPLES, help_format="markdown")
app.command(fleet)


@fleet.default
def fleet_command(
    *,
    usage: Path | None = None,
    vms: Annotated[int | None, Parameter(converter=whole, group=_MADE_UP)] = None,
    days: Annotated[int | None, Parameter(converter=whole, group=_MADE_UP)] = None,
    seed: Annotated[int | None, Parameter(converter=whole, group=_MADE_UP)] = None,
    vm_column: Annotated[str | None, Parameter(group=_FILE)] = None,
    time_column: Annotated[str | None, Parameter(group=_FILE)] = None,
    capacity_column: Annotated[str | None, Parameter(group=_FILE)] = None,
    used_column: Annotated[str | None, Parameter(group=_FILE)] = None,
    memory_unit: Annotated[str | None, Parameter(group=_FILE)] = None,
    time_unit: Annotated[str | None, Parameter(group=_FILE)] = None,
    sorted_: Annotated[bool, Parameter(name="--sorted", negative="", show_default=False, group=_FILE)] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say what the hosts of many VMs hold for them, and how much of it could be returned at most.

    What is odd in recorded usage (machines that are off, more used than there is, instants given twice, gaps) is
    counted, named, and dealt with by a rule that is told beside it.

    Args:
        usage: What VMs used: a folder of the Grid Workloads Archive's Bitbrains CSV files as published, or one CSV or
            Parquet file with a row a sample. [default: a made-up fleet]
        vms: How many VMs. [default: 1000]
        days: For how long. [default: 7]
        seed: Drives every random choice. [default: 1]
        vm_column: The VM's name or number. [default: vm]
        time_column: When the sample was taken: a time in UTC, or a number. [default: time_s]
        capacity_column: The VM's memory. [default: capacity_bytes]
        used_column: How much of it was used. [default: used_bytes]
        memory_unit: Of both: B, KB, KiB, MB, MiB, GB or GiB. [default: B]
        time_unit: Of a time that is a number: s, ms, us or ns. [default: told by how large it is]
        sorted_: Refuse the file if a VM's time runs backwards, instead of sorting it.
        json: Print JSON.
    """
    from pagetide.commands.fleet.held import Choice
    from pagetide.commands.fleet.held import fleet as answer

    columns = {
        "vm": vm_column,
        "time": time_column,
        "capacity": capacity_column,
        "used": used_column,
        "memory_unit": memory_unit,
        "time_unit": time_unit,
        "is_sorted": sorted_ or None,
    }
    given = {name: value for name, value in columns.items() if value is not None}
    return answer(Choice(usage=usage, columns=given, vms=vms, days=days, seed=seed), as_json=json)
