"""Traces replayed by the simulated machine, once for each way to return memory."""

import math
import time
from typing import Any, NamedTuple

from benchmarks.prize.clairvoyant import Bound, bounds
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.observer import Nobody
from pagetide.machine.settings.fits import misfit
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import GIB
from pagetide.workload.stream import Stream

_RAM_BYTES = {"build": 2 * GIB, "machine_60s": 10 * GIB, "files": 6 * GIB}
"""The guests in which the traces were taken; of another trace it is half again its peak, in whole GiB."""

_KEEPS_S = (2.0, 5.0, 10.0, 20.0, 40.0)
_LINUX: dict[str, Any] = {"design": "scan", "pace": "linux", "delay_s": 2.0}


class Policy(NamedTuple):
    """A way to return memory: a design, and what it is called in the picture."""

    label: str
    settings: dict[str, Any]


class Outcome(NamedTuple):
    """What a policy did on a trace.

    Attributes:
        policy: which.
        held_bytes: what the host held on average.
        saved_byte_s: what it held less than with `off`, added up over time.
        cpu_s: CPU time of guest and host beyond that with `off`.
    """

    policy: Policy
    held_bytes: float
    saved_byte_s: float
    cpu_s: float

    @property
    def saved_gib_min(self) -> float:
        """The same in GiB times minutes."""
        return self.saved_byte_s / GIB / 60


class Trace(NamedTuple):
    """What came of one trace.

    Attributes:
        name: the file's.
        off_bytes: what the host held on average with `off`.
        outcomes: by policy label.
        bound: what could be had with the future known.
    """

    name: str
    off_bytes: float
    outcomes: dict[str, Outcome]
    bound: list[Bound]


def linux(order: int) -> str:
    """What Linux's scan of this order is called."""
    return f"scan, order {order}, Linux's pace"


def keeping(keep_s: float) -> str:
    """What `pool` is called with this knob."""
    return f"pool, G = {keep_s:g} s"


def policies() -> list[Policy]:
    """Linux's scan at orders 0 and 9, `pool` with its knob at several places, and every other design at both orders."""
    found = [Policy(linux(order), _LINUX | {"order": order}) for order in (0, 9)]
    found += [
        Policy(keeping(keep_s), {"design": "pool", "order": 0, "capacity": 1024, "keep_s": keep_s})
        for keep_s in _KEEPS_S
    ]
    for design in DESIGNS:
        orders = (9,) if misfit("order", RunConfig(design=design)) or design == "shared" else (0, 9)
        if design not in ("off", "pool"):
            found += [Policy(f"{design}, order {order}", {"design": design, "order": order}) for order in orders]
    return found


def ram_bytes(name: str, stream: Stream) -> int:
    """How much memory the guest has in which a trace is replayed."""
    return _RAM_BYTES.get(name, math.ceil(1.5 * stream.peak_bytes / GIB) * GIB)


def _measure(name: str, stream: Stream, settings: dict[str, Any]) -> tuple[float, float, float]:
    """What the host held on average, CPU seconds of guest and host, and how long it took."""
    config = RunConfig(ram_bytes=ram_bytes(name, stream), vcpus=stream.vcpus, **settings)
    result = SimulatedMachine(config, read_costs(), work=stream).run(Nobody())
    assert result.outcome == "complete", f"{name} with {settings}: {result.outcome}"
    assert result.mean_resident_bytes is not None
    assert result.guest_cpu_s is not None
    assert result.host_cpu_s is not None
    return float(result.mean_resident_bytes), result.guest_cpu_s + result.host_cpu_s, result.duration_s


def operations_per_s(name: str, stream: Stream) -> dict[str, float]:
    """How fast the simulated machine replays a trace, by design, on one core, once everything is compiled."""
    found = {}
    for label in ("off", linux(0), keeping(5)):
        settings = {"design": "off"} if label == "off" else next(p.settings for p in policies() if p.label == label)
        config = RunConfig(ram_bytes=ram_bytes(name, stream), vcpus=stream.vcpus, **settings)
        machine = SimulatedMachine(config, read_costs(), work=stream)
        start_s = time.process_time()
        machine.run(Nobody())
        found[label] = stream.nr_operations / (time.process_time() - start_s)
    return found


class Replays:
    """A trace replayed by one policy after the other, and first without any.

    Attributes:
        off_bytes: what the host held on average with `off`.
        outcomes: by policy label, of those that were asked for.
    """

    def __init__(self, name: str, stream: Stream, **common: Any) -> None:
        """Replay it with `off`; `common` are settings that hold for all policies."""
        self._name, self._stream, self._common = name, stream, common
        self.off_bytes, self._off_cpu_s, self._off_s = _measure(name, stream, common | {"design": "off"})
        self.outcomes: dict[str, Outcome] = {}

    def replay(self, policy: Policy) -> Outcome:
        """Replay it with a policy."""
        held_bytes, cpu_s, took_s = _measure(self._name, self._stream, self._common | policy.settings)
        saved = self.off_bytes * self._off_s - held_bytes * took_s
        outcome = Outcome(policy, held_bytes, saved, cpu_s - self._off_cpu_s)
        self.outcomes[policy.label] = outcome
        return outcome

    def trace(self) -> Trace:
        """What came of it, with the bound."""
        return Trace(self._name, self.off_bytes, self.outcomes, bounds(self._stream, read_costs().backing("memfd")))
