"""The shapes of use from which responses are learned: how far it falls, how fast, how often."""

from collections.abc import Mapping

import numpy as np

from pagetide.fleet.guests.response import LEVELS

PEAK_SHARE = 0.8
"""The most that a shape uses, of RAM."""

_WALK_STEPS = 40
_WALKS = 3
_HUM_MIDDLE, _HUM, _HUM_STEPS = 0.6, 0.015, 120
_SPIKES, _SPIKE_HUM, _SPIKE_STEPS = (1 / 32, 1 / 8, 3 / 8), 0.25, 72


def shapes(seed: int) -> Mapping[str, list[float]]:
    """Each shape by name, as shares of RAM by step.

    - stairs: from the highest to nothing, a level a step;
    - falls: from the highest at once to each second level, and back;
    - walks: here and there around a middle that differs, as use does over a day;
    - hum: a little up and down, as use always does;
    - spikes: high for ten minutes, and then up and down around a base by a quarter of it for hours.
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
    for base in _SPIKES:
        hum = base * np.clip(rng.normal(1.0, _SPIKE_HUM, _SPIKE_STEPS), 0.0, 2.0)
        found[f"spike over {base:g}"] = [base, base, 0.75, 1.0, *map(float, hum)]
    return {name: [PEAK_SHARE * share for share in shape] for name, shape in found.items()}
