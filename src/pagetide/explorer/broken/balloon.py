"""What is broken on purpose in the balloon."""

from pagetide.explorer.broken.variant import Variant, without_lock
from pagetide.explorer.scenarios import SCENARIOS_BALLOON
from pagetide.explorer.source import Edit

BALLOON = {
    "inflated before the host was told": Variant(
        "a page that came out of the balloon goes back in before the host was told that it came out",
        "balloon",
        SCENARIOS_BALLOON["block"],
        (Edit("guest.allocator.balloon_pages", "def take_pages(", " and counts[UNTOLD_PAGES] == 0", ""),),
        "is inflated again before the host was told",
    ),
    "deflated without the lock": Variant(
        "an allocation that fails takes pages out of the balloon without the zone lock",
        "balloon",
        SCENARIOS_BALLOON["relief"],
        without_lock("guest.allocator.balloon_pages", "deflate_now"),
        "",
    ),
    "a failed inflation is kept": Variant(
        "pages that the host could not be told of stay in the balloon",
        "balloon",
        SCENARIOS_BALLOON["full"],
        (
            Edit(
                "guest.reporting.designs.balloon",
                "def done(",
                "free_pages(words, pages, batch, len(batch))",
                "hold_pages(words, pages, counts, batch, len(batch))",
            ),
        ),
        "is held in the balloon, and the host was not told",
    ),
    "no relief": Variant(
        "an allocation fails although the balloon has what it needs",
        "balloon",
        SCENARIOS_BALLOON["relief"],
        (
            Edit(
                "guest.reporting.designs.balloon",
                "def deflate_on_oom(",
                "        most = max(1 << order, OOM_PAGES)\n",
                "        most = 0\n",
            ),
        ),
        "a livelock",
    ),
}
"""By name."""
