"""Records that wait for one another: kept together, and told once they are."""

from pathlib import Path

import pytest

from pagetide.compare.results.arrivals import Arrivals
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import Record
from pagetide.compare.results.store import Store
from pagetide.machine.config import RunConfig
from pagetide.workers.database import ResultsError
from tests.compare.results.test_compare_store import record_of

CELLS = [Cell(RunConfig(seed=seed), "simulated", 1) for seed in range(1, 5)]


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _stored(store: Store) -> list[str]:
    return [run.key for run in store.runs()]


def _take_and_break(arrivals: Arrivals) -> None:
    arrivals.take(record_of(CELLS[0]))
    raise RuntimeError


def test_records_are_told_once_they_are_kept(tmp_path: Path) -> None:
    """Nothing is told of what a kill would lose; half a second later all that arrived is there, in its order."""
    clock, told = _Clock(), list[str]()
    with Store.create(tmp_path) as store:
        arrivals = Arrivals(store, lambda record: told.append(record.cell.key), clock)
        for cell in CELLS[:3]:
            arrivals.take(record_of(cell))
        arrivals.keep_old()
        assert told == _stored(store) == []
        clock.now_s += 0.5
        arrivals.keep_old()
        assert told == _stored(store) == [cell.key for cell in CELLS[:3]]
        assert all(store.samples(cell.key)["t_s"].size for cell in CELLS[:3])


def test_whatever_ends_it_nothing_that_arrived_is_left(tmp_path: Path) -> None:
    """What waits is kept as the statement is left, in an orderly way or not."""
    told: list[Record] = []
    with Store.create(tmp_path) as store:
        arrivals = Arrivals(store, told.append, _Clock())
        with pytest.raises(RuntimeError), arrivals:
            _take_and_break(arrivals)
        assert _stored(store) == [record.cell.key for record in told] == [CELLS[0].key]


def test_what_cannot_be_kept_is_not_told(tmp_path: Path) -> None:
    """A run that is there already is an error; what arrived with it is kept, and told."""
    clock, told = _Clock(), list[Record]()
    with Store.create(tmp_path) as store:
        store.add(record_of(CELLS[1]))
        arrivals = Arrivals(store, told.append, clock)
        for cell in CELLS[0], CELLS[1]:
            arrivals.take(record_of(cell))
        clock.now_s += 1.0
        with pytest.raises(ResultsError):
            arrivals.take(record_of(CELLS[2]))
        assert [record.cell.key for record in told] == [CELLS[0].key, CELLS[2].key]
        assert _stored(store) == [CELLS[1].key, CELLS[0].key, CELLS[2].key]
