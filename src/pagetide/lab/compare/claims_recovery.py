"""Claims about trouble: a slow or stopped host, a full ring, a held lock, too little memory (S9 to S12, S14, S15)."""

from pagetide.lab.compare.claims import Claim
from pagetide.lab.compare.claims_returning import RETURNED_SHARE, mail_case
from pagetide.lab.compare.evidence import (
    Case,
    Evidence,
    at_least,
    at_most,
    kept_bytes,
    less,
    listed,
    seconds,
    size,
    unreturned_share,
    verdict_of,
)
from pagetide.lab.compare.verdicts import Verdict

_LEFT_SHARE = 1 - RETURNED_SHARE
_HOURS_S = 2 * 3600.0
_BUSY_RAM_SHARE = 0.05
_OOM = ("none", "wait", "cap", "swap")


def _ring_room(of: Evidence) -> tuple[Verdict, str]:
    full_s = of.config("sync").parsed_faults[0].for_s
    verdict = verdict_of(
        at_least(of.spread("sync", "vcpu_wait_host_s"), 0.5 * full_s),
        at_most(of.spread("scan", "vcpu_wait_host_s"), 0.0),
        at_most(of.spread("scan", unreturned_share), _LEFT_SHARE),
    )
    return verdict, (
        f"With no room in the queue for {seconds(full_s)}, vCPUs that report themselves waited "
        f"{seconds(of('sync', 'vcpu_wait_host_s'))} in all; with a worker they waited "
        f"{seconds(of('scan', 'vcpu_wait_host_s'))}, and {size(of('scan', 'unreturned_bytes'))} was left at the "
        "end. With "
        f"arrays of hints nobody waited either, and {size(of('array', 'unreturned_bytes'))} was left."
    )


def _mm_lock(of: Evidence) -> tuple[Verdict, str]:
    free, held = of.spread("free", "return_lag_s_p50"), of.spread("held", "return_lag_s_p50")
    verdict = verdict_of(less(free, held, 0.5))
    return verdict, (
        "With a thread that holds the host's mm lock for writing, the median byte was back after "
        f"{seconds(held.median)}, "
        f"without it after {seconds(free.median)}; {size(of('held', 'unreturned_bytes'))} was left at the end. "
        "Discarding "
        "here is fallocate(2) on the guest's memory file."
    )


def _bounded(of: Evidence) -> tuple[Verdict, str]:
    few, many = of.spread("few", kept_bytes), of.spread("many", kept_bytes)
    verdict = verdict_of(at_most(few, 1.05 * many.high), at_most(of.spread("few", "isolated_blocks_max"), 32))
    return verdict, (
        f"With at most {of('few', 'isolated_blocks_max'):.0f} blocks out at once the host kept {size(few.median)} "
        "beyond what "
        f"the guest used, with up to {of('many', 'isolated_blocks_max'):.0f} blocks {size(many.median)}; the "
        "longest hold of "
        f"the zone lock was {seconds(of('few', 'zone_lock_hold_s_max'))} against "
        f"{seconds(of('many', 'zone_lock_hold_s_max'))}."
    )


def _recovery(of: Evidence) -> tuple[Verdict, str]:
    tests: list[bool | None] = []
    for case in of.cases:
        tests += [
            at_most(of.spread(case, unreturned_share), _LEFT_SHARE),
            at_most(of.spread(case, "vcpu_wait_host_s_max"), 0.01),
        ]
    told = [f"{case} left {size(of(case, 'unreturned_bytes'))}" for case in of.cases]
    waited_s = max(of(case, "vcpu_wait_host_s_max") for case in of.cases)
    return verdict_of(*tests), (
        f"After the host had stood still while {size(of('scan', 'peak_resident_bytes'))} was freed, {listed(told)} "
        "at the "
        f"end; the longest that a vCPU waited was {seconds(waited_s)}."
    )


def _switched(of: Evidence) -> tuple[Verdict, str]:
    tests = [at_most(of.spread(case, unreturned_share), _LEFT_SHARE) for case in of.cases]
    told = [f"{case} left {size(of(case, 'unreturned_bytes'))}" for case in of.cases]
    off_s = of.config("scan").parsed_faults[0].for_s
    return verdict_of(*tests), (
        f"Reporting was off for {seconds(off_s)} while {size(of('scan', 'peak_resident_bytes'))} was freed, and "
        "then on "
        f"again: {listed(told)} at the end."
    )


def _false_ooms(of: Evidence) -> tuple[Verdict, str]:
    verdict = verdict_of(
        at_least(of.spread("none", "false_ooms"), 1), *(at_most(of.spread(case, "false_ooms"), 0) for case in _OOM[1:])
    )
    answers = [
        f"{case} had {of(case, 'false_ooms'):.0f} (vCPUs waited {seconds(of(case, 'vcpu_wait_host_s'))}, "
        f"{size(of(case, 'refaulted_bytes'))} refaulted)"
        for case in _OOM[1:]
    ]
    return verdict, (
        f"In a guest of {size(of.config('none').ram_bytes)} that runs close to its limit, "
        f"{of('none', 'false_ooms'):.0f} "
        f"allocations failed falsely when nothing was done about it; {listed(answers)}."
    )


def _hours(of: Evidence) -> tuple[Verdict, str]:
    rest_s = of.config("array").rest_s or 0.0
    verdict = verdict_of(
        at_least(of.spread("array", unreturned_share), _LEFT_SHARE),
        at_most(of.spread("scan", unreturned_share), _LEFT_SHARE),
    )
    return verdict, (
        f"{rest_s / 3600:.2g} hours after the burst the idle guest whose hints were lost still had "
        f"{size(of('array', 'unreturned_bytes'))} of {size(of('array', 'peak_resident_bytes'))} assigned to it; "
        "with a scan "
        f"it was {size(of('scan', 'unreturned_bytes'))}."
    )


def _busy(of: Evidence) -> tuple[Verdict, str]:
    ram_bytes = of.config("busy behind").ram_bytes
    more = of("busy behind", kept_bytes) - of("busy", kept_bytes)
    more_idle = of("burst behind", kept_bytes) - of("burst", kept_bytes)
    worst = of.spread("busy behind", kept_bytes).high - of.spread("busy", kept_bytes).low
    least = of.spread("busy behind", kept_bytes).low - of.spread("busy", kept_bytes).high
    limit = _BUSY_RAM_SHARE * ram_bytes
    harmless = True if worst <= limit else False if least > limit else None
    factor = of.config("busy behind").parsed_faults[0].factor
    return verdict_of(harmless), (
        f"With a host {factor:g} times slower the host kept {size(max(more, 0))} more for a guest that churns, and "
        f"{size(max(more_idle, 0))} more for one that frees a burst and then does nothing: falling behind costs the "
        "first "
        f"{100 * max(more, 0) / ram_bytes:.2g} % of its memory, the second {100 * max(more_idle, 0) / ram_bytes:.2g} %."
    )


_OFF_TIME = "off@0.9:6"

CLAIMS = [
    Claim(
        "S9", "Duyck, 2 April 2019",
        "When the virtqueue has no room, vCPUs stall; with a worker that waits, nothing is lost.",
        {
            "sync": Case("sync", "burst", "ring-full@0.9:6"),
            "scan": Case("scan", "burst", "ring-full@0.9:6"),
            "array": Case("notify-array", "burst", "ring-full@0.9:6"),
        },
        _ring_room,
    ),
    Claim(
        "S10", "Duyck, 2 April 2019",
        "Whoever holds the host's mm lock for writing blocks all hints until it is released.",
        {
            "free": Case("scan", "burst", settings={"ram": "1GiB", "bursts": 1, "delay": 0.1}),
            "held": Case("scan", "burst", "mmlock", settings={"ram": "1GiB", "bursts": 1, "delay": 0.1}),
        },
        _mm_lock,
    ),
    Claim(
        "S11", "Duyck, 2 April 2019",
        "A small, bounded number of blocks in flight is enough: more buffers are not the solution.",
        {"few": Case("scan", "burst"), "many": Case("scan", "burst", settings={"capacity": 512})}, _bounded,
    ),
    Claim(
        "S12", "Duyck, 2 April 2019",
        "A design can recover gracefully from a host that stood still, with no stalls in the guest.",
        {name: Case(name, "burst", "stop") for name in ("scan", "cursor", "notify", "hybrid")}, _recovery,
    ),
    Claim(
        "S14", "Hildenbrand, 2 April 2019",
        "Hinting can be switched off where it makes no sense, and on again, with no loss.",
        {name: Case(name, "burst", _OFF_TIME) for name in ("scan", "cursor", "notify", "hybrid")}, _switched,
    ),
    Claim(
        "S15", "the thread's subject",
        "Isolated pages make allocations fail falsely; waiting, a cap and a hinting buffer each prevent it.",
        {name: Case("scan", "small", oom=name) for name in _OOM}, _false_ooms,
    ),
    Claim(
        "hours", "Duyck, 2 April 2019",
        "If the hints of one big free are lost, an idle guest keeps that memory for hours.",
        {"array": mail_case("notify-array", rest=_HOURS_S), "scan": mail_case("scan", rest=_HOURS_S)}, _hours,
    ),
    Claim(
        "busy", "Hildenbrand, 2 April 2019",
        "Falling behind is harmless when the guest is busy: it will use the pages again soon.",
        {
            "busy": Case("scan", "churn"), "busy behind": Case("scan", "churn", "slow"),
            "burst": Case("scan", "burst"), "burst behind": Case("scan", "burst", "slow"),
        },
        _busy,
    ),
]  # fmt: skip
"""The claims."""
