"""When what happens in a shift: it is as long as somebody has time, and the minutes of the alerts are made to fit."""

import random
import re
import threading
import time
from typing import NamedTuple

ROUND_MIN = 51.0
"""Minutes of the rules that one of each fault takes, with what comes before and after."""
_CALM_MIN = 3.0
"""In which nothing is injected, at the beginning of a round: guests boot."""
_DURATION = re.compile(r"(\[|for: )(\d+)m")


class Fault(NamedTuple):
    """One kind of fault, and the alert that is for it. Times are minutes of the rules.

    Attributes:
        name: for people.
        alert: what must fire.
        is_played: whether a front-end of the soak's own has it, and no real guest.
        lasts_min: for how long it is kept up.
        fires_min: from when to when after its beginning the alert may begin to fire.
        ends_min: until when after its end the alert may fire.
    """

    name: str
    alert: str
    is_played: bool
    lasts_min: float
    fires_min: tuple[float, float]
    ends_min: float


KEPT = Fault("inhibited, and then it frees memory", "PagetideMemoryDoesNotComeBack", False, 38, (30, 31), 1)
TAKEN = Fault("fills and frees without pause", "PagetideRefaultsEatTheGain", False, 30, (15, 21), 6)
THROTTLED = Fault("kicks for nothing", "PagetideGuestThrottled", True, 14, (5, 11), 6)
GIVEN_UP = Fault("breaks the protocol, and is given up", "PagetideGuestLostBalloon", True, 0, (1, 2), 10)
RESET = Fault("breaks its ring, and needs a reset", "PagetideGuestLostBalloon", True, 6, (1, 2), 1)
SEALED = Fault("seals its memory: discards fail", "PagetideDiscardsFail", True, 0, (0, 1), 10)
FAULTS = (KEPT, TAKEN, THROTTLED, GIVEN_UP, RESET, SEALED)


class Timetable:
    """A shift from now on.

    Attributes:
        scale: how many minutes of the rules pass in one: 1 in a shift that is long enough for the rules as they are.
        rounds: how often each fault is injected.
        end_s: when guests stop to do things, on the monotonic clock.
        over: set at the end, or when something has failed.
    """

    def __init__(self, length_s: float) -> None:
        """Begin one of so many seconds."""
        self.start_s = time.monotonic()
        self.end_s = self.start_s + length_s
        self.scale = max(1.0, ROUND_MIN * 60 / length_s)
        self.rounds = int(length_s * self.scale / 60 / ROUND_MIN + 1e-6)
        self.over = threading.Event()

    def seconds(self, minutes: float) -> float:
        """What minutes of the rules are here."""
        return 60 * minutes / self.scale

    def wait(self, seconds: float) -> bool:
        """Wait so long, at most until the shift is over; whether it is not."""
        return not self.over.wait(max(0.0, seconds))

    def gap_s(self, rng: random.Random) -> float:
        """For how long a guest rests between two bursts.

        A guest that bursts more often than once in the five minutes that rates are taken over, at no small scale, would
        be one that takes back without pause what it returns.
        """
        return rng.uniform(1, 3) * min(60.0, 1.3 * self.seconds(5) + 4)

    def moment_s(self, rng: random.Random, fault: Fault, number: int) -> float:
        """When a round's fault is injected, on the monotonic clock."""
        last_min = ROUND_MIN - fault.lasts_min - max(fault.ends_min, fault.fires_min[1] - fault.lasts_min) - 2
        return self.start_s + self.seconds(number * ROUND_MIN + rng.uniform(_CALM_MIN, last_min))


def scaled(rules: str, scale: float) -> str:
    """Prometheus' rules with all their times shortened; at a scale of 1 as they are."""
    if scale == 1:
        return rules
    return _DURATION.sub(lambda found: f"{found[1]}{round(int(found[2]) * 60_000 / scale)}ms", rules)
