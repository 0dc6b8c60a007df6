"""Learned responses: made from simulated runs, and kept in a file.

`pagetide fleet learn` writes them beside the costs that the simulated machine is made of. Where there is no such file,
those of `responses_default.json` beside this file serve, which `pagetide fleet learn --out
src/pagetide/fleet/learning/responses_default.json` wrote.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pagetide.fleet.guests.response import LEVELS, Response
from pagetide.fleet.learning.fit import FADES_DIGITS, fit, modelled
from pagetide.fleet.learning.observe import observe
from pagetide.fleet.learning.settings import RAM_BYTES, SCATTERS, SETTINGS, config_of
from pagetide.fleet.learning.shapes import shapes
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Costs
from pagetide.machine.made_file import MadeFile, write_made


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One response, as a file has it.

    Attributes:
        setting: a name in SETTINGS.
        guest: a name in SCATTERS.
        return_s: as Response has it; None if nothing ever returns.
        left: as Response has it.
        fades: likewise.
        keeps: likewise.
        keeps_bytes: likewise.
        off_share: how far the model is off from the runs that it was learned from, the root of the mean square over
            their steps, as a share of RAM.
    """

    setting: str
    guest: str
    return_s: float | None
    left: tuple[float, ...]
    fades: float
    keeps: float
    keeps_bytes: int
    off_share: float

    @property
    def response(self) -> Response:
        """The same for the model."""
        return_s = math.inf if self.return_s is None else self.return_s
        kept = self.keeps, self.keeps_bytes
        return Response(f"{self.setting}, {self.guest}", return_s, np.array(self.left), self.fades, *kept)


class Responses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file holds.

    Attributes:
        ram_bytes: of the guests that were simulated.
        mix: the orders of their blocks, as RunConfig has it, but for those of a guest with a balloon (settings.py).
        seed: drove every random choice.
        costs: when what things cost was measured.
        learned: one for each setting and guest.
    """

    ram_bytes: int
    mix: str
    seed: int
    costs: str
    learned: tuple[Learned, ...]

    def check(self) -> None:
        """Raise ConfigError for a response that cannot be."""
        for one in self.learned:
            shares = (*one.left, one.keeps)
            is_one = len(one.left) == LEVELS + 1 and all(0 <= share <= 1 for share in shares)
            is_one = is_one and one.keeps_bytes >= 0
            if not (is_one and 0 <= one.fades < math.inf and (one.return_s is None or 0 <= one.return_s < math.inf)):
                raise ConfigError(f"the response of {one.setting} and {one.guest} cannot be: learn it anew")


def learn(settings: Sequence[str], prices: Costs, seed: int, tell: Callable[[], None]) -> Responses:
    """Learn the responses of these settings, for each guest.

    Args:
        settings: names in SETTINGS.
        prices: what things cost.
        seed: drives every random choice.
        tell: is called after each.

    Raises:
        SimulationError: a guest did not get through.
        KeyboardInterrupt: Ctrl-C.
    """
    learned = []
    for setting in settings:
        for guest in SCATTERS:
            learned.append(_learn(setting, guest, prices, seed))
            tell()
    mix = config_of(settings[0], seed).mix
    return Responses(ram_bytes=RAM_BYTES, mix=mix, seed=seed, costs=prices.date, learned=tuple(learned))


def _learn(setting: str, guest: str, prices: Costs, seed: int) -> Learned:
    seen = [observe(setting, guest, shape, prices, seed) for shape in shapes(seed).values()]
    found = fit(setting, seen, has_reserve=SETTINGS[setting]["design"] == "balloon")
    off = np.concatenate([modelled(one, found) - one.held_mean for one in seen])
    return Learned(
        setting=setting,
        guest=guest,
        return_s=None if math.isinf(found.return_s) else round(found.return_s, 3),
        left=tuple(round(float(share), 4) for share in found.left),
        fades=round(found.fades, FADES_DIGITS),
        keeps=round(found.keeps, 4),
        keeps_bytes=round(found.keeps_bytes),
        off_share=round(float(np.sqrt(np.square(off).mean())) / RAM_BYTES, 4),
    )


_FILE = MadeFile(
    Responses, "responses", "pagetide fleet learn", "responses.json", Path(__file__).with_name("responses_default.json")
)


def default_path() -> Path:
    """Where `pagetide fleet learn` writes, and the other commands look: beside the costs."""
    return _FILE.usual_path


def read_responses(path: Path | None = None) -> Responses:
    """The responses in this file; without a path those at `default_path`, or the built-in ones.

    Raises:
        ConfigError: the file cannot be read, or does not hold responses.
    """
    found = _FILE.read(path)
    found.check()
    return found


def write_responses(responses: Responses, path: Path) -> None:
    """Write them as JSON, making the folder if need be.

    Raises:
        OSError: that cannot be.
    """
    write_made(responses, path)
