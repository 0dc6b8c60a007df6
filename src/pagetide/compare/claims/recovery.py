"""Claims about trouble: a slow or stopped host, a full ring, a held lock, too little memory (S9 to S12, S14, S15)."""

from pagetide.compare.claims import bars as made
from pagetide.compare.claims.bars import Bars, Bound
from pagetide.compare.claims.claim import Claim
from pagetide.compare.claims.evidence import (
    Case,
    Evidence,
    at_least,
    at_most,
    less_than,
    unreturned_share,
    within,
)
from pagetide.compare.claims.returning import LEFT_SHARE, mail_case
from pagetide.compare.claims.verdicts import Judgement
from pagetide.compare.claims.words import KEPT, LEFT, WAITED_AT_ONCE, listed, seconds, size
from pagetide.compare.results.measures import kept_bytes
from pagetide.compare.results.spread import Spread
from pagetide.machine.balloon_policy import reserve_pages
from pagetide.machine.config import RunConfig
from pagetide.units import PAGE_SIZE_BYTES

_HOURS_S = 2 * 3600.0
_STALL_SHARE = 0.01
_BUSY_RAM_SHARE = 0.05
_SOMEWHAT_MORE = 1.05
_FAR_BEHIND = "slow@0:60:200"
_OOM = ("none", "wait", "cap", "swap")
_SMALL_BURST = {"ram": "512MiB", "bursts": 1, "rest": 6.0}
_RECOVERING = ("scan", "cursor", "notify", "hybrid", "shared", "balloon")
_LIVE_BURST = {"ram": "1GiB", "bursts": 1, "delay": 0.1, "rest": 3.0}


def _ring_room(of: Evidence) -> Judgement:
    full_s = of.config("sync").parsed_faults[0].for_s
    asked = {"sync": at_least(_STALL_SHARE * full_s), "scan": at_most(0.0), "array": None}
    bars = (
        of.bars("how long vCPUs waited for the host in all", "seconds", "vcpu_wait_host_s", asked),
        of.bars(LEFT, "share", unreturned_share, {"sync": None, "scan": at_most(LEFT_SHARE), "array": None}),
    )
    sentence = (
        f"The queue had no room for {seconds(full_s)} while {size(of('scan', 'peak_resident_bytes'))} was freed: vCPUs "
        f"that report themselves waited {seconds(of('sync', 'vcpu_wait_host_s'))} in all and left "
        f"{size(of('sync', 'unreturned_bytes'))}, which filled no batch; with a worker that scans they waited "
        f"{seconds(of('scan', 'vcpu_wait_host_s'))}, and {size(of('scan', 'unreturned_bytes'))} was left; with arrays "
        f"of {of.config('array').hints_max} hints {seconds(of('array', 'vcpu_wait_host_s'))} and "
        f"{size(of('array', 'unreturned_bytes'))}."
    )
    return Judgement(sentence, bars)


def _mm_lock(of: Evidence) -> Judgement:
    free, held = of.spread("free", "return_lag_s_p50"), of.spread("held", "return_lag_s_p50")
    asked = {"free": less_than("held", 0.5), "held": None}
    bars = (of.bars("how long the median byte stayed once it was free", "seconds", "return_lag_s_p50", asked),)
    sentence = (
        "With a thread that holds the host's mm lock for writing as often as it can, and the guest's memory in two "
        f"mappings, the median byte was back after {seconds(held.median)}, without it after {seconds(free.median)}; "
        f"{size(of('held', 'unreturned_bytes'))} and {size(of('free', 'unreturned_bytes'))} was left at the end. Our "
        "host discards by fallocate(2) on the guest's memory file, which does not take that lock. It counts as held "
        "if the lock makes it take twice as long."
    )
    return Judgement(sentence, bars)


def _bounded(of: Evidence) -> Judgement:
    few, many = of.spread("few", kept_bytes), of.spread("many", kept_bytes)
    capacity = of.config("few").report_blocks_max
    asked = {"few": at_most(capacity), "many": None}
    bars = (
        of.bars(KEPT, "bytes", kept_bytes, {"few": within("many", _SOMEWHAT_MORE), "many": None}),
        of.bars("blocks out at once, at most", "count", "isolated_blocks_max", asked),
    )
    sentence = (
        "With a host that stood still for a while, and at most "
        f"{of('few', 'isolated_blocks_max'):.0f} blocks out at once, the host kept {size(few.median)} beyond what the "
        f"guest used, and with up to {of('many', 'isolated_blocks_max'):.0f} it was {size(many.median)}; a hundredth "
        f"of the bytes waited longer than {seconds(of('few', 'return_lag_s_p99'))} against "
        f"{seconds(of('many', 'return_lag_s_p99'))}. What more in flight does is to hold the zone lock longer: "
        f"{seconds(of('few', 'zone_lock_hold_s_max'))} against {seconds(of('many', 'zone_lock_hold_s_max'))} at once."
    )
    return Judgement(sentence, bars)


def _reserve_bytes(config: RunConfig) -> int:
    """What a design lets the guest keep free on purpose: a balloon's host leaves it a reserve, touched or not."""
    return reserve_pages(config.ram_bytes // PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES if config.design == "balloon" else 0


def _returned(of: Evidence) -> Bars:
    """What was left at the end: next to nothing in each case, beside what was meant to be."""

    def asked(case: str) -> Bound:
        allowed_bytes = _reserve_bytes(of.config(case)) + LEFT_SHARE * of(case, "peak_resident_bytes")
        return made.at_most(of.spread(case, "unreturned_bytes"), allowed_bytes, "bytes")

    bars = (of.bar(case, of.spread(case, "unreturned_bytes"), asked(case)) for case in of.cases)
    return Bars("left with the host at the end", "bytes", tuple(bars))


def _left(of: Evidence) -> str:
    """What each case left, and how much of that it was meant to leave."""
    told = []
    for case in of.cases:
        reserve_bytes = _reserve_bytes(of.config(case))
        meant = f" (its host leaves it a reserve of {size(reserve_bytes)})" if reserve_bytes else ""
        told.append(f"{case} left {size(of(case, 'unreturned_bytes'))}{meant}")
    return listed(told)


def _recovery(of: Evidence) -> Judgement:
    asked = dict.fromkeys(of.cases, at_most(0.01))
    bars = (_returned(of), of.bars(WAITED_AT_ONCE, "seconds", "vcpu_wait_host_s_max", asked))
    waited_s = max(of(case, "vcpu_wait_host_s_max") for case in of.cases)
    stopped_s = of.config("scan").parsed_faults[0].for_s
    sentence = (
        f"After the host had stood still for {seconds(stopped_s)} while {size(of('scan', 'peak_resident_bytes'))} was "
        f"freed, {_left(of)} at the end; the longest that a vCPU waited was {seconds(waited_s)}."
    )
    return Judgement(sentence, bars)


def _switched(of: Evidence) -> Judgement:
    off_s = of.config("scan").parsed_faults[0].for_s
    sentence = (
        f"Reporting was off for {seconds(off_s)} while {size(of('scan', 'peak_resident_bytes'))} was freed, and then "
        f"on again: {_left(of)} at the end."
    )
    return Judgement(sentence, (_returned(of),))


def _false_ooms(of: Evidence) -> Judgement:
    falsely = of.spread("none", "false_ooms")
    # In some repeat: that it can happen is the claim.
    happened = of.bar("none", falsely, Bound("at least 1 in some run", 1, is_most=False, is_met=falsely.high >= 1))
    prevented = of.bars("", "count", "false_ooms", dict.fromkeys(_OOM[1:], at_most(0)))
    bars = (Bars("allocations that failed falsely", "count", (happened, *prevented.bars)),)
    answers = [
        f"{case} had {of(case, 'false_ooms'):.0f} (vCPUs waited {seconds(of(case, 'vcpu_wait_host_s'))}, "
        f"{size(of(case, 'refaulted_bytes'))} refaulted)"
        for case in _OOM[1:]
    ]
    by_seed = f" ({falsely.low:.0f} to {falsely.high:.0f} by the seed)" if falsely.low != falsely.high else ""
    sentence = (
        f"In a guest of {size(of.config('none').ram_bytes)} that runs close to its limit, {falsely.median:.0f} "
        f"allocations failed falsely when nothing was done about it{by_seed}; {listed(answers)}."
    )
    return Judgement(sentence, bars)


def _hours(of: Evidence) -> Judgement:
    rest_s = of.config("array").rest_s or 0.0
    bars = (of.bars(LEFT, "share", unreturned_share, {"array": at_least(LEFT_SHARE), "scan": at_most(LEFT_SHARE)}),)
    sentence = (
        f"{rest_s / 3600:.2g} hours after the burst the idle guest whose hints were lost still had "
        f"{size(of('array', 'unreturned_bytes'))} of {size(of('array', 'peak_resident_bytes'))} assigned to it; with a "
        f"scan it was {size(of('scan', 'unreturned_bytes'))}."
    )
    return Judgement(sentence, bars)


def _more(behind: Spread, beside: Spread) -> Spread:
    """By how much one exceeds another, at least and at most in any pair of repeats."""
    median, low, high = behind.median - beside.median, behind.low - beside.high, behind.high - beside.low
    return Spread(median, low, high, behind.runs)


def _busy(of: Evidence) -> Judgement:
    config = of.config("busy behind")
    limit_bytes = _BUSY_RAM_SHARE * config.ram_bytes
    costs, costs_idle = (
        _more(of.spread(f"{case} behind", kept_bytes), of.spread(case, kept_bytes)) for case in ("busy", "burst")
    )
    dropped = of.spread("busy behind", "dropped_hints")
    fell = Bound("at least 1, or it did not fall behind", 1, is_most=False, is_met=dropped.low >= 1 or None)
    bars = (
        Bars("kept with the host by falling behind", "bytes", (
            of.bar("busy behind", costs, made.at_most(costs, limit_bytes, "bytes")),
            of.bar("burst behind", costs_idle),
        )),
        Bars("hints dropped", "count", (of.bar("busy behind", dropped, fell),)),
    )  # fmt: skip
    more, more_idle = max(0.0, costs.median), max(0.0, costs_idle.median)
    sentence = (
        f"With a host {config.parsed_faults[0].factor:g} times slower, and arrays of {config.hints_max} hints that "
        f"dropped {of('busy behind', 'dropped_hints'):.0f} blocks, the host kept {size(more)} more for a guest that "
        f"churns ({100 * more / config.ram_bytes:.2g} % of its memory), and {size(more_idle)} more for one that frees "
        f"bursts and then does nothing ({100 * more_idle / config.ram_bytes:.2g} %). The first refaulted "
        f"{size(of('busy behind', 'refaulted_bytes'))} instead of {size(of('busy', 'refaulted_bytes'))}. It counts as "
        f"held if falling behind costs a guest that churns at most {_BUSY_RAM_SHARE:.0%} of its memory."
    )
    return Judgement(sentence, bars)


CLAIMS = [
    Claim(
        "S9", "Duyck, 2 April 2019",
        "When the virtqueue has no room, vCPUs stall; with a worker that waits, nothing is lost.",
        {
            "sync": Case("sync", "burst", "ring-full@0.9:2", settings=_SMALL_BURST),
            "scan": Case("scan", "burst", "ring-full@0.9:2", settings=_SMALL_BURST),
            "array": Case("notify-array", "burst", "ring-full@0.9:2", settings={**_SMALL_BURST, "hints": 16}),
        },
        _ring_room,
    ),
    Claim(
        "S10", "Duyck, 2 April 2019",
        "Whoever holds the host's mm lock for writing blocks all hints until it is released.",
        {
            "free": Case("scan", "burst", settings=_LIVE_BURST),
            "held": Case("scan", "burst", "mmlock-split", settings=_LIVE_BURST),
        },
        _mm_lock,
        live_only="what a lock of the host's kernel does can only be seen on that kernel, by --machine live",
    ),
    Claim(
        "S11", "Duyck, 2 April 2019",
        "A small, bounded number of blocks in flight is enough: more buffers are not the solution.",
        {"few": Case("scan", "burst", "stop"), "many": Case("scan", "burst", "stop", settings={"capacity": 512})},
        _bounded,
    ),
    Claim(
        "S12", "Duyck, 2 April 2019",
        "A design can recover gracefully from a host that stood still, with no stalls in the guest.",
        {name: Case(name, "burst", "stop") for name in _RECOVERING}, _recovery,
    ),
    Claim(
        "S14", "Hildenbrand, 2 April 2019",
        "Hinting can be switched off where it makes no sense, and on again, with no loss.",
        {name: Case(name, "burst", "off@0.9:2", settings=_SMALL_BURST) for name in _RECOVERING}, _switched,
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
            "busy": Case("notify-array", "churn", settings={"hints": 16}),
            "busy behind": Case("notify-array", "churn", _FAR_BEHIND, settings={"hints": 16}),
            "burst": Case("notify-array", "burst"), "burst behind": Case("notify-array", "burst", _FAR_BEHIND),
        },
        _busy,
    ),
]  # fmt: skip
"""The claims."""
