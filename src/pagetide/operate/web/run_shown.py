"""A run on the page: its curves so far, and its stages as events. There is no page map of it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pagetide.machine.result import Sample
from pagetide.operate.watch.seen import Seen
from pagetide.operate.web.history import NAMES, POINTS_MAX
from pagetide.operate.web.told_lines import Event


class RunBegun(msgspec.Struct, frozen=True, tag="run"):
    """The first that is told of a run.

    Attributes:
        name: what is run, in a few words.
        ram_bytes: its guest's memory.
        began_s: when its clock shows 0, in seconds since 1970.
    """

    name: str
    ram_bytes: int
    began_s: float


class Samples(msgspec.Struct, frozen=True, tag="samples"):
    """Some samples, in order."""

    samples: list[Sample]


class Stage(msgspec.Struct, frozen=True, tag="stage"):
    """Something new begins, or is not as it should be.

    Attributes:
        level: `info` or `warning`.
        text: what.
    """

    level: str
    text: str


Told = RunBegun | Samples | Stage


class RunShown:
    """What was told of a run."""

    def __init__(self, on_look: Callable[[], None], clock_s: Callable[[], float] = time.time) -> None:
        """Know of no run yet; the clock, since 1970, says when a stage begins that comes before any sample."""
        self._on_look, self._clock_s = on_look, clock_s
        self._lock = threading.Lock()
        self._run = RunBegun("run", 1, 0.0)
        self._samples: list[Sample] = []
        self._events: list[Event] = []
        self.message = b"{}"

    def hear(self, told: Told) -> None:
        """Take what is told."""
        with self._lock:
            match told:
                case RunBegun():
                    self._run, self._samples, self._events = told, [], []
                case Samples():
                    self._samples += told.samples
                case Stage():
                    self._events.append(Event(self._now_s(), told.level, self._run.name, told.text))
            self.message = msgspec.json.encode(self._look())
        self._on_look()

    def asked_as(self, guest: str) -> str | None:
        """By what `why` could be asked of a guest of this name: there is none."""
        return None

    def events(self, guest: str) -> list[Event]:
        """The run's stages and warnings."""
        with self._lock:
            return list(self._events) if guest == self._run.name else []

    def curves(self, guest: str, span_s: float) -> dict[str, Any]:
        """As `History.curves`; of a run there is what the guest uses and what the host holds."""
        with self._lock:
            samples = self._samples[:] if guest == self._run.name else []
            began_s = self._run.began_s
        if samples:
            samples = [sample for sample in samples if sample.t_s >= samples[-1].t_s - span_s]
        shown = _thinned(samples)
        nothing: list[int | None] = [None] * len(shown)
        return {
            **dict.fromkeys(NAMES, nothing),
            "t_s": [round(began_s + sample.t_s, 3) for sample in shown],
            "held_bytes": [sample.host_resident_bytes for sample in shown],
            "used_bytes": [sample.guest_used_bytes for sample in shown],
        }

    def map_at(self, guest: str, t_s: float) -> dict[str, Any] | None:
        """There is none."""
        return None

    def _now_s(self) -> float:
        return self._run.began_s + self._samples[-1].t_s if self._samples else self._run.began_s or self._clock_s()

    def _look(self) -> dict[str, Any]:
        """As `Look`, of one VM; and that it is a run."""
        last = self._samples[-1] if self._samples else Sample(0.0, 0, 0, None, 0)
        seen = Seen(
            name=self._run.name,
            balloon="its own",
            state=self._events[-1].text if self._events else None,
            ram_bytes=self._run.ram_bytes,
            held_bytes=last.host_resident_bytes,
            used_bytes=last.guest_used_bytes,
        )
        return {"t_s": self._now_s(), "vms": [seen], "waiting": [], "trouble": "", "shows": "run"}


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Fewer: of each few the one at which most was held, so that no height is lost."""
    each = -(-len(samples) // POINTS_MAX)
    if each <= 1:
        return samples
    return [
        max(samples[start : start + each], key=lambda sample: sample.host_resident_bytes)
        for start in range(0, len(samples), each)
    ]
