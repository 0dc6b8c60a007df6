"""The settings that are asked for, each with the responses that were learned of it: one for all VMs, or a mixture."""

from collections.abc import Mapping, Sequence

import msgspec

from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.learning.responses import Learned, Responses
from pagetide.fleet.learning.settings import SCATTERS, SETTINGS
from pagetide.machine.config_error import ConfigError

_SUM_OFF_MAX = 1e-6


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A setting for one kind of guest.

    Attributes:
        name: as it was asked for.
        guest: a name in SCATTERS.
        parts: what was learned of each setting in it.
        shares: which share of the VMs has each; they add up to 1.
    """

    name: str
    guest: str
    parts: tuple[Learned, ...]
    shares: tuple[float, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        """The names in SETTINGS of its parts."""
        return tuple(one.setting for one in self.parts)

    @property
    def mixture(self) -> Mixture:
        """The same for the model."""
        return Mixture(f"{self.name}, {self.guest}", tuple(one.response for one in self.parts), self.shares)


def parse_setting(text: str) -> Mapping[str, float]:
    """Which share of the VMs has which setting: `linux-9`, or `linux-9:0.3+off:0.7`.

    Raises:
        ConfigError: it is written wrongly, there is no such setting, or the shares do not add up to 1.
    """
    shares: dict[str, float] = {}
    is_mixed = "+" in text or ":" in text
    for part in text.split("+"):
        name, _, share = part.partition(":")
        if name not in SETTINGS:
            raise ConfigError(f"there is no setting {name!r}; choose from {', '.join(SETTINGS)}")
        try:
            shares[name] = float(share) if is_mixed else 1.0
        except ValueError:
            raise ConfigError(f"{text!r} is not a mix of settings; write it like linux-9:0.3+off:0.7") from None
    if len(shares) != text.count("+") + 1 or not all(0 < share <= 1 for share in shares.values()):
        raise ConfigError(f"a mix has each setting once, with a share above 0 and at most 1, unlike {text!r}")
    if abs(sum(shares.values()) - 1) > _SUM_OFF_MAX:
        raise ConfigError(f"the shares of a mix add up to 1, unlike those of {text!r}")
    return shares


def choose(responses: Responses, settings: Sequence[str], guests: Sequence[str] = tuple(SCATTERS)) -> list[Chosen]:
    """These settings for each of these kinds of guest, with what was learned of them.

    Raises:
        ConfigError: `parse_setting` has it, or one was not learned.
    """
    learned = {(one.setting, one.guest): one for one in responses.learned}
    found = []
    for name in settings:
        shares = parse_setting(name)
        for guest in guests:
            for part in shares:
                if (part, guest) not in learned:
                    raise ConfigError(f"no response of {part} was learned: `pagetide fleet learn` does it")
            parts = tuple(learned[part, guest] for part in shares)
            found.append(Chosen(name=name, guest=guest, parts=parts, shares=tuple(shares.values())))
    return found
