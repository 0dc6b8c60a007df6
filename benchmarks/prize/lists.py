"""What per-CPU lists hide from reporting: traces replayed with lists of Linux's present size, and with hardly any."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.prize.replay import Outcome, Replays, keeping, linux, policies
from benchmarks.rows import Row
from pagetide.machine.config import PCP_BYTES_MIN
from pagetide.units import GIB
from pagetide.workload.stream import Stream

_LONG_BYTES = 1 << 50
"""More than any share of an eighth: so lists are of Linux's size since 6.7."""


class Listed(NamedTuple):
    """A trace's outcomes, each against `off` with lists of the same size.

    Attributes:
        name: the trace's.
        short: of `pool` with lists of a MiB a vCPU.
        long: by policy label, with lists of an eighth of RAM together.
    """

    name: str
    short: Outcome
    long: dict[str, Outcome]

    @classmethod
    def of(cls, name: str, stream: Stream) -> "Listed":
        """Replay a trace."""
        chosen = {policy.label: policy for policy in policies() if policy.label in (linux(0), linux(9), keeping(5))}
        short = Replays(name, stream, pcp_max_bytes=PCP_BYTES_MIN).replay(chosen[keeping(5)])
        long = Replays(name, stream, pcp_max_bytes=_LONG_BYTES)
        return cls(name, short, {label: long.replay(policy) for label, policy in chosen.items()})

    def rows(self) -> Iterator[Row]:
        """What became of each policy with long lists."""
        for label, outcome in self.long.items():
            note = f"saved {outcome.saved_gib_min:.3f} GiB min for {outcome.cpu_s:.3f} s CPU"
            yield Row(f"{self.name}, {label}, long per-CPU lists: held", outcome.held_bytes / GIB, "GiB", note=note)


def long_lists(listed: list[Listed]) -> Row:
    """What `pool` saves with long lists, over what it saves with short ones, on all traces."""
    long, short = (
        sum(outcome.saved_byte_s for outcome in outcomes)
        for outcomes in ([trace.long[keeping(5)] for trace in listed], [trace.short for trace in listed])
    )
    each = ", ".join(f"{t.name} {t.long[keeping(5)].saved_byte_s / t.short.saved_byte_s:.3f}" for t in listed)
    return Row(
        "all: saved, G = 5, per-CPU lists of an eighth / of 1 MiB", long / short, "ratio", at_least=0.98, note=each
    )
