"""What a claim of the thread is: something that was said, and the runs that test it."""

from collections.abc import Callable
from typing import NamedTuple

from pagetide.compare.claims.evidence import Case, Evidence
from pagetide.compare.claims.verdicts import Judgement

Judge = Callable[[Evidence], Judgement]
"""From the figures of a claim's cases to those that decide, and a sentence that is made of them."""


class Claim(NamedTuple):
    """A claim, and what tests it.

    Attributes:
        claim_id: S1 to S17 as in the thread's list of mechanisms, or a name for an argument besides.
        who: who said it, and when.
        claim: what was said, in a sentence of ours.
        cases: what has to be run to test it, by name.
        judge: decides by the figures.
        live_only: why the simulated machine cannot decide it; empty if it can.
    """

    claim_id: str
    who: str
    claim: str
    cases: dict[str, Case]
    judge: Judge
    live_only: str = ""
