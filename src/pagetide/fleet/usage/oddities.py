"""What is odd in recorded usage, and what is done about it: all rules in one place.

An oddity is counted and named, and dealt with by its rule; what cannot be (negative memory, a line that is cut off) is
refused where it is read. Usage of which more than `ODD_SHARE_MAX` is odd is refused as a whole: what came of it would
be the rules' and not the fleet's. What a VM may well do, be off or be given other memory, does not count as odd there.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

ODD_SHARE_MAX = 0.2
"""The largest share of samples that rules may have changed, left out or made up."""

HELD_OVER_STEPS = 3
"""For so many steps without a sample a VM is taken to use what it used before."""


class Rule(NamedTuple):
    """An oddity.

    Attributes:
        what: what was seen.
        rule: what is done about it.
        counts: whether its samples count towards ODD_SHARE_MAX.
    """

    what: str
    rule: str
    counts: bool = True


RULES: Mapping[str, Rule] = {
    "unit": Rule(
        "times in another unit than the heading says", "the unit that makes them instants since 1973", counts=False
    ),
    "backwards": Rule("earlier than the line before it of the same VM", "sorted by time"),
    "empty": Rule("without a value", "left out"),
    "off": Rule("with a capacity of 0", "the machine is off, and its memory empty", counts=False),
    "over": Rule("with more used than there is", "cut to the capacity"),
    "repeated": Rule("for an instant that the VM has already", "the larger values are kept"),
    "dense": Rule("less than half a step after another", "the largest values of each step are kept"),
    "held_over": Rule("missing, the first three of a gap", "what was used before is used on"),
    "unknown": Rule("missing, the rest of a gap", "unknown: in no sum and no mean"),
    "resized": Rule(
        "with another capacity than before",
        "the guest has what it has at each time, and nothing of what is taken away",
        counts=False,
    ),
}
"""Every oddity by name."""


class Count(NamedTuple):
    """How often an oddity was seen.

    Attributes:
        samples: in how many samples; of what is missing, for how many steps.
        vms: of how many VMs.
        worst: the VM with the most, and how many it has.
    """

    samples: int
    vms: int
    worst: tuple[str, int]


class Oddities(NamedTuple):
    """What was odd in some VMs.

    Attributes:
        samples: how many samples there were, missing ones included.
        counts: by the name of the rule; what was not seen is not there.
    """

    samples: int = 0
    counts: Mapping[str, Count] = {}

    @property
    def odd_share(self) -> float:
        """The share of samples that counts towards ODD_SHARE_MAX."""
        odd = sum(count.samples for name, count in self.counts.items() if RULES[name].counts)
        return odd / self.samples if self.samples else 0.0


def together(parts: Iterable[Oddities]) -> Oddities:
    """What was odd in all of these; their VMs differ."""
    samples, counts = 0, dict[str, Count]()
    for part in parts:
        samples += part.samples
        for name, count in part.counts.items():
            before = counts.get(name, Count(0, 0, count.worst))
            worst = max(before.worst, count.worst, key=lambda one: one[1])
            counts[name] = Count(before.samples + count.samples, before.vms + count.vms, worst)
    return Oddities(samples, {name: counts[name] for name in RULES if name in counts})


def sentences(found: Oddities) -> list[str]:
    """A line for each oddity that was seen: what, how often, and what was done."""
    lines = []
    for name, count in found.counts.items():
        rule, (vm, most) = RULES[name], count.worst
        of = f"of VM {vm}" if count.vms == 1 else f"of {count.vms:,} VMs, the most {most:,} of VM {vm}"
        lines.append(f"{count.samples:,} samples {rule.what} ({of}): {rule.rule}")
    return lines
