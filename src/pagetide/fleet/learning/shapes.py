"""The shapes of use from which responses are learned: how far it falls, how fast, how often."""

from collections.abc import Mapping

import numpy as np

from pagetide.fleet.guests.response import LEVELS

PEAK_SHARE = 0.8
"""The most that a shape uses, of RAM."""

_WALK_STEPS = 40
_WALKS = 3
_HUM_MIDDLE, _HUM, _HUM_STEPS = 0.6, 0.015, 120


def shapes(seed: int) -> Mapping[str, list[float]]:
    """Each shape by name, as shares of RAM by step.

    - stairs: from the highest to nothing, a level a step;
    - falls: from the highest at once to each second level, and back;
    - walks: here and there around a middle that differs, as use does over a day;
    - hum: a little up and down, as use always does.
    """
    levels = [(level / LEVELS) ** 2 for level in range(LEVELS, -1, -1)]
    found = {"stairs": [*levels, 1.0], "falls": [share for level in levels[2::2] for share in (1.0, level)]}
    rng = np.random.default_rng(seed)
    for walk in range(_WALKS):
        middle, near = (walk + 1) / (_WALKS + 1), 1.0
        found[f"walk {walk + 1}"] = [near]
        for _ in range(_WALK_STEPS):
            near += 0.2 * (middle - near) + rng.normal(0, 0.1)
            near = float(np.clip(near, 0.0, 1.0))
            found[f"walk {walk + 1}"].append(near)
    found["hum"] = list(map(float, np.clip(rng.normal(_HUM_MIDDLE, _HUM, _HUM_STEPS), 0.0, 1.0)))
    return {name: [PEAK_SHARE * share for share in shape] for name, shape in found.items()}
