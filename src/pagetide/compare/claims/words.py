"""Figures and names as they stand in sentences and pictures."""

from collections.abc import Sequence
from typing import Literal

from pagetide.units import GIB, MIB

Kind = Literal["bytes", "seconds", "share", "count"]
"""What a figure is of."""

LEFT = "left with the host at the end, of the most that it held"
KEPT = "kept with the host beyond what the guest used, on average"
WAITED_AT_ONCE = "the longest that a vCPU waited for the host"
"""What several claims measure."""


def worded(value: float, kind: Kind) -> str:
    """A figure for people, with its unit."""
    if kind == "bytes":
        return size(value)
    if kind == "seconds":
        return seconds(value)
    return f"{100 * value:.3g} %" if kind == "share" else f"{value:.6g}"


def size(nr_bytes: float) -> str:
    """Bytes for a sentence, in MiB or GiB."""
    return f"{nr_bytes / GIB:.2f} GiB" if nr_bytes >= GIB else f"{nr_bytes / MIB:.4g} MiB"


def seconds(time_s: float) -> str:
    """Seconds for a sentence."""
    if time_s == 0 or time_s >= 1:
        return f"{time_s:.3g} s"
    return f"{time_s * 1e3:.3g} ms" if time_s >= 1e-3 else f"{time_s * 1e6:.3g} µs"


def listed(names: Sequence[str]) -> str:
    """Names for a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
