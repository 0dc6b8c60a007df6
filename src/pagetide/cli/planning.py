"""`pagetide fleet`: for who plans what hosts hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from pagetide.cli.app import app, listed, whole

if TYPE_CHECKING:
    from pagetide.commands.fleet.choices import Choice

_MADE_UP = Group("A made-up fleet", sort_key=1)
_FILE = Group("Columns of a file", sort_key=2)
_MODEL = Group("Guests", sort_key=3)
_HOSTS = Group("Hosts", sort_key=4)
_HOW = Group("How it is run", sort_key=5)

_Whole = Parameter(converter=whole, group=_MADE_UP)
_LIST = Parameter(negative="", show_default=False, group=_MODEL, consume_multiple=True)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class UsageOptions:
    """Which fleet: the options of every command that reads usage."""

    usage: Annotated[
        Path | None,
        Parameter(
            help="What VMs used: a folder of the Grid Workloads Archive's Bitbrains CSV files as published, or one CSV "
            "or Parquet file with a row a sample. [default: a made-up fleet]"
        ),
    ] = None
    vms: Annotated[int | None, _Whole, Parameter(help="How many VMs. [default: 1000]")] = None
    days: Annotated[int | None, _Whole, Parameter(help="For how long. [default: 7]")] = None
    seed: Annotated[int | None, _Whole, Parameter(help="Drives every random choice. [default: 1]")] = None
    vm_column: Annotated[str | None, Parameter(group=_FILE, help="The VM's name or number. [default: vm]")] = None
    time_column: Annotated[
        str | None,
        Parameter(group=_FILE, help="When the sample was taken: a time in UTC, or a number. [default: time_s]"),
    ] = None
    capacity_column: Annotated[
        str | None, Parameter(group=_FILE, help="The VM's memory. [default: capacity_bytes]")
    ] = None
    used_column: Annotated[
        str | None, Parameter(group=_FILE, help="How much of it was used. [default: used_bytes]")
    ] = None
    memory_unit: Annotated[
        str | None, Parameter(group=_FILE, help="Of both: B, KB, KiB, MB, MiB, GB or GiB. [default: B]")
    ] = None
    time_unit: Annotated[
        str | None,
        Parameter(group=_FILE, help="Of a time that is a number: s, ms, us or ns. [default: told by how large it is]"),
    ] = None
    sorted: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            group=_FILE,
            help="Refuse the file if a VM's time runs backwards, instead of sorting it.",
        ),
    ] = False

    def choice(self) -> "Choice":
        """The same for the commands."""
        from pagetide.commands.fleet.choices import Choice

        columns = {
            "vm": self.vm_column,
            "time": self.time_column,
            "capacity": self.capacity_column,
            "used": self.used_column,
            "memory_unit": self.memory_unit,
            "time_unit": self.time_unit,
            "is_sorted": self.sorted or None,
        }
        given = {name: value for name, value in columns.items() if value is not None}
        return Choice(usage=self.usage, columns=given, vms=self.vms, days=self.days, seed=self.seed)


_FLEET_EXAMPLES = """
Examples:

    pagetide fleet
    pagetide fleet --usage rnd/2013-8 --settings linux-9,linux-4,shared,balloon
    pagetide fleet --usage rnd/2013-8 --settings off:0.7+linux-9:0.3,off:0.4+linux-9:0.6
    pagetide fleet --usage usage.parquet --capacity-column ram --used-column active --memory-unit MiB --json
    pagetide fleet --usage rnd/2013-8 --host-ram 512GiB --on-pressure migration --out plan
    pagetide fleet --usage rnd/2013-8 --drawn 100000 --settings linux-9 --draws 0 --out many

`pagetide fleet learn` and `pagetide fleet check` are about the model of the guests; they have a --help of their own.

Exit status: 0 done; 1 the usage cannot be read, or too much of it is odd, or workers were lost; 2 bad arguments; 130
Ctrl-C: what is done is kept with --out.
"""

fleet = App(name="fleet", help_epilogue=_FLEET_EXAMPLES, help_format="markdown")
app.command(fleet)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """What hosts are like, and what is asked of them."""

    host_ram: Annotated[str, Parameter(group=_HOSTS, help="A host's memory.")] = "256GiB"
    host_reserve: Annotated[
        str | None, Parameter(group=_HOSTS, help="What it keeps for itself. [default: a twentieth]")
    ] = None
    host_swap: Annotated[str, Parameter(group=_HOSTS, help="Its swap.")] = "32GiB"
    place: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            consume_multiple=True,
            group=_HOSTS,
            help="How VMs are placed, first fit each: by reservation, by quantile:0.95 (or another) of what was held, "
            "by peak-of-sum. [default: all, with quantiles from 0.5 to 1]",
        ),
    ] = ()
    on_pressure: Annotated[
        str, Parameter(group=_HOSTS, help="What a host does that is short: swap, balloon, migration or kill.")
    ] = "swap"
    risk_hours: Annotated[
        float, Parameter(group=_HOSTS, help="For how many hours a month a host may be short on average over all.")
    ] = 1.0
    draws: Annotated[
        int, Parameter(converter=whole, group=_HOSTS, help="How often VMs are drawn anew, for intervals.")
    ] = 40


@fleet.default
def fleet_held(  # noqa: D417 - the options of the usage and of the hosts have a help of their own
    options: UsageOptions = UsageOptions(),
    host_options: HostOptions = HostOptions(),
    *,
    settings: Annotated[tuple[str, ...], _LIST] = (),
    guests: Annotated[Literal["last", "anywhere"] | None, Parameter(group=_MODEL)] = None,
    responses: Annotated[Path | None, Parameter(group=_MODEL)] = None,
    costs: Annotated[Path | None, Parameter(group=_MODEL)] = None,
    checked: Annotated[Path | None, Parameter(group=_MODEL)] = None,
    drawn: Annotated[int | None, Parameter(converter=whole, group=_HOW)] = None,
    out: Annotated[Path | None, Parameter(group=_HOW)] = None,
    resume: Annotated[bool, Parameter(negative="", show_default=False, group=_HOW)] = False,
    workers: Annotated[int | None, Parameter(converter=whole, group=_HOW)] = None,
    cluster: Annotated[str | None, Parameter(group=_HOW)] = None,
    json: Annotated[bool, Parameter(negative="", group=_HOW)] = False,
) -> int:
    """Say what hosts hold for many VMs, how many VMs fit on one, how often it is short, and what reporting changes.

    What is odd in recorded usage (machines that are off, more used than there is, instants given twice, gaps) is
    counted, named, and dealt with by a rule that is told beside it.

    Args:
        settings: Under which settings, beside the bounds: off, linux-9 to linux-0 (Linux's reporting by its order), or
            a design of `pagetide run`; pool-0 is `pool` down to single pages, balloon has a policy that leaves guests a
            sixteenth of their memory free. A mix such as linux-9:0.3+off:0.7 gives each share of the VMs one of them.
            [default: linux-9,linux-0,pool-0]
        guests: Only for guests that free what they allocated last, or anywhere in what they hold. [default: for both]
        responses: A file that `pagetide fleet learn` wrote. [default: pagetide/responses.json in XDG_DATA_HOME, or
            what is built in, which has all settings]
        costs: What things cost, as `pagetide calibrate` wrote it. [default: as for `pagetide run`]
        checked: What `pagetide fleet check --json` printed, to be in the report. [default: none]
        drawn: Draw so many VMs from those that were recorded. [default: these themselves]
        out: A folder for a report, tables as Parquet and CSV, and all that `--resume` needs. [default: none]
        resume: Go on with what is in --out, given the same command.
        workers: How many processes. [default: one a processor, or none for a small fleet]
        cluster: Have a Dask cluster do it, by its scheduler's address.
        json: Print JSON.
    """
    from pagetide.commands.fleet.asking import Hosts, Manner
    from pagetide.commands.fleet.hosts import fleet as answer

    asked = host_options
    hosts = Hosts(
        ram_bytes=_size("--host-ram", asked.host_ram),
        reserve_bytes=None if asked.host_reserve is None else _size("--host-reserve", asked.host_reserve),
        swap_bytes=_size("--host-swap", asked.host_swap),
        plans=listed(asked.place),
        answer=asked.on_pressure,
        risk_h=asked.risk_hours,
        draws=asked.draws,
    )
    manner = Manner(
        drawn=drawn,
        out=out,
        resume=resume,
        workers=workers,
        cluster=cluster,
        **({} if guests is None else {"guests": (guests,)}),
        responses=responses,
        costs=costs,
        checked=checked,
        as_json=json,
    )
    return answer(options.choice(), listed(settings), hosts, manner)


def _size(option: str, text: str) -> int:
    from pagetide.machine.config_error import ConfigError
    from pagetide.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


_LEARN_EXAMPLES = """
Examples:

    pagetide fleet learn
    pagetide fleet learn --settings linux-9,shared --out mine.json

Exit status: 0 done; 1 a simulated guest did not get through, or the file cannot be written; 2 bad arguments; 130
Ctrl-C, and nothing is written.
"""


@fleet.command(help_epilogue=_LEARN_EXAMPLES, help_format="markdown")
def learn(
    *,
    settings: Annotated[tuple[str, ...], _LIST] = (),
    out: Path | None = None,
    costs: Path | None = None,
    seed: Annotated[int, Parameter(converter=whole)] = 1,
) -> int:
    """Learn from simulated guests what a host gets back under each setting: how much, how fast, what stays behind.

    Takes some minutes for all settings.

    Args:
        settings: Only these, into a file that --out names. [default: all]
        out: The file to write. [default: pagetide/responses.json in XDG_DATA_HOME]
        costs: What things cost, as `pagetide calibrate` wrote it. [default: as for `pagetide run`]
        seed: Drives every random choice.
    """
    from pagetide.commands.fleet.model import fleet_learn

    return fleet_learn(listed(settings), out, costs, seed)


_CHECK_EXAMPLES = """
Examples:

    pagetide fleet check
    pagetide fleet check --usage rnd/2013-8 --vm-days 10 --settings linux-9

Exit status: 0 the model is as close as it should be; 1 it is not, or the usage cannot be read; 2 bad arguments; 130
Ctrl-C.
"""


@fleet.command(help_epilogue=_CHECK_EXAMPLES, help_format="markdown")
def check(  # noqa: D417 - the options of the usage have a help of their own
    options: UsageOptions = UsageOptions(),
    *,
    vm_days: Annotated[int, Parameter(converter=whole)] = 40,
    settings: Annotated[tuple[str, ...], _LIST] = (),
    responses: Annotated[Path | None, Parameter(group=_MODEL)] = None,
    costs: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check the model of the guests against the simulator, on days of VMs that are drawn from their usage.

    Each day is simulated in full, with the VM's own curve as workload, on a guest whose memory is scaled down.

    Args:
        vm_days: How many days of VMs are drawn.
        settings: Under which settings, as for `pagetide fleet`. [default: linux-9,linux-0,pool-0]
        responses: A file that `pagetide fleet learn` wrote. [default: as for `pagetide fleet`]
        costs: What things cost, as `pagetide calibrate` wrote it. [default: as for `pagetide run`]
        json: Print JSON.
    """
    from pagetide.commands.fleet.model import fleet_check

    return fleet_check(options.choice(), listed(settings), vm_days, responses=responses, costs=costs, as_json=json)
