"""What is broken on purpose in `pool`, and in the allocator that keeps blocks apart for it."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS_POOL
from pagetide.explorer.source import Edit

_RUNS = "guest.reporting.runs"

POOL = {
    "a mark that survives an allocation": Variant(
        "a block that is freed has the mark that it had before it was allocated",
        "pool",
        SCENARIOS_POOL["merge"],
        (
            Edit(
                "guest.allocator.page_alloc",
                "def _free_otherwise(",
                "return_block(words, pages, pfn, order, False, False)",
                "return_block(words, pages, pfn, order, False, True)",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "a run reaches into a block in use": Variant(
        "a run goes on behind a block that is in use",
        "pool",
        SCENARIOS_POOL["runs"],
        (
            Edit(_RUNS, "def _last_of_frame(", "((frame + 1) << FRAME_ORDER) - 1 >> words[REPORTING_ORDER]", "3"),
            Edit(_RUNS, "def _run_from(", " and position << smallest == behind", ""),
        ),
        "",
    ),
    "cold before hot": Variant(
        "an allocation takes the smallest block, reported or not",
        "pool",
        SCENARIOS_POOL["runs"],
        (Edit("guest.allocator.buddy", "def take_block(", "_first_unreported(words, pages, order)", "order"),),
        "a reported block is allocated, though an unreported one would do",
    ),
    "a run that is never due": Variant(
        "a single page never gets old enough, and passes go on for ever",
        "pool",
        SCENARIOS_POOL["runs"],
        (Edit(_RUNS, "def _take_runs(", "if worth >= least", "if behind - first > 1 and worth >= least"),),
        "a livelock",
    ),
}
