"""What `pagetide fleet` is asked beside its usage: what hosts are like, how it is run, and what is kept."""

from pathlib import Path

import msgspec

from pagetide.commands.fleet.choices import Choice
from pagetide.fleet.hosts.answering.registry import ANSWERS
from pagetide.fleet.hosts.cluster import Question
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.hosts.placing.registry import PLANS, PlanError, parse_plan
from pagetide.fleet.learning.settings import SCATTERS
from pagetide.machine.config_error import ConfigError
from pagetide.units import GIB, format_size

_WORKERS_MAX = 256
_DRAWS_MAX = 1000
_VMS_MAX = 1_000_000
_MONTH_H = 720


class Hosts(msgspec.Struct, frozen=True, kw_only=True):
    """What hosts are like, and what is asked of them.

    Attributes:
        ram_bytes: a host's memory.
        reserve_bytes: what it keeps for itself; None for a twentieth.
        swap_bytes: its swap.
        plans: names of plans; none for PLANS.
        answer: a name in ANSWERS.
        risk_h: for how many hours a month a host may be short, on average over the hosts.
        draws: how often VMs are drawn anew for intervals.
    """

    ram_bytes: int = 256 * GIB
    reserve_bytes: int | None = None
    swap_bytes: int = 32 * GIB
    plans: tuple[str, ...] = ()
    answer: str = "swap"
    risk_h: float = 1.0
    draws: int = 40

    def question(self, seed: int) -> Question:
        """The same for jobs.

        Raises:
            ConfigError: a value is out of its range, or there is no such plan or answer.
        """
        if self.ram_bytes <= 0:
            raise ConfigError(f"a host needs memory: --host-ram is {format_size(self.ram_bytes)}")
        reserve = self.ram_bytes // 20 if self.reserve_bytes is None else self.reserve_bytes
        if not 0 <= reserve < self.ram_bytes or self.swap_bytes < 0:
            raise ConfigError(
                f"a host's reserve must be below its {format_size(self.ram_bytes)} of memory, and no size negative"
            )
        if self.answer not in ANSWERS:
            raise ConfigError(f"there is no answer {self.answer!r} to pressure; choose from {', '.join(ANSWERS)}")
        if not 0 <= self.draws <= _DRAWS_MAX:
            raise ConfigError(f"--draws must be from 0 to {_DRAWS_MAX}, not {self.draws}")
        if not 0 <= self.risk_h <= _MONTH_H:
            raise ConfigError(f"--risk-hours must be from 0 to the 720 that a month has, not {self.risk_h:g}")
        try:
            plans = tuple(map(parse_plan, self.plans)) or PLANS
        except PlanError as error:
            raise ConfigError(str(error)) from None
        return Question(plans, Host(self.ram_bytes, reserve, self.swap_bytes), self.answer, self.draws, seed)


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How it is run and what is kept.

    Attributes:
        drawn: so many VMs are drawn from those that were recorded; None for these themselves.
        out: the folder for the results; None to keep none.
        resume: go on with what is in `out`.
        workers: how many processes; None for one a processor if there is enough to do.
        cluster: the address of a Dask scheduler; None for processes of this machine.
        guests: names in SCATTERS: for which kinds of guest.
        responses: a file of how guests respond; None for the usual place, or what is built in.
        costs: a file of what things cost; None likewise.
        checked: what `pagetide fleet check --json` printed, for the report; None for nothing.
        as_json: print JSON.
    """

    drawn: int | None = None
    out: Path | None = None
    resume: bool = False
    workers: int | None = None
    cluster: str | None = None
    guests: tuple[str, ...] = tuple(SCATTERS)
    responses: Path | None = None
    costs: Path | None = None
    checked: Path | None = None
    as_json: bool = False

    def check(self, choice: Choice) -> None:
        """Raise ConfigError for what is out of its range or does not go together."""
        if self.resume and self.out is None:
            raise ConfigError("--resume needs --out, the folder with what to go on with")
        if self.checked is not None and self.out is None:
            raise ConfigError("--checked is for the report, which --out writes")
        if self.workers is not None and not 1 <= self.workers <= _WORKERS_MAX:
            raise ConfigError(f"--workers must be from 1 to {_WORKERS_MAX}, not {self.workers}")
        if self.workers is not None and self.cluster is not None:
            raise ConfigError("--workers are processes of this machine: with --cluster its own do the work")
        if self.drawn is not None and choice.usage is None:
            raise ConfigError("--drawn is for recorded usage: --vms says how many are made up")
        if self.drawn is not None and not 1 <= self.drawn <= _VMS_MAX:
            raise ConfigError(f"--drawn must be from 1 to {_VMS_MAX:,}, not {self.drawn}")
