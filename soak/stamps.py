"""Designs on live memory: runs with settings of chance, whose guest stamps each page that it holds."""

import json
import random
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pagetide.guest.reporting.registry import DESIGNS
from soak.children import PAGETIDE, run
from soak.part import BrokenError, Part, Trial

_WORKLOADS = ("burst", "web", "database", "churn", "small", "day")
_FAULTS = ("stop@0.5:1", "slow@0.5:1:20", "off@0.5:1", "ring-full@0.5:1", "ring=4", "mmlock", "mmlock-split")
_CHOICES = {
    "--oom": ("none", "wait", "cap", "swap"),
    "--wake": ("merge", "threshold", "timer"),
    "--pace": ("drain", "linux"),
    "--order": ("0", "2", "4", "9", "10"),
    "--capacity": ("1", "2", "8", "32", "256"),
    "--vcpus": ("1", "2", "4"),
    "--delay": ("0", "0.01", "0.2", "1"),
    "--cool": ("0", "0.1"),
    "--hints": ("1", "16", "256"),
}
_BAD_ARGUMENTS = 2
_OUT_OF_MEMORY = "it ran out of memory"


def options_of(seed: int) -> list[str]:
    """What this seed runs, as options of `pagetide run`."""
    rng = random.Random(seed)
    workload = rng.choice(_WORKLOADS)
    ram_mib = rng.choice((64, 128, 192))
    options = ["--workload", workload, "--design", rng.choice([name for name in DESIGNS if name != "off"])]
    options += ["--ram", f"{ram_mib}MiB", "--seed", str(seed)]
    options += ["--bursts", "2", "--hold", "0.3"] if workload in {"burst", "day"} else []
    options += ["--duration", rng.choice(("2", "4", "8"))] if workload != "burst" else []
    for option, values in _CHOICES.items():
        if rng.random() < 0.3:
            options += [option, rng.choice(values)]
    if rng.random() < 0.3:
        options += ["--fault", rng.choice(_FAULTS)]
    return options


class Stamps(Part):
    """Each seed is one run."""

    name = "stamps"
    what = "a run on live memory, with settings of chance"

    def __init__(self, command: Sequence[str] = PAGETIDE) -> None:
        """With this `pagetide`."""
        self._command = command

    def paths(self) -> frozenset[str]:
        """Each design, workload, fault and choice of a setting, in a run that reported something."""
        named = {"--design": [name for name in DESIGNS if name != "off"], "--workload": _WORKLOADS, "--fault": _FAULTS}
        return frozenset(
            f"{option[2:]} {value}" for option, values in {**named, **_CHOICES}.items() for value in values
        )

    def replay(self, seed: int) -> str:
        """The run itself."""
        return shlex.join([".venv/bin/pagetide", "run", *options_of(seed)])

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """Each is a process of its own."""
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            target = Path(folder) / "run.json"
            yield lambda seed: self._try(options_of(seed), target, reached, until_s)

    def _try(self, options: list[str], target: Path, reached: Counter[str], until_s: float) -> None:
        done = run([*self._command, "run", "--json", str(target), *options], until_s)
        if done.returncode == _BAD_ARGUMENTS:
            reached["settings that do not fit one another"] += 1
            return
        result = json.loads(target.read_text()) if target.exists() else {}
        target.unlink(missing_ok=True)
        if done.returncode != 0 and not _is_true_oom(result):
            raise BrokenError(f"exit status {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
        if done.returncode != 0:
            reached["guests that ran out of memory though nothing that was out could have helped"] += 1
            return
        reached["MiB verified gone"] += (result["verified_bytes"] or 0) >> 20
        if result["discarded_bytes"]:
            chosen = dict(zip(options[::2], options[1::2], strict=True))
            reached.update({f"{option[2:]} {value}" for option, value in chosen.items() if option != "--seed"})


def _is_true_oom(result: dict[str, Any]) -> bool:
    """Whether a run ended for want of memory and for nothing else: `small` eats nearly all there is."""
    return (
        _OUT_OF_MEMORY in str(result.get("outcome"))
        and result["false_ooms"] == result["stamp_errors"] == 0
        and result["checked_bytes"] == result["verified_bytes"]
    )
