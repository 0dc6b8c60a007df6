"""Claims about what finds free memory: scanning, notification, both, and synchronously (S1 to S5, S7)."""

from pagetide.compare.claims.claim import Claim
from pagetide.compare.claims.evidence import (
    Asked,
    Case,
    Evidence,
    at_least,
    at_most,
    less_than,
    unreturned_share,
)
from pagetide.compare.claims.verdicts import Judgement
from pagetide.compare.claims.words import LEFT, WAITED_AT_ONCE, seconds, size
from pagetide.compare.grid.axes import QUICK, QUICK_FAULT

LEFT_SHARE = 0.01
"""At most so much of what the host ever held may be left with it at the end, if all is to count as returned."""

MAIL = {name: value for name, value in QUICK.items() if name != "workload"}
"""Settings of the mail's case: one burst, and the host stands still while it is freed."""

_STARVED_SHARE = 0.1
_STARVED_FACTOR = 1 / 3
_BUSY_HEAD = {"ram": "512MiB", "order": 0, "bursts": 1, "duration": 20.0, "rate": 20000.0}
_SMALL_ORDER = {"ram": "512MiB", "order": 0, "duration": 5.0, "delay": 0.1}


def mail_case(design: str, **settings: object) -> Case:
    """A design on the mail's case."""
    return Case(design, "burst", QUICK_FAULT, settings={**MAIL, **settings})


def _scanning(of: Evidence) -> Judgement:
    capacity = of.config("scan").report_blocks_max
    bars = (
        of.bars(LEFT, "share", unreturned_share, {"scan": at_most(LEFT_SHARE), "off": None}),
        of.bars("blocks out at once, at most", "count", "isolated_blocks_max", {"scan": at_most(capacity)}),
        of.bars("times that vCPUs waited", "count", "vcpu_waits_host", {"scan": at_most(0)}),
    )
    sentence = (
        f"Of {size(of('scan', 'peak_resident_bytes'))} that bursts took, {size(of('scan', 'unreturned_bytes'))} was "
        f"still with the host at the end (without reporting {size(of('off', 'unreturned_bytes'))}); at most "
        f"{of('scan', 'isolated_blocks_max'):.0f} blocks were out at once, of {capacity} that a batch takes, and vCPUs "
        f"waited {of('scan', 'vcpu_waits_host'):.0f} times."
    )
    return Judgement(sentence, bars)


def _progress(of: Evidence) -> Judgement:
    config = of.config("restart")
    asked = {
        "restart": at_least(_STARVED_SHARE),
        "scan": less_than("restart", _STARVED_FACTOR),
        "cursor": None,
        "restart, fast host": None,
    }
    bars = (of.bars(LEFT, "share", unreturned_share, asked),)
    told = [
        f"{how} {size(of(case, 'unreturned_bytes'))} after {of(case, 'reports'):.0f} reports"
        for case, how in (("restart", "restarting left"), ("scan", "going on"), ("cursor", "going on by position"))
    ]
    sentence = (
        f"A burst of {size(of('restart', 'peak_resident_bytes'))} was freed beside a server that frees "
        f"{config.rate_per_s:g} small blocks a second, and the host took {config.parsed_faults[0].factor:g} times as "
        f"long for a report: of what was free at the end {', '.join(told)}. With a host at its full speed restarting "
        f"left {size(of('restart, fast host', 'unreturned_bytes'))}. It counts as held if restarting left a tenth of "
        f"the memory, and three times as much as going on."
    )
    return Judgement(sentence, bars)


def _overflow(of: Evidence) -> Judgement:
    bars = (
        of.bars("hints dropped", "count", "dropped_hints", {"array": at_least(1), "bitmap": at_most(0)}),
        of.bars(LEFT, "share", unreturned_share, {"array": at_least(LEFT_SHARE), "bitmap": None}),
    )
    sentence = (
        f"Arrays of {of.config('array').hints_max} hints dropped {of('array', 'dropped_hints'):.0f} blocks, and "
        f"{size(of('array', 'unreturned_bytes'))} of {size(of('array', 'peak_resident_bytes'))} was not back at the "
        f"end; a bitmap dropped {of('bitmap', 'dropped_hints'):.0f} and left {size(of('bitmap', 'unreturned_bytes'))}."
    )
    return Judgement(sentence, bars)


def _hybrid(of: Evidence) -> Judgement:
    bars = (
        of.bars("hints dropped", "count", "dropped_hints", {"hybrid": at_least(1), "array": None}),
        of.bars(LEFT, "share", unreturned_share, {"hybrid": at_most(LEFT_SHARE), "array": at_least(LEFT_SHARE)}),
    )
    sentence = (
        f"In the mail's case hybrid dropped {of('hybrid', 'dropped_hints'):.0f} hints, and its scan left "
        f"{size(of('hybrid', 'unreturned_bytes'))}; the array alone left {size(of('array', 'unreturned_bytes'))}."
    )
    return Judgement(sentence, bars)


def _synchronous(of: Evidence) -> Judgement:
    stopped_s = of.config("sync").parsed_faults[0].for_s
    asked = {"sync": at_least(0.9 * stopped_s), "scan": at_most(0.01 * stopped_s)}
    bars = (of.bars(WAITED_AT_ONCE, "seconds", "vcpu_wait_host_s_max", asked),)
    sentence = (
        f"While the host stood still for {seconds(stopped_s)}, a vCPU that reports itself waited "
        f"{seconds(of('sync', 'vcpu_wait_host_s_max'))} at once; with a worker that scans, "
        f"{seconds(of('scan', 'vcpu_wait_host_s_max'))}."
    )
    return Judgement(sentence, bars)


def _marks(of: Evidence) -> Judgement:
    asked: dict[str, Asked | None] = {}
    told = []
    for workload in ("web", "database"):
        dropping, keeping = f"{workload}, scan", f"{workload}, cursor"
        asked |= {dropping: None, keeping: less_than(dropping)}
        share = 100 * of(dropping, "repeated_bytes") / max(1.0, of(dropping, "reported_bytes"))
        told.append(
            f"on {workload} {size(of(dropping, 'repeated_bytes'))} ({share:.2g} % of what it reported) against "
            f"{size(of(keeping, 'repeated_bytes'))}"
        )
    bars = (of.bars("reported again, though nobody had touched it", "bytes", "repeated_bytes", asked),)
    sentence = (
        "At order 0, scan, which drops the mark of a block that is split or merged as Linux does, reported again what "
        f"nobody had touched: {' and '.join(told)} with cursor, which keeps it. The rest comes of merging with "
        "neighbours that were in use."
    )
    return Judgement(sentence, bars)


CLAIMS = [
    Claim(
        "S1", "Duyck, 2 April 2019",
        "One worker that scans the free lists in bounded batches gives back what was freed.",
        {"scan": Case("scan", "burst"), "off": Case("off", "burst")}, _scanning,
    ),
    Claim(
        "S2", "Tsirkin, 2 April 2019",
        "If the walk restarts at the head of the list each time, progress is not guaranteed.",
        {
            "scan": Case("scan", "day", "slow@0:60:30", settings=_BUSY_HEAD),
            "restart": Case("scan-restart", "day", "slow@0:60:30", settings=_BUSY_HEAD),
            "cursor": Case("cursor", "day", "slow@0:60:30", settings=_BUSY_HEAD),
            "restart, fast host": Case("scan-restart", "day", settings=_BUSY_HEAD),
        },
        _progress,
    ),
    Claim(
        "S3", "Duyck, 2 April 2019",
        "Notifications are missed when too many are waiting, and what they named is not returned.",
        {"array": Case("notify-array", "burst"), "bitmap": Case("notify", "burst")}, _overflow,
    ),
    Claim(
        "S4", "Hildenbrand, 3 April 2019",
        "Notifications, with one scan after too many were dropped, return everything, too.",
        {"hybrid": mail_case("hybrid"), "array": mail_case("notify-array")}, _hybrid,
    ),
    Claim(
        "S5", "Duyck, 2 April 2019", "Without dropping, the guest is held up until its hints have been dealt with.",
        {"sync": mail_case("sync"), "scan": mail_case("scan")}, _synchronous,
    ),
    Claim(
        "S7", "the thread's page states",
        "A mark that is lost by a split or a merge has memory reported again for nothing.",
        {
            f"{workload}, {design}": Case(design, workload, settings=_SMALL_ORDER)
            for workload in ("web", "database") for design in ("scan", "cursor")
        },
        _marks,
    ),
]  # fmt: skip
"""The claims."""
