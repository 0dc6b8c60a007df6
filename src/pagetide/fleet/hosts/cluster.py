"""A cluster of hosts: its VMs placed by each plan under one setting or mixture, what follows, and the same for others.

A fleet is cut into clusters of so many VMs, in the order of its source: no VM is placed in another's hosts. Intervals
come from a bootstrap: as many of the cluster's VMs are drawn, with replacement. Drawn or as they are, VMs come in an
order that the seed decides: neighbours in a file are often one owner's, with their peaks at once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.hosts.answering.answer import Answer, Pressed
from pagetide.fleet.hosts.answering.registry import ANSWERS
from pagetide.fleet.hosts.host import Host, known, planned_steps
from pagetide.fleet.hosts.placing.first_fit import first_fit
from pagetide.fleet.hosts.placing.registry import Plan
from pagetide.fleet.hosts.pressure import Pressure, demand_of, pressure_of
from pagetide.fleet.hosts.series import Series, series
from pagetide.fleet.usage.canonical import Usage

HEAT_SPAN_S = 4 * 3600
"""Over so long the fullest instant of a host is told."""


class Question(NamedTuple):
    """What is asked of a cluster.

    Attributes:
        plans: by which its VMs are placed.
        host: what each host has.
        answer: a name in ANSWERS, what hosts do about pressure.
        draws: how often its VMs are drawn anew.
        seed: drives that, together with the cluster's number.
    """

    plans: tuple[Plan, ...]
    host: Host
    answer: str
    draws: int
    seed: int


class Placed(NamedTuple):
    """VMs that were placed by a plan.

    Attributes:
        plan: its name.
        draw: 0 for the cluster's VMs as they are; otherwise which draw.
        vms: how many were placed: those that are on at some time while pressure is counted.
        pressure: what came of it.
    """

    plan: str
    draw: int
    vms: int
    pressure: Pressure


class Cluster(NamedTuple):
    """What was found.

    Attributes:
        series: what is held for each VM.
        placed: of each plan and draw.
        answers: by plan's name, what pressure led to, for the VMs as they are.
        heat: by plan's name, float32 [host, span], the fullest that each host was within a span, as a share of its
            room.
        drawn: int64 [draw, vm], which VMs were drawn.
    """

    series: Series
    placed: tuple[Placed, ...]
    answers: dict[str, Answer]
    heat: dict[str, npt.NDArray[np.float32]]
    drawn: npt.NDArray[np.int64]


def cluster(usage: Usage, mixture: Mixture, question: Question, number: int) -> Cluster:
    """Place the VMs of cluster `number` by each plan, and count what follows; which has which part is the seed's."""
    found = series(usage, mixture, mixture.part_of(len(usage.vms), question.seed, number))
    there = np.flatnonzero(usage.capacity_bytes.max(1, initial=0) > 0)
    as_they_are = np.random.default_rng([question.seed, number]).permutation(there)
    drawn = np.zeros((question.draws, len(there)), np.int64)
    for row in range(question.draws):
        drawn[row] = _draw(there, question.seed, number, row + 1)
    begin, before = planned_steps(usage), known(usage, found.held_bytes)
    comes = usage.capacity_bytes[:, begin:].max(1, initial=0) > 0  # the others would be VMs that need nothing
    placed, answers, heat = list[Placed](), dict[str, Answer](), dict[str, npt.NDArray[np.float32]]()
    held, used = (array[:, begin:] for array in (found.held_bytes, usage.used_bytes))
    for plan in question.plans:
        wanted = plan.wanted(before)
        for draw, chosen in enumerate([as_they_are, *drawn]):
            order = chosen[comes[chosen]]
            hosts = first_fit(wanted, order, question.host.room_bytes)
            demand = demand_of(held, order, hosts)
            placed.append(Placed(plan.name, draw, len(order), pressure_of(demand, question.host.room_bytes)))
            if draw == 0:
                pressed = Pressed(question.host, held[order], used[order], hosts, demand, usage.grid.step_s)
                answers[plan.name] = ANSWERS[question.answer](pressed)
                heat[plan.name] = _fullest(demand / question.host.room_bytes, usage.grid.step_s)
    return Cluster(found, tuple(placed), answers, heat, drawn)


def _draw(there: npt.NDArray[np.int64], seed: int, number: int, draw: int) -> npt.NDArray[np.int64]:
    """The same VMs for every plan and setting, so that these can be compared draw by draw."""
    return np.random.default_rng([seed, number, draw]).choice(there, len(there))


def _fullest(shares: npt.NDArray[np.float64], step_s: int) -> npt.NDArray[np.float32]:
    steps = max(1, HEAT_SPAN_S // step_s)
    return np.maximum.reduceat(shares, np.arange(0, shares.shape[1], steps), axis=1).astype(np.float32)
