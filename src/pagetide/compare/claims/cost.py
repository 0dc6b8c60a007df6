"""Claims about what returning memory costs: the lock, the order, cooling, waking, and which guest it is for."""

from pagetide.compare.claims import bars as made
from pagetide.compare.claims.bars import Bar, Bars
from pagetide.compare.claims.claim import Claim
from pagetide.compare.claims.evidence import (
    Case,
    Evidence,
    NotMeasuredError,
    at_least,
    at_most,
    less_than,
    more_than,
)
from pagetide.compare.claims.verdicts import Judgement
from pagetide.compare.claims.words import KEPT, listed, seconds, size
from pagetide.compare.grid.setups import GAIN_MIN, SETUPS
from pagetide.compare.results.measures import cpu_s, kept_bytes
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import Spread, spread_of

ORDERS = (0, 1, 2, 3, 4, 6, 8, 9)
"""The reporting orders that are compared."""

_SETUP_DESIGNS = ("notify", "notify-array", "hybrid", "scan", "cursor", "shared")
_MANY_VCPUS = {"ram": "512MiB", "order": 0, "duration": 2.0, "rate": 200000.0, "vcpus": 8}
_LOCKING = ("sync", "notify", "scan", "cursor")
_LOCK_SHARE = 0.01
_GAIN_FACTOR = 10
_COOL_S = 2.0
_HOW_SHARE, _WHEN_SHARE = 2 / 3, 1 / 3
_LATE_S = 4.0
_IDLE_BURST = {"ram": "512MiB", "bursts": 1, "rest": 30.0}
_WAKES = ("merge", "threshold", "timer")


def _lock(of: Evidence) -> Judgement:
    vcpus = of.config("off").vcpus

    off = of.spread("off", "zone_lock_wait_s")
    time_s = vcpus * of("off", "duration_s")

    def added(case: str) -> Spread:
        """By how much its waits exceed those without reporting, of the vCPUs' time."""
        one = of.spread(case, "zone_lock_wait_s")
        median_s, low_s, high_s = one.median - off.median, one.low - off.high, one.high - off.low
        return Spread(median_s / time_s, low_s / time_s, high_s / time_s, one.runs)

    shares = {case: added(case) for case in _LOCKING}
    lasting = [of.bar(case, one, made.at_least(one, _LOCK_SHARE, "share")) for case, one in shares.items()]
    bars = (
        Bars("waits for the zone lock that it adds, of the vCPUs' time", "share", tuple(lasting), one_is_enough=True),
    )
    told = [
        f"{case} {seconds(of(case, 'zone_lock_wait_s'))} (held by reporting for "
        f"{seconds(of(case, 'zone_lock_hold_s'))}, at most {seconds(of(case, 'zone_lock_hold_s_max'))} at once)"
        for case in _LOCKING
    ]
    sentence = (
        f"{vcpus} vCPUs that allocate and free {of.config('off').rate_per_s:g} blocks a second waited for the zone "
        f"lock for {seconds(of('off', 'zone_lock_wait_s'))} in all without reporting; with single pages reported, by "
        f"the vCPUs themselves with sync and by one worker with the others, {listed(told)}. It counts as held if a "
        f"design adds waits of {_LOCK_SHARE:.0%} of the vCPUs' time; what passing a contended lock between processors "
        "costs is not part of it."
    )
    return Judgement(sentence, bars)


def _order(of: Evidence) -> Judgement:
    low, high = "order 0", f"order {ORDERS[-1]}"
    every = {f"order {order}": None for order in ORDERS}
    bars = (
        of.bars(KEPT, "bytes", kept_bytes, {**every, low: less_than(high)}),
        of.bars("CPU time of guest and host", "seconds", cpu_s, {**every, high: less_than(low)}),
    )
    told = [
        f"{order}: {size(of(f'order {order}', kept_bytes))}, {seconds(of(f'order {order}', cpu_s))}" for order in ORDERS
    ]
    sentence = (
        f"What was kept beyond what the database used, and the CPU time it took, order by order: {'; '.join(told)}. So "
        f"order 0 kept {of(high, kept_bytes) / max(1.0, of(low, kept_bytes)):.2g} times less than order {ORDERS[-1]}, "
        f"for {of(low, cpu_s) / of(high, cpu_s):.2g} times the CPU time; HyperAlloc's table (EuroSys 2025) has the "
        "same shape, with 6.3 instead of 12.7 GiB resident for 8.5 times the system CPU time."
    )
    return Judgement(sentence, bars)


def _timing(of: Evidence) -> Judgement:
    without = of.by_seed("off", cpu_s)

    def added_s(run: Run) -> float | None:
        """Beyond that without reporting, on the same work."""
        spent_s, off_s = cpu_s(run), without.get(run.cell.config.seed)
        return None if spent_s is None or off_s is None else spent_s - off_s

    asked = {
        "order 9": less_than("order 0"),
        "order 0": None,
        "batches": more_than("order 0", _HOW_SHARE),
        "later": less_than("order 0", _WHEN_SHARE),
    }
    kept = {"off": None, "order 9": None, "later": less_than("order 9")}  # who hardly reports is cheap, too
    bars = (
        of.bars("CPU time beyond that without reporting", "seconds", added_s, asked),
        of.bars(KEPT, "bytes", kept_bytes, kept),
    )
    told = [
        f"{how} {seconds(of(case, added_s))} ({size(of(case, 'refaulted_bytes'))} refaulted, "
        f"{size(of(case, kept_bytes))} kept)"
        for case, how in (
            ("order 9", f"order {ORDERS[-1]}"),
            ("order 0", "order 0"),
            ("batches", f"order 0 in reports of {of.config('batches').capacity} blocks"),
            ("later", f"order 0 by pool, but for what will be taken within {seconds(of.config('later').keep_s)}"),
        )
    ]
    sentence = (
        f"CPU time beyond that without reporting, on the database: {', '.join(told)}; without reporting "
        f"{size(of('off', kept_bytes))} were kept. It counts as held if order 0 is dearer than order {ORDERS[-1]}, "
        f"larger reports leave more than {_HOW_SHARE:.0%} of what it adds, and pool, which waits for what pays, adds "
        f"less than {_WHEN_SHARE:.0%} of it and yet keeps less than order {ORDERS[-1]}. This database soon takes again "
        "all that it frees; what is to be had where some of it stays free is in docs/prize.md."
    )
    return Judgement(sentence, bars)


def _setups(of: Evidence) -> Judgement:
    best = {}
    for workload in SETUPS:
        sound = [
            design
            for design in _SETUP_DESIGNS
            if all(of.spread(f"{workload} {design}", figure).high == 0 for figure in ("false_ooms", "dropped_hints"))
        ]
        if sound:
            best[workload] = min(sound, key=lambda design: of(f"{workload} {design}", kept_bytes))
    gains = {workload: _gain(of, f"{workload} {design}", f"{workload} off") for workload, design in best.items()}
    told = [f"{workload} {100 * gain.median:.2g} % ({best[workload]})" for workload, gain in gains.items()]
    missing = [workload for workload in SETUPS if workload not in best]
    asked = {}
    if not missing:
        least, *_, most = sorted(gains, key=lambda workload: gains[workload].median)
        asked[least] = made.at_most(gains[least], GAIN_MIN, "share")
        asked[most] = made.at_least(gains[most], _GAIN_FACTOR * GAIN_MIN, "share")
    gained = (Bar(f"{one}, {best[one]}", best[one], gain, asked.get(one)) for one, gain in gains.items())
    bars = (Bars("by how much less the host held than without reporting", "share", tuple(gained)),)
    sentence = (
        "By the design that kept least of those that made no allocation fail falsely and lost no hint, the host held "
        f"less than without reporting by: {', '.join(told)}{'; there was no such design on ' if missing else ''}"
        f"{listed(missing)}. It counts as held if one of them gains less than {GAIN_MIN:.0%}, which is not worth it, "
        f"and another more than {_GAIN_FACTOR * GAIN_MIN:.0%}."
    )
    return Judgement(sentence, bars)


def _gain(of: Evidence, case: str, off: str) -> Spread:
    """How much less the host held than without reporting, as a share, seed by seed."""
    held, without = of.by_seed(case, "mean_resident_bytes"), of.by_seed(off, "mean_resident_bytes")
    found = spread_of([1 - held[seed] / max(1.0, without[seed]) for seed in held.keys() & without.keys()])
    if found is None:
        raise NotMeasuredError("the same seeds with and without reporting")
    return found


def _cooling(of: Evidence) -> Judgement:
    asked = {"warm": None, "cool": less_than("warm"), "late": None}
    bars = (of.bars("touched again after it had been returned", "bytes", "refaulted_bytes", asked),)
    told = [
        f"{how}: {size(of(case, 'refaulted_bytes'))} refaulted, {seconds(of(case, cpu_s))} of CPU time, "
        f"{size(of(case, kept_bytes))} kept beyond what the guest used"
        for case, how in (
            ("warm", "reported after 2 s, whatever its age"),
            ("cool", f"after it had been free for {seconds(of.config('cool').cool_s)}"),
            ("late", f"whatever its age, but only every {seconds(of.config('late').delay_s or 0.0)}"),
        )
    ]
    return Judgement(f"On churn, {'; '.join(told)}.", bars)


def _waking(of: Evidence) -> Judgement:
    asked = {case: {"threshold": at_most(0), "timer": at_least(1)}.get(case.rpartition(" ")[2]) for case in of.cases}
    bars = (of.bars("passes that found nothing to report", "count", "idle_passes", asked),)
    told = [
        f"on {case} {of(case, 'idle_passes'):.0f} of {of(case, 'passes'):.0f} ({size(of(case, kept_bytes))} kept)"
        for case in of.cases
    ]
    sentence = f"Passes that found nothing to report, by what woke the worker: {'; '.join(told)}."
    return Judgement(sentence, bars)


CLAIMS = [
    Claim(
        "S6", "Duyck, 2 April 2019",
        "Isolating and returning pages under the zone lock, by several threads, does not practically scale.",
        {name: Case(name, "churn", settings=_MANY_VCPUS if name in ("off", "sync") else {**_MANY_VCPUS, "delay": 0.05})
         for name in ("off", *_LOCKING)},
        _lock,
    ),
    Claim(
        "S8", "Hildenbrand, 2 April 2019",
        "Reporting large blocks only is cheap, and leaves fragmented memory with the host.",
        {f"order {order}": Case("scan", "database", settings={"order": order}) for order in ORDERS},
        _order,
    ),
    Claim(
        "timing", "this project, on page traces of a real kernel",
        "Small orders are dear because of when they report, not how.",
        {
            "off": Case("off", "database"),
            "order 9": Case("scan", "database", settings={"order": ORDERS[-1]}),
            "order 0": Case("scan", "database", settings={"order": 0}),
            "batches": Case("scan", "database", settings={"order": 0, "capacity": 1024}),
            "later": Case("pool", "database", settings={"order": 0}),
        },
        _timing,
    ),
    Claim(
        "S13", "Hildenbrand, 2 April 2019",
        "Hinting does not have to fit every set-up: in some it makes sense to disable it.",
        {f"{workload} {design}": Case(design, workload) for workload in SETUPS for design in ("off", *_SETUP_DESIGNS)},
        _setups,
    ),
    Claim(
        "S16", "Duyck, in the thread",
        "There is no hurry: memory that cools before it is reported costs fewer page faults.",
        {
            "warm": Case("scan", "churn"), "cool": Case("scan", "churn", settings={"cool": _COOL_S}),
            "late": Case("scan", "churn", settings={"delay": _LATE_S}),
        },
        _cooling,
    ),
    Claim(
        "S17", "the thread's proposals",
        "By a mark of how much is unreported the worker never wakes with nothing to do; by the clock it does.",
        {
            f"{workload}, {wake}": Case("scan", workload, settings={**settings, "wake": wake})
            for workload, settings in (("burst", _IDLE_BURST), ("web", {})) for wake in _WAKES
        },
        _waking,
    ),
]  # fmt: skip
"""The claims."""
