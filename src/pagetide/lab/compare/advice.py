"""Which configuration to use for which set-up, by the figures of a comparison."""

from pagetide.lab.compare.store import Store
from pagetide.lab.compare.verdicts import Advice


def advice(store: Store) -> list[Advice]:
    """Advice for each set-up."""
    return []
