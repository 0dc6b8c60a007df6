"""What is broken on purpose in the guest: its allocator, and its designs."""

from pagetide.explorer.broken.variant import LOCKED, UNLOCKED, Variant, without_lock
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import Edit

_ZONE = SCENARIOS["zone"]
_START = SCENARIOS["start"]

GUEST = {
    "put back without the lock": Variant(
        "blocks are put back without the zone lock",
        "cursor",
        _START,
        without_lock("guest.allocator.isolate", "put_back"),
        "",
    ),
    "isolate without the lock": Variant(
        "blocks are isolated without the zone lock",
        "cursor",
        _START,
        without_lock("guest.allocator.by_position", "take_candidates"),
        "",
    ),
    "drained without the zone lock": Variant(
        "a per-CPU list is given back under its own lock alone",
        "cursor",
        SCENARIOS["drain"],
        without_lock("guest.allocator.pcp", "_drain"),
        "",
    ),
    "another's list drained without its lock": Variant(
        "an allocation that fails drains every vCPU's list, whatever its owner does with it",
        "cursor",
        SCENARIOS["drain"],
        (
            Edit("guest.allocator.pcp", "def pcp_drain(", "    lock(words, base + PCP_LOCK)\n", ""),
            Edit("guest.allocator.pcp", "def pcp_drain(", "    unlock(words, base + PCP_LOCK)\n", ""),
        ),
        "a loop does not end",
    ),
    "a list of another order": Variant(
        "blocks of every order go to the list of single pages, and come from it",
        "cursor",
        SCENARIOS["lists"],
        (Edit("guest.allocator.pcp", "def list_of(", "return min(order, NR_LISTS - 1) & _NOT_NEGATIVE", "return 0"),),
        "the zone is not sound",
    ),
    "an order that is not drained": Variant(
        "a drain ends when the list of single pages is empty",
        "cursor",
        SCENARIOS["lists"],
        (
            Edit(
                "guest.allocator.pcp",
                "def pcp_drain(",
                "while words[base + PCP_COUNT] > 0:",
                "while words[base + PCP_LISTS + OLDEST] < words[base + PCP_LISTS + END]:",
            ),
        ),
        "a false OOM",
    ),
    "marked on its list": Variant(
        "a block that is freed to a list is taken for one that was reported before",
        "cursor",
        SCENARIOS["lists"],
        (Edit("guest.allocator.pcp", "def pcp_return(", "PCP | order", "PCP | REPORTED | order"),),
        "is marked Reported and was not discarded",
    ),
    "marked with its buddy": Variant(
        "a reported block that merges with an unreported one keeps its mark",
        "cursor",
        SCENARIOS["merge"],
        (
            Edit(
                "guest.allocator.buddy",
                "def return_block(",
                " and pages[buddy * RECORD_WORDS + STATE] & REPORTED != 0",
                "",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "halves marked": Variant(
        "the halves of an unreported block are marked when it is split",
        "cursor",
        _ZONE,
        (Edit("guest.allocator.lists.taking", "def _split(", "bool(found & REPORTED) and ", ""),),
        "is marked Reported and was not discarded",
    ),
    "allocated meanwhile": Variant(
        "the lock is given up between finding a block and isolating it",
        "cursor",
        _START,
        (
            Edit(
                "guest.allocator.by_position",
                "def isolate_at(",
                "    outcome = isolate_block(",
                f"{UNLOCKED}{LOCKED}    outcome = isolate_block(",
            ),
        ),
        "",
    ),
    "request lost at the end of a pass": Variant(
        "a pass looks for what is left first, and then ends without a look at what was requested meanwhile",
        "notify",
        _ZONE,
        (
            Edit(
                "guest.allocator.request",
                "def end_pass(",
                "return atomic_compare_exchange(words, REQUEST, REQUEST_ACTIVE, REQUEST_IDLE) == REQUEST_REQUESTED",
                "return atomic_exchange(words, REQUEST, REQUEST_IDLE) == REQUEST_IDLE",
            ),
            Edit(
                "guest.reporting.passes",
                "def _end_pass(",
                "again, left = bool(end_pass(self._zone.words)), self._left()",
                "left, again = self._left(), bool(end_pass(self._zone.words))",
            ),
        ),
        "never reported",
    ),
    "a failed report is forgotten": Variant(
        "a report fails, and nothing asks for another pass",
        "scan",
        SCENARIOS["full"],
        (
            Edit(
                "guest.reporting.passes",
                "def done(",
                "            self._end_pass(now_s)",
                "            self._schedule.due_s, self._in_pass = None, False",
            ),
        ),
        "never reported",
    ),
    "marked although it failed": Variant(
        "blocks whose report failed go back with the Reported mark",
        "scan",
        SCENARIOS["full"],
        (
            Edit(
                "guest.reporting.passes",
                "def take_back(",
                "put_back(self._zone.words, self._zone.pages, batch, len(batch), reported)",
                "put_back(self._zone.words, self._zone.pages, batch, len(batch), True)",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "switched on without a look": Variant(
        "a design that is switched on again does not record what became free meanwhile",
        "notify",
        SCENARIOS["switch"],
        (Edit("guest.reporting.designs.notify", "def start(", "        record_all_free(self._zone)\n", ""),),
        "never reported",
    ),
    "reported before it is cool": Variant(
        "a freed block does not say since when it is free",
        "scan",
        SCENARIOS["cool"],
        (Edit("guest.allocator.buddy", "def return_block(", "words[TICK]", "0"),),
        "too early",
    ),
    "young blocks are swept once": Variant(
        "what was too young when the sweep came by is not swept again",
        "notify-array",
        SCENARIOS["cool"],
        (Edit("guest.reporting.hint_arrays", "def begin_again(", "if self._met_young:", "if False:"),),
        "never reported",
    ),
}
"""By name."""
