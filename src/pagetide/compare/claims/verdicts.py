"""What a comparison concludes: findings about the claims of the thread, and advice."""

from typing import Literal, NamedTuple

import msgspec

from pagetide.compare.claims.bars import Bars

Verdict = Literal["held", "not held", "undecided", "not tested"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one claim.

    Attributes:
        claim_id: S1 to S17 as in the thread's list of mechanisms, or a name for an argument besides.
        who: who said it, and when.
        claim: what was said, in a sentence.
        verdict: what the figures say to it; `undecided` if they are too few, too close or spread too far.
        sentence: why, with the figures that decide it; for a claim that was not tested, why not.
        doubt: why nothing is concluded from figures that may look clear; empty if it is by the figures alone.
        bars: the figures that decide it, to be drawn; none for a claim that was not tested.
        runs: keys of the runs that the figures come from.
    """

    claim_id: str
    who: str
    claim: str
    verdict: Verdict
    sentence: str
    doubt: str = ""
    bars: tuple[Bars, ...] = ()
    runs: tuple[str, ...] = ()


class Judgement(NamedTuple):
    """What figures say to a claim.

    Attributes:
        sentence: made of the figures.
        bars: those that decide.
    """

    sentence: str
    bars: tuple[Bars, ...]

    @property
    def verdict(self) -> Verdict:
        """A claim holds if all that is asked of its bars is so, and does not if something is not."""
        answers = [one.is_met for one in self.bars]
        if False in answers:
            return "not held"
        return "undecided" if None in answers else "held"


class Setting(msgspec.Struct, frozen=True):
    """Something that can be set today.

    Attributes:
        where: `QEMU`, `libvirt` or `guest`.
        what: the option, element or parameter.
        note: from which release on, and what else is to be known.
    """

    where: str
    what: str
    note: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Which configuration to use for one set-up.

    Attributes:
        setup: what the guest does, in a few words.
        choice: the configuration's label; None if the figures allow no choice.
        why: a sentence with the figures that decide it, or why there is no choice.
        costs: a sentence on what it costs, and the runner-up; empty without a choice.
        command: the `pagetide run` command line that runs it; empty without a choice.
        linux: what to set in a Linux guest to have the same, or that it has no such design.
        today: what can be set as things are, for the best configuration that can be.
        today_gain: what that one should gain, as a sentence.
        missing: what the choice has that Linux does not, as a sentence; empty if it has all of it.
        runs: keys of the runs that the figures come from.
    """

    setup: str
    choice: str | None
    why: str
    costs: str = ""
    command: str = ""
    linux: str = ""
    today: tuple[Setting, ...] = ()
    today_gain: str = ""
    missing: str = ""
    runs: tuple[str, ...] = ()
