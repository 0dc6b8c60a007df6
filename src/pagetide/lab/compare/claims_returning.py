"""Claims about what finds free memory: scanning, notification, both, and synchronously (S1 to S5, S7)."""

from pagetide.lab.compare.claims import Claim
from pagetide.lab.compare.evidence import (
    Case,
    Evidence,
    at_least,
    at_most,
    kept_bytes,
    less,
    seconds,
    size,
    unreturned_share,
    verdict_of,
)
from pagetide.lab.compare.grid import QUICK, QUICK_FAULT
from pagetide.lab.compare.verdicts import Verdict

RETURNED_SHARE = 0.99
"""So much of what the host held at most has to be back at the end to count as returned."""

_LEFT_SHARE = 1 - RETURNED_SHARE
MAIL = {name: value for name, value in QUICK.items() if name != "workload"}
"""Settings of the mail's case: one burst, and the host stands still while it is freed."""


def mail_case(design: str, **settings: object) -> Case:
    """A design on the mail's case."""
    return Case(design, "burst", QUICK_FAULT, settings={**MAIL, **settings})


def _scanning(of: Evidence) -> tuple[Verdict, str]:
    capacity = of.config("scan").report_blocks_max
    verdict = verdict_of(
        at_most(of.spread("scan", unreturned_share), _LEFT_SHARE),
        at_most(of.spread("scan", "isolated_blocks_max"), capacity),
        at_most(of.spread("scan", "vcpu_waits_host"), 0),
    )
    return verdict, (
        f"Of {size(of('scan', 'peak_resident_bytes'))} that bursts took, {size(of('scan', 'unreturned_bytes'))} was "
        "still "
        f"with the host at the end (without reporting {size(of('off', 'unreturned_bytes'))}); at most "
        f"{of('scan', 'isolated_blocks_max'):.0f} blocks were out at once, of {capacity} that a batch takes, and vCPUs "
        f"waited {of('scan', 'vcpu_waits_host'):.0f} times."
    )


def _progress(of: Evidence) -> tuple[Verdict, str]:
    restarted, going_on = of.spread("restart", kept_bytes), of.spread("scan", kept_bytes)
    verdict = verdict_of(
        less(going_on, restarted, 0.9),
        less(of.spread("scan", "return_lag_s_p99"), of.spread("restart", "return_lag_s_p99"), 0.9),
    )
    return verdict, (
        "Single pages of a web server, reported one at a time to a slow host: a walk that restarts at the head kept "
        f"{size(restarted.median)} beyond what the guest used, one that goes on {size(going_on.median)}, and one by "
        "position "
        f"{size(of('cursor', kept_bytes))}; a hundredth of the bytes waited longer than "
        f"{seconds(of('restart', 'return_lag_s_p99'))}, {seconds(of('scan', 'return_lag_s_p99'))} and "
        f"{seconds(of('cursor', 'return_lag_s_p99'))}. Restarting took {of('restart', 'reports'):.0f} reports for "
        "it, going "
        f"on {of('scan', 'reports'):.0f}."
    )


def _overflow(of: Evidence) -> tuple[Verdict, str]:
    verdict = verdict_of(
        at_least(of.spread("array", "dropped_hints"), 1),
        at_least(of.spread("array", unreturned_share), _LEFT_SHARE),
        at_most(of.spread("bitmap", "dropped_hints"), 0),
    )
    return verdict, (
        f"Arrays of {of.config('array').hints_max} hints dropped {of('array', 'dropped_hints'):.0f} blocks, and "
        f"{size(of('array', 'unreturned_bytes'))} of {size(of('array', 'peak_resident_bytes'))} was not back at the "
        "end; a "
        f"bitmap dropped {of('bitmap', 'dropped_hints'):.0f} and left {size(of('bitmap', 'unreturned_bytes'))}."
    )


def _hybrid(of: Evidence) -> tuple[Verdict, str]:
    verdict = verdict_of(
        at_least(of.spread("hybrid", "dropped_hints"), 1),
        at_most(of.spread("hybrid", unreturned_share), _LEFT_SHARE),
        at_least(of.spread("array", unreturned_share), _LEFT_SHARE),
    )
    return verdict, (
        f"In the mail's case hybrid dropped {of('hybrid', 'dropped_hints'):.0f} hints, and its scan left "
        f"{size(of('hybrid', 'unreturned_bytes'))}; the array alone left {size(of('array', 'unreturned_bytes'))}."
    )


def _synchronous(of: Evidence) -> tuple[Verdict, str]:
    stopped_s = of.config("sync").parsed_faults[0].for_s
    verdict = verdict_of(
        at_least(of.spread("sync", "vcpu_wait_host_s_max"), 0.9 * stopped_s),
        at_most(of.spread("scan", "vcpu_wait_host_s_max"), 0.01 * stopped_s),
    )
    return verdict, (
        f"While the host stood still for {seconds(stopped_s)}, a vCPU that reports itself waited "
        f"{seconds(of('sync', 'vcpu_wait_host_s_max'))} at once; with a worker that scans, "
        f"{seconds(of('scan', 'vcpu_wait_host_s_max'))}."
    )


def _marks(of: Evidence) -> tuple[Verdict, str]:
    def share(case: str) -> float:
        return 100 * of(case, "repeated_bytes") / max(1.0, of(case, "reported_bytes"))

    verdict = verdict_of(
        at_least(of.spread("scan", "repeated_bytes"), 1), at_least(of.spread("notify", "repeated_bytes"), 1)
    )
    return verdict, (
        f"On churn {share('scan'):.2g} % of what scan reported had been reported before and not touched since "
        f"({size(of('scan', 'repeated_bytes'))}); with notify it was {share('notify'):.2g} %, with cursor "
        f"{share('cursor'):.2g} %."
    )


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
            name: Case(
                design, "web", "slow@0:60:100", settings={"order": 0, "capacity": 1}
            )
            for name, design in {"scan": "scan", "restart": "scan-restart", "cursor": "cursor"}.items()
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
        "Allocation, split and merge take the mark away: some memory is reported again for nothing.",
        {"scan": Case("scan", "churn"), "notify": Case("notify", "churn"), "cursor": Case("cursor", "churn")}, _marks,
    ),
]  # fmt: skip
"""The claims."""
