"""HyperAlloc's idea: the host takes free frames itself, and the guest installs them again when it allocates them.

The design has nothing to report. It opens a table of 2 MiB frames that guest and host share (frame_table.py), in which
the allocator says what is free as blocks leave and enter it (frames.py), and from which the host takes frames by atomic
changes of their state whenever it likes (taking.py). No queue, no kick, no acknowledgement, no worker: a host that
stops keeps at most one batch of frames from the allocator, and the guest takes others meanwhile.

Prior art, and where this differs:

- HyperAlloc (Wrenger, Raffeck and others, EuroSys '25) shares LLFree's own allocator state, in which the host searches
  and reserves. Here the allocator is Linux's buddy, whose lists no host could safely walk; so the guest keeps one word
  a frame beside it, written only when a whole frame becomes free or is first used.
- There the guest, when it allocates a taken frame, calls the host to install it (an EPT entry must be made for devices'
  DMA, too). Here memory faults in by itself: installing is the change of the word, and is counted.
- There a frame that the host reclaims hard leaves the guest's free memory; here memory is only ever taken softly.
- The table could have been a memory file of its own. It is a part of the arena, on memory pages of its own, since the
  allocator's kernels then need no further array, and an allocator whose table is not kept pays one load and branch.

The price is trust: guest and host must agree on a table that both write (its head says who can harm whom), where a
virtqueue lets each check what the other says. `order` is the frame's, 9; `pace linux`, `oom swap` and the ways to wake
a worker do not fit. `cool_s` does: the host leaves alone what was freed lately.
"""

from typing import ClassVar

from pagetide.guest.allocator.frames import close_table, leave_table, offer_free_frames, open_table, withdraw_frames
from pagetide.guest.allocator.zone import Zone, cool_ticks
from pagetide.guest.allocator.zone_layout import NR_PAGES, NR_VCPUS, RECORD_NOTHING, RECORDING, frame_table_base
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.memory.frame_table import FRAME_ORDER
from pagetide.virtio.balloon import Queue

_FRAMES_A_HOLD = 256


class Shared:
    """Keeps the frame table that the host takes from; see the head of this file."""

    synchronous: ClassVar[bool] = False
    drops_hints: ClassVar[bool] = False
    leftover_blocks_max = 0
    queue = Queue.REPORTING
    due_s = None
    at_rest = True

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone whose frames are to be taken; nothing happens before `start`."""
        self._zone = zone
        self._cool_ticks = cool_ticks(settings.cool_s)

    def start(self, now_s: float) -> None:
        """Have the allocator keep the table, and offer what is free already."""
        words = self._zone.words
        assert words[RECORDING] == RECORD_NOTHING, "one design at a time"
        open_table(words, frame_table_base(int(words[NR_VCPUS])), self._cool_ticks)
        frame = 0 if words[NR_PAGES] >> FRAME_ORDER else -1
        while frame >= 0:
            frame = int(offer_free_frames(words, self._zone.pages, frame, _FRAMES_A_HOLD))

    def stop(self) -> None:
        """Offer nothing any more.

        Frames that the host is discarding at this moment stay out of use until it is done, so then the allocator goes
        on to look at the table.
        """
        words = self._zone.words
        close_table(words)
        frames = int(words[NR_PAGES]) >> FRAME_ORDER
        taking = 0
        for frame in range(0, frames, _FRAMES_A_HOLD):
            taking += int(withdraw_frames(words, frame, _FRAMES_A_HOLD))
        if not taking:
            leave_table(words)

    def woken(self, now_s: float) -> None:
        """Nobody raises WAKE: the zone's reporting order is above every block's."""

    def next_batch(self, now_s: float) -> Batch | None:
        """There is never one: the host takes what it wants."""
        return None

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Refuse: no batch was given out."""
        raise AssertionError("a design that has nothing to report gave out no batch")
