"""One shift: everything is started, goes on until its time is over, and is judged."""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from pagetide.units import format_size
from soak.daemons import ReadDaemon, ReadLog, Sentences
from soak.operators.alarms import Judged, fired, judge
from soak.operators.books import Books
from soak.operators.growth import Growth, growth, in_bytes
from soak.operators.resident import Resident
from soak.operators.strangers import Stranger
from soak.operators.tenants import Boot, Tenant, qemu_boot, uml_boot
from soak.operators.timetable import FAULTS, Fault, Timetable, scaled
from soak.operators.yard import Actor, Injected, Yard
from soak.part import BrokenError, CutShortError
from tests.operate.metrics.prometheus import RULES, Prometheus
from tests.operate.metrics.test_scrapes import free_port

_INTERVAL_S = 5.0
_CLOSING_S = 20.0
"""Of the time, for the books."""
_LENGTH_MIN_S = 30.0
_JOIN_MAX_S, _KILLED_MAX_S = 300.0, 10.0
"""For all actors together to come to their ends, and for those that were killed."""
_FIGURES = {
    "daemon, RSS": "process_resident_memory_bytes",
    "daemon, descriptors": "process_open_fds",
    "metrics, RSS": "pagetide_metrics_process_resident_memory_bytes",
    "metrics, descriptors": "pagetide_metrics_process_open_fds",
}
_LIMITS = {"RSS": 2.0 * (1 << 20), "descriptors": 2.0}
"""By how much a figure may have grown at least, in all of the shift; what is only a part of one has no limit."""


class Crew(NamedTuple):
    """Who is there.

    Attributes:
        umls: guests under User-Mode Linux.
        qemus: guests under QEMU.
        faults: which faults are injected.
    """

    umls: int = 17
    qemus: int = 3
    faults: tuple[Fault, ...] = FAULTS


class Found(NamedTuple):
    """What came of a shift.

    Attributes:
        seed: of all that was done.
        minutes: how long it went on.
        scale: minutes of the rules in one.
        done: what was done how often.
        growths: by process and figure.
        judged: each fault, and its alert.
        books: of each guest.
        wrong: what was not as it must be, as sentences.
    """

    seed: int
    minutes: float
    scale: float
    done: Counter[str]
    growths: dict[str, Growth]
    judged: list[Judged]
    books: list[Books]
    wrong: list[str]


def play(seed: int, until_s: float, crew: Crew) -> Found:
    """Go through a shift that ends at this time of the monotonic clock; the books take some time after that.

    Raises:
        CutShortError: there is too little time.
        BrokenError: the daemon has ended, or an actor has failed.
    """
    length_s = until_s - time.monotonic() - _CLOSING_S
    if length_s < _LENGTH_MIN_S:
        raise CutShortError
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, ExitStack() as resources:
        folder = Path(name)
        (folder / "guests").mkdir()
        log, port = ReadLog(Sentences([]), Counter()), free_port()
        interval_s = 1.0 if length_s < 3600 else _INTERVAL_S
        options = ["--socket-dir", str(folder / "guests"), "--metrics", f"127.0.0.1:{port}"]
        daemon = ReadDaemon(folder, log, *options, "--stats-interval", f"{interval_s:g}")
        resources.callback(daemon.close)
        timetable = Timetable(length_s)
        yard = Yard(folder, daemon.control, timetable, interval_s, done)
        rules = folder / "rules.yml"
        rules.write_text(scaled(RULES.read_text(), timetable.scale))
        prometheus = Prometheus(folder, f"127.0.0.1:{port}", free_port(), rules=rules, interval=f"{interval_s:g}s")
        resources.callback(prometheus.close)
        prometheus.wait_for('up{job="pagetide"}', 1)
        start_s = time.time()
        tenants, strangers = _actors(seed, yard, crew)
        resident = Resident(daemon.process.pid)
        with _acting([*tenants, *strangers], yard):
            _go_on([*tenants, *strangers], timetable, daemon, resident)
        daemon.check()
        growths = _growths(prometheus, resident, start_s, interval_s)
        injected = [one for tenant in tenants for one in tenant.injected] + [each.injected for each in strangers]
        judged, wrong = judge(injected, fired(prometheus, start_s, time.time(), interval_s), timetable)
        books = [tenant.books for tenant in tenants if tenant.books is not None]
        wrong += [sentence for each in books for sentence in each.wrong()]
        wrong += _wrong_totals(prometheus)
    wrong += grown_too_much(growths)
    return Found(seed, (time.time() - start_s) / 60, timetable.scale, done, growths, judged, books, wrong)


def _actors(seed: int, yard: Yard, crew: Crew) -> tuple[list[Tenant], list[Stranger]]:
    """All of them, with the moments at which they have their faults."""
    rng, timetable = Random(seed), yard.timetable
    names = [f"vm{number:02}" for number in range(1, crew.umls + crew.qemus + 1)]
    victims = cycle(names[: crew.umls])
    faults: dict[str, list[Injected]] = {name: [] for name in names}
    strangers = []
    for number in range(timetable.rounds):
        for place, fault in enumerate(crew.faults):
            due_s = timetable.moment_s(rng, fault, number)
            if fault.is_played:
                injected = Injected(fault, f"stranger{number * len(crew.faults) + place:02}", due_s)
                strangers.append(Stranger(injected, yard))
            else:
                injected = Injected(fault, next(victims), due_s)
                faults[injected.guest].append(injected)
    boots: list[tuple[str, Boot]] = [uml_boot()] * crew.umls
    boots += [qemu_boot()] * crew.qemus if crew.qemus else []
    for name in [*names, *(stranger.name for stranger in strangers)]:
        yard.ask("add", name)
    tenants = [
        Tenant(name, yard, boot, f"{seed} {name}", sorted(faults[name], key=lambda one: one.due_s))
        for name, boot in zip(names, boots, strict=True)
    ]
    return tenants, strangers


@contextmanager
def _acting(actors: Sequence[Actor], yard: Yard) -> Iterator[None]:
    """Have them act; in the end they come to theirs.

    Raises:
        BrokenError: one of them has failed.
    """
    for actor in actors:
        actor.start()
    try:
        yield
    finally:
        yard.timetable.over.set()
        failures = _joined(actors)
    failed = [f"{name}: {failure}" for name, failure in failures.items() if failure]
    if failed:
        raise BrokenError("; ".join(failed))


def _joined(actors: Sequence[Actor]) -> dict[str, str | None]:
    """Wait for all, at most until one time, and end what the others have left; what went wrong, by name."""
    end_s = time.monotonic() + _JOIN_MAX_S
    failures = {actor.name: actor.join(max(0.0, end_s - time.monotonic())) for actor in actors}
    for actor in actors:
        actor.kill()
    end_s = time.monotonic() + _KILLED_MAX_S
    for actor in actors:
        actor.join(max(0.0, end_s - time.monotonic()))
    return failures


def _go_on(actors: Sequence[Actor], timetable: Timetable, daemon: ReadDaemon, resident: Resident) -> None:
    """Until the time is over, or somebody has failed."""
    while time.monotonic() < timetable.end_s and not any(actor.failure() for actor in actors):
        daemon.check()
        resident.look(time.time())
        timetable.wait(1.0)


def _growths(prometheus: Prometheus, resident: Resident, start_s: float, interval_s: float) -> dict[str, Growth]:
    """How each figure grew since then."""

    def asked(query: str) -> dict[float, float]:
        span = {"start": f"{start_s}", "end": f"{time.time()}", "step": f"{interval_s}"}
        (found,) = prometheus.ask("query_range", query=query, **span)["result"]
        return {round(float(at) - start_s, 3): float(value) for at, value in found["values"]}

    guests = asked("sum(pagetide_guest_attached)")
    figures = {name: asked(series) for name, series in _FIGURES.items()}
    times_s = {name: sorted(values.keys() & guests.keys()) for name, values in figures.items()}
    growths = {
        name: growth(times, [figures[name][at] for at in times], [guests[at] for at in times])
        for name, times in times_s.items()
    }
    looks_s = np.array(resident.times_s) - start_s
    there = np.interp(looks_s, [*guests.keys()], [*guests.values()])
    return growths | {f"daemon, {kind}": growth(looks_s, sizes, there) for kind, sizes in resident.bytes.items()}


def grown_too_much(growths: Mapping[str, Growth]) -> list[str]:
    """Figures that grew by more than their limit, as sentences."""
    return [
        f"{name} grew by {format_size(each.least) if in_bytes(name) else f'{each.least:.0f}'} at least"
        for name, each in growths.items()
        if each.least > _LIMITS.get(name.rpartition(" ")[2], math.inf)
    ]


def _wrong_totals(prometheus: Prometheus) -> list[str]:
    """Guests of whose reports something became of nothing, of those that are still told: not of who left long ago."""
    now_s = str(time.time())

    def asked(query: str) -> dict[str, int]:
        found = prometheus.ask("query", query=query, time=now_s)["result"]
        return {series["metric"]["guest"]: int(series["value"][1]) for series in found}

    reported, discarded = (asked(f"pagetide_guest_{name}_bytes_total") for name in ("reported", "discarded"))
    skipped = asked("sum by (guest) (pagetide_guest_skipped_bytes_total)")
    return [
        f"{guest}: over all its boots {size - discarded[guest] - skipped[guest]} reported bytes became of nothing"
        for guest, size in reported.items()
        if size != discarded[guest] + skipped[guest]
    ]
