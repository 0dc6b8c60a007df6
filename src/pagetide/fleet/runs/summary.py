"""What came of a fleet, from the database of its jobs: by setting and plan, with intervals from the draws."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.answering.answer import Answer
from pagetide.fleet.hosts.cpu import cpu_of
from pagetide.fleet.runs.store import Results
from pagetide.fleet.usage.canonical import Grid
from pagetide.machine.costs import Costs

LOW_HIGH = (5, 95)
"""The percentiles of the draws between which a value lies."""

MONTH_H = 720.0
"""A month of 30 days."""

_Column = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A value for the VMs as they are, and between what it lies for VMs drawn from them; None without draws."""

    value: float
    between: tuple[float, float] | None


class PlanSummary(msgspec.Struct, frozen=True, kw_only=True):
    """VMs placed by a plan under one setting.

    Attributes:
        plan: its name.
        hosts: how many it takes.
        vms_a_host: VMs by hosts.
        pressed_h: for how many hours a month a host is short of memory, on average over the hosts.
        over_mean_bytes: by how much it is, on average over those hours.
        over_most_bytes: the same at its deepest, of any host.
        begun: how often one became short, over the time that was counted.
        answer: what that led to; steps are steps of the grid.
    """

    plan: str
    hosts: int
    vms_a_host: Interval
    pressed_h: Interval
    over_mean_bytes: float
    over_most_bytes: float
    begun: int
    answer: Answer


class SettingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """All VMs of a fleet under one setting.

    Attributes:
        name: of the setting.
        mean_bytes: what is held for all of them, on average over the time.
        mean_between_bytes: between what that lies for VMs drawn from them; None without draws.
        most_bytes: the same as `mean_bytes` at its highest.
        most_at_s: when that was, on the grid's clock.
        mosts_bytes: what each VM held at its own highest, added up.
        returned_bytes: what came back, in all.
        refaulted_bytes: how much of that was touched again.
        reports_cpu_s: CPU time of guests and hosts for what came back, for a VM and a day; None for a bound.
        refaults_cpu_s: of guests for what was touched again, likewise.
        cpu_between_s: between what both together lie for VMs drawn from them; None for a bound, and without draws.
        plans: one for each.
        densest: the plan with the most VMs a host that is within the risk, of several the one with the least pressure;
            empty if none is.
        density: its VMs a host; None if there is none.
        within_share: in which share of the draws it is within the risk; None if there is none, or no draw.
        denser_share: in which share of the draws it has more VMs a host than the densest plan where nothing returns;
            likewise.
    """

    name: str
    mean_bytes: float
    mean_between_bytes: tuple[float, float] | None
    most_bytes: float
    most_at_s: int
    mosts_bytes: float
    returned_bytes: float
    refaulted_bytes: float
    reports_cpu_s: float | None
    refaults_cpu_s: float | None
    cpu_between_s: tuple[float, float] | None
    plans: tuple[PlanSummary, ...]
    densest: str
    density: Interval | None
    within_share: float | None
    denser_share: float | None


class Summary(NamedTuple):
    """A fleet.

    Attributes:
        vms: how many VMs there are.
        vm_days: for how long they are known, together.
        provisioned_bytes: what the VMs that are on have, on average over the time.
        unknown_share: of the VMs' time, of how much nothing is known; nothing is held then.
        placed: how many VMs are placed: those that are on at some time in the half that is counted.
        risk_h: for how many hours a month a host may be short in `densest`, on average over the hosts.
        settings: one for each, in their order.
    """

    vms: int
    vm_days: float
    provisioned_bytes: float
    unknown_share: float
    placed: int
    risk_h: float
    settings: tuple[SettingSummary, ...]


class Asked(NamedTuple):
    """A setting that was looked at.

    Attributes:
        name: of the mixture.
        settings: names in SETTINGS, one for each part of the mixture; none for a bound.
    """

    name: str
    settings: tuple[str, ...]


def summary(results: Results, grid: Grid, asked: Sequence[Asked], risk_h: float, costs: Costs) -> Summary:
    """Sum up what is there; every setting has the same jobs.

    Args:
        results: the database.
        grid: of the usage.
        asked: the settings, by their numbers.
        risk_h: for how many hours a month a host may be short, on average over the hosts.
        costs: what things cost.

    Raises:
        ConfigError: the costs have none of a setting's backing.
    """
    ((vms, steps, capacity),) = results.rows(
        "SELECT count(*), sum(known_steps), sum(capacity_byte_steps) FROM vms JOIN jobs USING (job) WHERE setting = 0"
    )
    ((placed,),) = results.rows(
        "SELECT coalesce(max(vms), 0) FROM (SELECT sum(vms) AS vms FROM placed JOIN jobs USING (job) "
        "WHERE setting = 0 AND draw = 0 GROUP BY plan)"
    )
    settings = list[SettingSummary]()
    first: _Column | None = None
    for number, one in enumerate(asked):
        setting, density = _setting(results, grid, number, one, risk_h, costs, first)
        settings.append(setting)
        first = density if number == 0 else first
    return Summary(
        vms=vms,
        vm_days=float(steps) * grid.step_s / 86400,
        provisioned_bytes=float(capacity) / grid.steps,
        unknown_share=1 - float(steps) / (vms * grid.steps),
        placed=int(placed),
        risk_h=risk_h,
        settings=tuple(settings),
    )


def held_by_step(results: Results, setting: int) -> _Column:
    """What is held for all VMs under a setting; bytes by step."""
    found = results.columns(
        "SELECT step, sum(held_bytes) AS held FROM steps JOIN jobs USING (job) WHERE setting = ? "
        "GROUP BY step ORDER BY step",
        [setting],
    )
    return np.asarray(found["held"], np.float64)


def _setting(
    results: Results, grid: Grid, number: int, asked: Asked, risk_h: float, costs: Costs, first: _Column | None
) -> tuple[SettingSummary, _Column | None]:
    """A setting, and the density of its densest plan by draw; `first` is that where nothing returns."""
    by_step = held_by_step(results, number)
    most = int(by_step.argmax())
    ((mosts,),) = results.rows("SELECT sum(held_most_bytes) FROM vms JOIN jobs USING (job) WHERE setting = ?", [number])
    sums = results.rows(
        "SELECT sum(known_steps), sum(held_byte_steps), sum(returned_bytes), sum(refaulted_bytes) "
        "FROM draws JOIN jobs USING (job) WHERE setting = ? GROUP BY draw, part ORDER BY draw, part",
        [number],
    )
    by_part = np.array(sums, np.float64).reshape(-1, max(1, len(asked.settings)), 4).transpose(2, 1, 0)
    known, held, returned, refaulted = by_part.sum(1)
    cpu_s = _cpu_s(asked.settings, known * grid.step_s, by_part[2], by_part[3], costs) if asked.settings else None
    plans, density, pressed_h = _plans(results, number)
    fits = np.where(pressed_h[:, 0] <= risk_h, density[:, 0], 0.0)
    best = int(np.lexsort((pressed_h[:, 0], -fits))[0])
    chosen = density[best] if fits[best] > 0 else None
    found = SettingSummary(
        name=asked.name,
        mean_bytes=float(held[0]) / grid.steps,
        mean_between_bytes=_between(held / grid.steps),
        most_bytes=float(by_step[most]),
        most_at_s=grid.start_s + most * grid.step_s,
        mosts_bytes=float(mosts),
        returned_bytes=float(returned[0]),
        refaulted_bytes=float(refaulted[0]),
        reports_cpu_s=None if cpu_s is None else float(cpu_s[0, 0]),
        refaults_cpu_s=None if cpu_s is None else float(cpu_s[0, 1]),
        cpu_between_s=None if cpu_s is None else _between(cpu_s.sum(1)),
        plans=plans,
        densest="" if chosen is None else plans[best].plan,
        density=None if chosen is None else _interval(chosen),
        within_share=None if chosen is None else _share(pressed_h[best] <= risk_h),
        denser_share=None if chosen is None or first is None else _share(chosen > first),
    )
    return found, chosen


def _cpu_s(settings: Sequence[str], known_s: _Column, returned: _Column, refaulted: _Column, costs: Costs) -> _Column:
    """CPU time for reports and for refaults, for a VM and a day of each draw's own; float64 [draw, 2].

    `returned` and `refaulted` are float64 [setting, draw].
    """
    cpu = [
        [cpu_of(setting, *sums, costs) for sums in zip(back.tolist(), again.tolist(), strict=True)]
        for setting, back, again in zip(settings, returned, refaulted, strict=True)
    ]
    vm_days = np.maximum(known_s, 1.0) / 86400
    whole: _Column = np.array(cpu, np.float64).sum(0)
    return whole / vm_days[:, np.newaxis]


def _plans(results: Results, setting: int) -> tuple[tuple[PlanSummary, ...], _Column, _Column]:
    """Each plan's summary, and its density and hours of pressure; float64 [plan, draw]."""
    columns = results.columns(
        "SELECT plan, draw, sum(vms) AS vms, sum(hosts) AS hosts, sum(host_steps) AS host_steps, "
        "sum(pressed_steps) AS pressed_steps, sum(begun) AS begun, sum(over_byte_steps) AS over_byte_steps, "
        "max(over_most_bytes) AS over_most_bytes, min(placed.rowid) AS place "
        "FROM placed JOIN jobs USING (job) WHERE setting = ? GROUP BY plan, draw ORDER BY min(job), place",
        [setting],
    )
    names = list(dict.fromkeys(columns["plan"].tolist()))
    by_name = {name: np.flatnonzero(columns["plan"] == name) for name in names}
    rows = [one[np.argsort(columns["draw"][one])] for one in by_name.values()]
    numbers = {name: np.asarray(columns[name], np.float64) for name in columns if name != "plan"}
    density = np.stack([numbers["vms"][one] / np.maximum(numbers["hosts"][one], 1) for one in rows])
    pressed_h = np.stack(
        [MONTH_H * numbers["pressed_steps"][one] / np.maximum(numbers["host_steps"][one], 1) for one in rows]
    )
    answers = _answers(results, setting)
    plans = tuple(
        PlanSummary(
            plan=name,
            hosts=int(numbers["hosts"][one[0]]),
            vms_a_host=_interval(density[number]),
            pressed_h=_interval(pressed_h[number]),
            over_mean_bytes=float(numbers["over_byte_steps"][one[0]] / max(numbers["pressed_steps"][one[0]], 1)),
            over_most_bytes=float(numbers["over_most_bytes"][one[0]]),
            begun=int(numbers["begun"][one[0]]),
            answer=answers[name],
        )
        for number, (name, one) in enumerate(zip(names, rows, strict=True))
    )
    return plans, density, pressed_h


def _answers(results: Results, setting: int) -> dict[str, Answer]:
    """What pressure led to, by plan."""
    sums = ", ".join(f"{'max' if name == 'swapped_most_bytes' else 'sum'}({name})" for name in Answer._fields)
    found = results.rows(
        f"SELECT plan, {sums} FROM answers JOIN jobs USING (job) WHERE setting = ? GROUP BY plan",  # noqa: S608
        [setting],
    )
    return {plan: Answer(*values) for plan, *values in found}


def _interval(by_draw: _Column) -> Interval:
    return Interval(float(by_draw[0]), _between(by_draw))


def _between(by_draw: _Column) -> tuple[float, float] | None:
    """The percentiles of the draws, which come after the value itself; None if there are none."""
    if len(by_draw) == 1:
        return None
    low, high = np.percentile(by_draw[1:], LOW_HIGH)
    return float(low), float(high)


def _share(by_draw: npt.NDArray[np.bool_]) -> float | None:
    """In which share of the draws it is so; None if there are none."""
    return float(by_draw[1:].mean()) if len(by_draw) > 1 else None
