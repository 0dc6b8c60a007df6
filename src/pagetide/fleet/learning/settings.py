"""The settings whose responses are learned, and the guest that is simulated for it.

A guest of 4 GiB is simulated at a sixteenth, so that a day takes about a second: of its memory, and of what is counted
in blocks (how many are in a report, how many a threshold waits for), since Linux reports only while that much is free.
"""

from collections.abc import Mapping
from typing import Any

from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig
from pagetide.units import MIB, PAGEBLOCK_ORDER

RAM_BYTES = 256 * MIB
_SCALED: Mapping[str, Any] = {"ram_bytes": RAM_BYTES, "capacity": 2, "wake_blocks": 1, "vcpus": 1}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "off": {"design": "off"},
    **{
        f"linux-{order}": {"design": "scan", "pace": "linux", "order": order}
        for order in range(PAGEBLOCK_ORDER, -1, -1)
    },
    **{design: {"design": design} for design in DESIGNS if design not in ("off", "balloon")},
    "pool-0": {"design": "pool", "order": 0},
    "balloon": {"design": "balloon", "delay_s": 10.0, "mix": "4=0.25,2=0.25,0=0.5"},
}
"""What is set for each, as RunConfig has it: Linux's own reporting by its order, every design as it is by default, and
`pool` down to single pages, and a balloon by the policy of machine/balloon_policy.py: a guest is to have a sixteenth of
its RAM free, which is looked at every 10 s, as oVirt's MOM and Proxmox's pvestatd do it.

A guest with a balloon uses no blocks of 2 MiB: where Linux has none left that a balloon has not broken up it gives its
applications smaller ones, but our guest, which has no compaction, ran out of memory.
"""

SCATTERS: Mapping[str, float] = {"last": 0.0, "anywhere": 1.0}
"""Guests that free what they allocated last, and guests that free anywhere in what they hold (workload/curve.py).

They are the two ends: what others leave behind lies between. A guest in the middle becomes more like the second the
longer it runs, since what it allocated last lies in the gaps of before.
"""


def config_of(setting: str, seed: int) -> RunConfig:
    """What the simulated guest has under a setting."""
    return RunConfig(**_SCALED, seed=seed, **SETTINGS[setting])
