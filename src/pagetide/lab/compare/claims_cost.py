"""Claims about what returning memory costs: the lock, the order, cooling, waking, and which guest it is for."""

from pagetide.lab.compare.claims import Claim
from pagetide.lab.compare.evidence import (
    Case,
    Evidence,
    at_most,
    cpu_of,
    kept_bytes,
    less,
    listed,
    seconds,
    size,
    verdict_of,
)
from pagetide.lab.compare.verdicts import Verdict

ORDERS = (0, 1, 2, 3, 4, 6, 8, 9)
"""The reporting orders that are compared."""

_LOCK_SHARE = 0.05
_COOL_S = 2.0
_REPORTING = ("scan", "notify", "cursor")
SETUPS = ("burst", "web", "database", "churn", "small")
"""The workloads of the thread's five set-ups."""

_SETUP_DESIGNS = ("notify", "notify-array", "hybrid", "scan", "cursor")


def _lock(of: Evidence) -> tuple[Verdict, str]:
    tests, told = [], []
    for case in _REPORTING:
        waited_s = of(case, "zone_lock_wait_s") - of("off", "zone_lock_wait_s")
        more_s = of(case, cpu_of) - of("off", cpu_of)
        limit_s = max(0.0, _LOCK_SHARE * more_s)
        tests.append(None if more_s <= 0 else waited_s > limit_s)
        told.append(
            f"{case} made {seconds(max(0.0, waited_s))} of lock waits and {seconds(max(0.0, more_s))} of CPU time"
        )
    return verdict_of(*tests), (
        f"On churn {listed(told)} more than no reporting, in {of('off', 'duration_s'):.0f} s: the lock was held for "
        f"isolating and putting back {seconds(of('scan', 'zone_lock_hold_s'))} in all by scan, "
        f"{seconds(of('scan', 'zone_lock_hold_s_max'))} at most at once. The claim counts as held if waiting for "
        "the lock "
        f"is more than {_LOCK_SHARE:.0%} of what reporting costs."
    )


def _order(of: Evidence) -> tuple[Verdict, str]:
    low, high = "order 0", f"order {ORDERS[-1]}"
    verdict = verdict_of(
        less(of.spread(low, kept_bytes), of.spread(high, kept_bytes)),
        less(of.spread(high, cpu_of), of.spread(low, cpu_of)),
    )
    told = [
        f"{order}: {size(of(f'order {order}', kept_bytes))}, {seconds(of(f'order {order}', cpu_of))}"
        for order in ORDERS
    ]
    ratio = of(high, kept_bytes) / max(1.0, of(low, kept_bytes))
    return verdict, (
        f"Order 0 left {ratio:.2g} times less with the host beyond what the database used than order {ORDERS[-1]}, for "
        f"{of(low, cpu_of) / of(high, cpu_of):.2g} times the CPU time. Order by order, what was kept and what it took: "
        f"{'; '.join(told)}."
    )


def _setups(of: Evidence) -> tuple[Verdict, str]:
    best = {}
    for workload in SETUPS:
        sound = [
            design
            for design in _SETUP_DESIGNS
            if at_most(of.spread(f"{workload} {design}", "false_ooms"), 0)
            and at_most(of.spread(f"{workload} {design}", "dropped_hints"), 0)
        ]
        if sound:
            best[workload] = min(sound, key=lambda design: of(f"{workload} {design}", kept_bytes))
    gains = {
        workload: 100
        * (of(f"{workload} off", "mean_resident_bytes") - of(f"{workload} {design}", "mean_resident_bytes"))
        / max(1.0, of(f"{workload} off", "mean_resident_bytes"))
        for workload, design in best.items()
    }
    differ = len(best) == len(SETUPS) and max(gains.values()) > 4 * max(1.0, min(gains.values()))
    told = [f"{workload} {gain:.2g} % ({best[workload]})" for workload, gain in gains.items()]
    return verdict_of(differ), (
        "By the design that kept least and lost no hint, the host held less than without reporting by: "
        f"{', '.join(told)}. It counts as held if one guest gains more than four times as much as another."
    )


def _cooling(of: Evidence) -> tuple[Verdict, str]:
    verdict = verdict_of(less(of.spread("cool", "refaulted_bytes"), of.spread("warm", "refaulted_bytes")))
    return verdict, (
        f"Cooling for {seconds(of.config('cool').cool_s)} on churn took refaults from "
        f"{size(of('warm', 'refaulted_bytes'))} to {size(of('cool', 'refaulted_bytes'))} and CPU time from "
        f"{seconds(of('warm', cpu_of))} to {seconds(of('cool', cpu_of))}; the host kept "
        f"{size(of('cool', kept_bytes))} beyond "
        f"what the guest used instead of {size(of('warm', kept_bytes))}."
    )


def _waking(of: Evidence) -> tuple[Verdict, str]:
    verdict = verdict_of(
        less(of.spread("threshold", "reports"), of.spread("timer", "reports")),
        less(of.spread("threshold", cpu_of), of.spread("timer", cpu_of)),
    )
    told = [
        f"{case}: {of(case, 'reports'):.0f} reports, {seconds(of(case, cpu_of))} of CPU time, "
        f"{size(of(case, kept_bytes))} kept"
        for case in of.cases
    ]
    return verdict, f"On a web server, by what woke the worker: {'; '.join(told)}."


CLAIMS = [
    Claim(
        "S6", "Duyck, 2 April 2019", "Isolating and returning under the zone lock is what hinting costs the guest.",
        {"off": Case("off", "churn"), **{name: Case(name, "churn") for name in _REPORTING}}, _lock,
    ),
    Claim(
        "S8", "Hildenbrand, 2 April 2019",
        "Reporting large blocks only is cheap, and leaves fragmented memory with the host.",
        {f"order {order}": Case("scan", "database", settings={"order": order}) for order in ORDERS}, _order,
    ),
    Claim(
        "S13", "Hildenbrand, 2 April 2019", "Hinting does not have to fit every set-up: what it gains differs widely.",
        {f"{workload} {design}": Case(design, workload) for workload in SETUPS for design in ("off", *_SETUP_DESIGNS)},
        _setups,
    ),
    Claim(
        "S16", "Duyck, 2019", "There is no hurry: memory that cools before it is reported costs fewer page faults.",
        {"warm": Case("scan", "churn"), "cool": Case("scan", "churn", settings={"cool": _COOL_S})}, _cooling,
    ),
    Claim(
        "S17", "the thread's proposals", "The worker is better woken by enough unreported blocks than by the clock.",
        {name: Case("scan", "web", settings={"wake": name}) for name in ("merge", "threshold", "timer")}, _waking,
    ),
]  # fmt: skip
"""The claims."""
