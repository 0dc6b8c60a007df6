"""How fast the hosts' memory follows from a fleet's use: the model beside the plainest numpy that has a result like it.

Numpy's adds up what returns nothing, the most used so far by VM and step, without anybody ever being off: one running
maximum, and sums and maxima over it. By turns on the same made-up usage, on one core; the least of some repeats.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.rows import Row
from pagetide.fleet.guests.held import held
from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.guests.response import LEVELS, Response
from pagetide.fleet.hosts.cluster import Question, cluster
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.hosts.placing.registry import Plan
from pagetide.fleet.usage.canonical import Usage
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.units import GIB

_VMS, _DAYS = 200, 30
_REPEATS = 7
_QUESTION = Question((Plan("quantile", 0.95),), Host(256 * GIB, 13 * GIB, 32 * GIB), "swap", draws=0, seed=1)
_RESPONSE = Response("any", 60.0, np.linspace(0.2, 0.0, LEVELS + 1), fades=0.001)


def _plainly(usage: Usage) -> None:
    most = np.maximum.accumulate(np.where(usage.valid, usage.used_bytes, np.float32(0)), axis=1)
    most.sum(0, dtype=np.float64)
    most.mean(1, dtype=np.float64)
    most.max(1)
    usage.used_bytes.mean(1, dtype=np.float64)
    usage.capacity_bytes.mean(1, dtype=np.float64)


def _spent_s(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def run() -> Iterator[Row]:
    """Measure, after a first pass that compiles."""
    usage, _ = MadeUp(_VMS, _DAYS, seed=1).read(0, _VMS)
    mixture = Mixture.of(_RESPONSE)
    held(usage, _RESPONSE)
    cluster(usage, mixture, _QUESTION, 0)
    placed_s = min(_spent_s(lambda: cluster(usage, mixture, _QUESTION, 0)) for _ in range(_REPEATS))
    turns = [(_spent_s(lambda: held(usage, _RESPONSE)), _spent_s(lambda: _plainly(usage))) for _ in range(_REPEATS)]
    model_s, plain_s = map(min, zip(*turns, strict=True))
    size = f"{_VMS} VMs over {_DAYS} days, one setting, one core"
    yield Row("fleet, VM-days a second", _VMS * _DAYS / model_s, "", at_least=100_000, note=size)
    yield Row("fleet, of numpy's speed without a model", plain_s / model_s, "", at_least=0.5, note=size)
    yield Row("fleet, VM-days a second, placed on hosts", _VMS * _DAYS / placed_s, "", at_least=100_000, note=size)
