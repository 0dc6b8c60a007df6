"""A device that is abandoned between any two steps of its turns, again and again, and goes on as a successor.

A step is a store to guest or in-flight memory, or a hole that is punched. They can be counted only where kernels are
plain Python, so trials run in a process of their own with NUMBA_DISABLE_JIT=1: `python -m soak.abandoned`, which reads
a seed a line.
"""

import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pagetide.host.device.balloon import FEATURES
from pagetide.host.memory import pieces
from pagetide.virtio.split_ring import device, inflight
from soak.part import BrokenError, CutShortError, Part, Trial
from tests.host.device.abandoned_device import Steps
from tests.host.device.test_takeover_steps import WITHOUT_EVENT_IDX, Guest

_MODULES = (inflight, device, pieces)

_STEPS = ("punch_hole", "store_i64", "store_u16", "store_u16_release", "store_u32")
_DEATHS = ("once", "twice", "more often")
_ROUNDS_MAX = 24


class Abandoned(Part):
    """Each seed is one guest, and all the devices that serve it."""

    name = "abandoned"
    what = "a device that dies between two stores, and its successors"

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "soak.abandoned")) -> None:
        """With this command for the trials."""
        self._command = command

    def paths(self) -> frozenset[str]:
        """Before which kinds of steps, and how often."""
        return frozenset({f"abandoned before {step}" for step in _STEPS} | {f"abandoned {many}" for many in _DEATHS})

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """One process for all trials."""
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        tell, told = process.stdin, process.stdout

        def trial(seed: int) -> None:
            print(seed, file=tell, flush=True)
            if not select.select([told], [], [], max(until_s - time.monotonic(), 0.0))[0]:
                raise CutShortError
            line = told.readline()
            if not line:
                raise BrokenError(f"the process ended with status {process.wait()}")
            broke, counts = json.loads(line)
            reached.update(counts)
            if broke:
                raise BrokenError(broke)

        try:
            yield trial
        finally:
            process.kill()
            process.wait()
            tell.close()
            told.close()


class NamedSteps(Steps):
    """Steps of which the kind of the last one is known."""

    name = ""

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        counted = super()._counted(step)
        kind = next(name for name in _STEPS for module in _MODULES if vars(module).get(name) is step)

        def named(*arguments: Any) -> Any:
            self.name = kind
            return counted(*arguments)

        return named


def _play(seed: int) -> Counter[str]:
    """One guest's life; what was reached."""
    rng, reached, submitted = random.Random(seed), Counter[str](), 0
    with pytest.MonkeyPatch.context() as patch:
        steps = NamedSteps(patch)
        guest = Guest(steps, int(FEATURES) if rng.random() < 0.5 else WITHOUT_EVENT_IDX)
        try:
            for _ in range(rng.randrange(2, _ROUNDS_MAX)):
                for _ in range(rng.randrange(4)):
                    submitted += bool(guest.free)
                    guest.submit()
                deaths = guest.takeovers.deaths
                guest.takeovers.turn(rng.randrange(1, 6), rng.choice((None, rng.randrange(12), rng.randrange(80))))
                if guest.takeovers.deaths > deaths:
                    reached[f"abandoned before {steps.name}"] += 1
                elif rng.random() < 0.1:
                    guest.takeovers.stop()
                if rng.random() < 0.8:
                    guest.take()
                    guest.check()
            guest.finish()
            if guest.answers != submitted:
                raise BrokenError(f"{guest.answers} answers to {submitted} reports")
            if guest.takeovers.deaths:
                reached[f"abandoned {_DEATHS[min(guest.takeovers.deaths, len(_DEATHS)) - 1]}"] += 1
            reached["reports answered"] += guest.answers
        finally:
            guest.takeovers.close()
    return reached


def main() -> None:
    """Answer each seed with what broke, or null, and what was reached."""
    for line in sys.stdin:
        broke, reached = None, Counter[str]()
        try:
            reached = _play(int(line))
        except Exception as error:
            broke = f"{type(error).__name__}: {error}"
        print(json.dumps([broke, reached]), flush=True)


if __name__ == "__main__":
    main()
