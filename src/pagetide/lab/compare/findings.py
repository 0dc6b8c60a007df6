"""What the figures of a comparison say to the claims of the thread."""

from pagetide.lab.compare.store import Store
from pagetide.lab.compare.verdicts import Finding


def findings(store: Store) -> list[Finding]:
    """A finding for each claim."""
    return []
