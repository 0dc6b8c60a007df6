"""Each part of the soak can fail: a bug that is planted is found, and the same trials find nothing without it."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64, encode_mem_table
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from soak import messages, stamps
from soak.abandoned import Abandoned
from soak.children import PAGETIDE
from soak.daemons import ReadDaemon, ReadLog, Sentences
from soak.explored import Explored
from soak.honest import HonestGuest
from soak.kills import Kills
from soak.message_mutations import Step, message, start_of
from soak.messages import Hostile, Messages
from soak.part import BrokenError, CutShortError, Part
from soak.rings import Rings
from tests.host.guest.test_hostile_messages import FEATURES, SHARED, WHOLE
from tests.host.guest_ring import PAGE

pytestmark = [pytest.mark.slow, pytest.mark.jit]

STATISTICS_OVER_USED = 1362368195
"""A soak's seed with a statistics buffer over the used ring, which reads what the device has just written."""
LONG_S = 3600.0
"""More than all trials of a test take."""


def try_seeds(part: Part, seeds: range) -> tuple[Counter[str], int]:
    """Try seeds until one breaks something; what was reached, and how many were tried."""
    reached: Counter[str] = Counter()
    with part.session(reached, time.monotonic() + LONG_S) as trial:
        for seed in seeds:
            trial(seed)
    return reached, len(seeds)


def test_a_region_map_that_lets_a_range_cross_is_found() -> None:
    """Rings: a device that takes a region for a page longer; a right one passes, and most errors are reached."""
    reached, _ = try_seeds(Rings(), range(3000))
    assert len(reached.keys() & Rings().paths()) > 60
    try_seeds(Rings(), range(STATISTICS_OVER_USED, STATISTICS_OVER_USED + 1))
    with pytest.raises(BrokenError, match=r"memory differs|counts"):
        try_seeds(Rings(broken=True), range(3000))


OUT_OF_MEMORY: dict[str, Any] = {
    "outcome": "the guest stopped: it ran out of memory", "false_ooms": 0, "stamp_errors": 0,
    "checked_bytes": 8192, "verified_bytes": 8192,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "is_true"),
    [
        ({}, True),
        ({"outcome": "the guest stopped: it found another's stamp"}, False),
        ({"outcome": None}, False),
        ({"false_ooms": 1}, False),
        ({"stamp_errors": 1}, False),
        ({"verified_bytes": 4096}, False),
    ],
)
def test_a_run_out_of_memory_is_no_bug_unless_something_else_was_wrong(changes: dict[str, Any], is_true: bool) -> None:
    """Stamps: `small` may want more than there is; not if what was out would have helped, or anything was amiss."""
    assert stamps._is_true_oom({**OUT_OF_MEMORY, **changes}) == is_true


def test_a_run_without_a_result_is_a_bug() -> None:
    """Stamps: a run that failed, and wrote nothing, did not run out of memory."""
    assert not stamps._is_true_oom({})


def _daemon_of(monkeypatch: pytest.MonkeyPatch) -> list[ReadDaemon]:
    """The daemons that are started from here on."""
    made: list[ReadDaemon] = []

    class Kept(ReadDaemon):
        def __init__(self, folder: Path, log: ReadLog, *options: str) -> None:
            super().__init__(folder, log, *options)
            made.append(self)

    monkeypatch.setattr(messages, "ReadDaemon", Kept)
    return made


def test_hostile_messages_reach_refusals() -> None:
    """Messages: nothing breaks, and the log shows what was refused."""
    reached, _ = try_seeds(Messages(), range(60))
    assert len(reached.keys() & Messages().paths()) > 15
    assert reached["honest reports verified beside"] >= 60


def test_memory_that_was_not_shared_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages: a guest that does share its canaries, and reports them, loses them: that is seen, if not known."""
    script: list[Step] = [
        message(Request.SET_PROTOCOL_FEATURES, U64.pack(int(PROTOCOL_FEATURES)), 0),
        message(Request.SET_FEATURES, U64.pack(FEATURES)),
        message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE, SHARED]))._replace(kinds=["ram", "ram"]),
        *start_of(4),
    ]

    def write_ring(ram_fd: int, seed: int) -> None:
        os.pwrite(ram_fd, messages.CANARY, 0)
        at = len(messages.CANARY)
        os.pwrite(ram_fd, SHARED.gpa.to_bytes(8, "little") + (PAGE).to_bytes(4, "little") + b"\2\0\0\0", at)
        os.pwrite(ram_fd, b"\0\0\1\0\0\0", at + 0x200)

    monkeypatch.setattr(messages, "hostile_script", lambda rng: script)
    monkeypatch.setattr(messages, "write_ring", write_ring)
    try_seeds(Messages(), range(2))
    monkeypatch.setattr(messages, "shares_canary", lambda script: False)
    monkeypatch.setattr(messages, "_REPLY_S", 0.5)
    with pytest.raises(BrokenError, match="outside of the guest's regions"):
        try_seeds(Messages(), range(5))


def _play_and(monkeypatch: pytest.MonkeyPatch, then: Callable[[Hostile], object]) -> None:
    """Have the hostile guest do this, too."""

    def play(self: Hostile, script: list[Step]) -> None:
        right(self, script)
        then(self)

    right = Hostile.play
    monkeypatch.setattr(Hostile, "play", play)


def test_a_daemon_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages: one that a message has ended."""
    made = _daemon_of(monkeypatch)

    def end(_: Hostile) -> None:
        made[0].process.kill()
        made[0].process.wait()

    _play_and(monkeypatch, end)
    with pytest.raises(BrokenError, match="the daemon ended"):
        try_seeds(Messages(), range(1))


def test_a_descriptor_that_is_left_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages: the daemon holds what a guest gave after that has gone."""
    kept = []
    right = Hostile.__exit__
    monkeypatch.setattr(messages, "_GONE_MAX_S", 1.0)
    monkeypatch.setattr(Hostile, "__exit__", lambda self, *_: kept.append(self))
    monkeypatch.setattr(Hostile, "play", lambda self, script: self._sock.connect(str(self._folder / "two.sock")))
    try:
        with pytest.raises(BrokenError, match="descriptors are left open"):
            try_seeds(Messages(), range(1))
    finally:
        for hostile in kept:
            right(hostile, None, None, None)


def test_an_error_of_ours_in_the_log_is_noticed() -> None:
    """Messages and kills: a line that asks to report it."""
    log = ReadLog(Sentences([]), Counter())
    log.take('level=info event="attached"')
    log.check()
    log.take('level=error event="an error in pagetide, please report it"')
    with pytest.raises(BrokenError, match="please report it"):
        log.check()


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_the_honest_guest_looks_at_its_memory(harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages and kills: a page that goes without a report, or changes; one that was just reported is there again."""
    made: list[HonestGuest] = []

    class Kept(HonestGuest):
        def __init__(self, path: Path, seed: int) -> None:
            super().__init__(path, seed)
            made.append(self)

    monkeypatch.setattr(messages, "HonestGuest", Kept)

    def harmed(_: Hostile) -> None:
        ram = made[0].guest.ring.ram
        for page in range(20, 128):
            if harm == "gone":
                os.pwrite(ram.fd, bytes(PAGE), page * PAGE)
            else:
                os.pwrite(ram.fd, b"harm", page * PAGE)

    _play_and(monkeypatch, harmed)
    with pytest.raises(BrokenError, match=r"not what was written|gone, and were not reported|are still there"):
        try_seeds(Messages(), range(20))


def test_guests_that_a_killed_daemon_loses_are_noticed() -> None:
    """Kills: under a service manager that keeps nothing; under one that does, and in take-overs, nothing is lost."""
    part = Kills()
    ways = {path for path in part.paths() if ", a report " in path}
    reached, _ = try_seeds(part, range(4))
    assert len({path.partition(",")[0] for path in ways & reached.keys()}) >= 2
    with pytest.raises(BrokenError, match="connection was closed"):
        try_seeds(Kills(keeps=False), range(6))


IDX_FIRST = """
from soak import abandoned
from pagetide.virtio.split_ring import device
from tests.host.device.test_takeover_steps import _flags_first
import pagetide.host.device.queues.turn as turn
if {planted}:
    turn.publish_used = _flags_first
abandoned.main()
"""


@pytest.mark.parametrize("planted", [False, True])
def test_a_wrong_order_of_stores_is_caught(planted: bool) -> None:
    """Abandoned: flags that are cleared before the ring says so lose an element at some death."""
    part = Abandoned([sys.executable, "-c", IDX_FIRST.format(planted=planted)])
    if planted:
        with pytest.raises(BrokenError):
            try_seeds(part, range(300))
    else:
        reached, _ = try_seeds(part, range(60))
        assert len(reached.keys() & part.paths()) >= 6


VARIANT = """
import sys
from pagetide import cli
from pagetide.commands import explore
from pagetide.explorer.broken.variants import VARIANTS
right, variant = explore.Explorer, VARIANTS[{name!r}]
explore.Explorer = lambda design, scenario, edits=(): right(design, variant.scenario, {edits})
sys.exit(cli.main())
"""


def test_a_broken_design_is_caught() -> None:
    """Explorer: a design with a bug in it; one that is right is explored to its end."""
    name = "isolate without the lock"
    part = Explored()
    seed = part.units.index(("--design", "cursor", "--scenario", "start"))
    reached, _ = try_seeds(part, range(seed, seed + 1))
    assert reached["cursor, start"] == 1
    part = Explored([sys.executable, "-c", VARIANT.format(name=name, edits="variant.edits")])
    with pytest.raises(BrokenError, match="cursor, start"):
        try_seeds(part, range(seed, seed + 1))


PUNCH_MORE = """
import pagetide.host.memory.punch as module
right = module.punch_hole
module.punch_hole = lambda fd, offset_bytes, length_bytes: right(
    fd, offset_bytes, length_bytes + 4096 * (1 << 20 < offset_bytes < 16 << 20)
)
"""


@pytest.mark.parametrize("planted", [False, True])
def test_a_host_that_discards_too_much_is_caught(
    planted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stamps: a hole that ends a page too late takes memory that is in use (not the guest's ring)."""
    options = ["--workload", "churn", "--design", "notify", "--ram", "32MiB", "--duration", "2", "--rate", "2000"]
    monkeypatch.setattr(stamps, "options_of", lambda seed: [*options, "--order", "2"])
    (tmp_path / "sitecustomize.py").write_text(PUNCH_MORE if planted else "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    if planted:
        with pytest.raises(BrokenError, match="stamps were wrong"):
            try_seeds(stamps.Stamps(), range(1))
    else:
        reached, _ = try_seeds(stamps.Stamps(), range(1))
        assert reached["design notify"] == 1


def test_what_takes_longer_than_there_is_time_is_cut_short() -> None:
    """A run that has not ended when the soak has shows nothing, and leaves no process."""
    with stamps.Stamps([*PAGETIDE]).session(Counter(), 0.0) as trial, pytest.raises(CutShortError):
        trial(1)
