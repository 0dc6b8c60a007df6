"""What the report has of each condition: drawn by processes beside one another where that is worth their start."""

import os
from collections.abc import Generator, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from pagetide.compare.report.condition_table import table_of
from pagetide.compare.report.page import condition_body, curves_body, panels_of
from pagetide.compare.report.tradeoff import Tradeoff, tradeoffs_of
from pagetide.compare.results.conditions import Condition
from pagetide.compare.results.store import Store
from pagetide.workers.pools import ProcessPool

_PANELS_MIN = 30
"""A process starts for so many pictures or more: it takes as long to start as to draw some ten."""


class Wanted(NamedTuple):
    """A condition to be drawn.

    Attributes:
        folder: where its results are.
        condition: which.
        opens: whether the page opens with its curves.
        opens_traded: whether the page opens with its trade-offs, too.
    """

    folder: Path
    condition: Condition
    opens: bool
    opens_traded: bool


class Body(NamedTuple):
    """A condition as HTML, and what the page opens with of it."""

    body: Markup
    curves: Markup
    tradeoffs: list[Tradeoff]


def draw_body(wanted: Wanted) -> Body:
    """One condition, from its results."""
    condition = wanted.condition
    with Store.open(wanted.folder, read_only=True) as store:
        panels, own = panels_of(condition, store), tradeoffs_of(condition)
    curves, first = Markup(), list[Tradeoff]()
    if wanted.opens:
        opening = [panel for panel in panels if panel.configuration in condition.one_a_design]
        curves, panels = curves_body(opening), [panel for panel in panels if panel not in opening]
    if wanted.opens_traded:
        first, own = own, []
    return Body(condition_body(table_of(condition), own, panels, opens=wanted.opens), curves, first)


def draw_bodies(every: Sequence[Wanted]) -> Generator[Body, None, None]:
    """All of these, in their order; who stops before the last closes it, and with it the processes."""
    panels = sum(len(one.condition.configurations) for one in every)
    workers = min(len(os.sched_getaffinity(0)), panels // _PANELS_MIN)
    if workers < 2:
        yield from map(draw_body, every)
        return
    pool: ProcessPool[Wanted, Body] = ProcessPool(workers, draw_body)
    with closing(pool):
        begun = [_begin(pool, one) for one in every]
        for one, future in zip(every, begun, strict=True):
            try:
                yield future.result()
            except BrokenExecutor:  # its process was killed, and with it all that it and the others were to do
                yield draw_body(one)


def _begin(pool: ProcessPool[Wanted, Body], wanted: Wanted) -> Future[Body]:
    """Have one drawn; with a pool that is broken already the future says so."""
    try:
        return pool.submit(wanted)
    except BrokenExecutor as error:
        lost: Future[Body] = Future()
        lost.set_exception(error)
        return lost
