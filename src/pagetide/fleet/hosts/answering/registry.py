"""What hosts may do about pressure, by name."""

from collections.abc import Callable, Mapping

from pagetide.fleet.hosts.answering import balloon, kill, migration, swap
from pagetide.fleet.hosts.answering.answer import Answer, Pressed

ANSWERS: Mapping[str, Callable[[Pressed], Answer]] = {
    "swap": swap.answer,
    "balloon": balloon.answer,
    "migration": migration.answer,
    "kill": kill.answer,
}
"""By name. One file each."""
