"""Each of the balloon's queues on a real ring over real memory, and what the host may set."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.config import DeviceConfig
from pagetide.host.device.queues.element import TURN_PUNCHES_MAX
from pagetide.host.device.queues.hinting import CMD_ID_FIRST
from pagetide.host.device.queues.inflate import PFNS_MAX
from pagetide.host.device.queues.statistics import STATISTICS_BYTES_MAX, decode_statistics
from pagetide.host.device.queues.turn import NOTHING
from pagetide.host.device.state import DeviceState
from pagetide.virtio.balloon import (
    CMD_ID_DONE,
    CMD_ID_STOP,
    CONFIG_ACTUAL,
    CONFIG_POISON_VAL,
    STAT,
    Config,
    Feature,
    Queue,
    Stat,
)
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.queue_rig import BUFFER_PAGES, QueueRig
from tests.host.guest_ring import GPA, PAGE, RING_PAGES

FREE = RING_PAGES + BUFFER_PAGES
"""The first page that tests may give away."""


def config_of(rig: QueueRig) -> Config:
    """The configuration space, decoded."""
    return rig.device.config.fields


def test_inflated_pages_are_gone_before_the_acknowledgement() -> None:
    """Pages in any order are joined, discarded and verified; deflating them counts, and they are memory again."""
    with QueueRig(Queue.INFLATE) as rig:
        rig.put_pfns([FREE + 3, FREE + 1, FREE + 2, FREE + 9])
        rig.process()
        assert rig.used() == 1
        gone = {FREE + 1, FREE + 2, FREE + 3, FREE + 9}
        assert rig.guest.resident_pages() == set(range(256)) - gone
        assert rig.word("inflate_verified_bytes") == rig.word("inflate_reported_bytes") == 4 * PAGE
        assert (rig.word("inflate_punches"), rig.word("reported_bytes")) == (2, 0)
        rig.guest.refill()
        assert rig.guest.resident_pages() == set(range(256))


def test_a_turn_ends_when_it_has_discarded_often_enough() -> None:
    """Elements of scattered pages end a turn before its budget is used up; the rest waits for the next one."""
    with QueueRig(Queue.INFLATE, pages=FREE + 2 * PFNS_MAX) as rig:
        elements = TURN_PUNCHES_MAX // PFNS_MAX + 2
        for _ in range(elements):
            rig.put_pfns([FREE + 2 * n for n in range(PFNS_MAX)])
        assert rig.process(elements).more
        assert rig.used() == elements - 2
        assert rig.word("inflate_punches") == TURN_PUNCHES_MAX
        assert not rig.process(elements).more
        assert rig.used() == 2


def test_deflated_pages_are_counted_and_not_touched() -> None:
    """The deflate queue acknowledges; what lies outside of memory is told apart."""
    with QueueRig(Queue.DEFLATE) as rig:
        rig.put_pfns([FREE, FREE + 1, 1 << 20])
        turn = rig.process()
        assert turn.in_vain == pytest.approx(1 / 3, abs=0.01)
        assert turn.reports == 0
        assert rig.used() == 1
        assert rig.guest.resident_pages() == set(range(256))
        assert rig.word("deflate_reported_bytes") - rig.word("deflate_skipped_out_of_range_bytes") == 2 * PAGE


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(-300, 600), min_size=1, max_size=40), min_size=1, max_size=4))
def test_inflating_any_pages_frees_those_of_the_guest_only(elements: list[list[int]]) -> None:
    """Whatever numbers an element holds: named pages of RAM are gone, everything else is there, the account adds up."""
    with QueueRig(Queue.INFLATE) as rig:
        for number, pages in enumerate(elements):
            pages[:] = [page for page in pages if not 0 <= page < FREE]  # not the ring itself
            data = np.array([(GPA // PAGE + page) & 0xFFFF_FFFF for page in pages], "<u4").tobytes()
            if data:
                rig.put(data, offset=number * 512)
                rig.process()
                assert rig.used() == 1
        named = {page for pages in elements for page in pages}
        assert rig.guest.resident_pages() == set(range(256)) - named
        told = rig.device.ledger.snapshot()
        skipped = sum(value for name, value in told.items() if name.startswith("inflate_skipped"))
        assert told["inflate_reported_bytes"] == told["inflate_discarded_bytes"] + skipped
        assert told["inflate_reported_bytes"] == PAGE * sum(len(pages) for pages in elements)
        assert told["inflate_verified_bytes"] == told["inflate_discarded_bytes"]


@pytest.mark.parametrize("kind", [Queue.INFLATE, Queue.DEFLATE])
@pytest.mark.parametrize(
    ("gpa", "length_bytes", "writable"),
    [
        (GPA + RING_PAGES * PAGE, 64, True),
        (GPA + RING_PAGES * PAGE, 63, False),
        (GPA + RING_PAGES * PAGE, 4 * (PFNS_MAX + 1), False),
        (GPA + 255 * PAGE, 2 * PAGE, False),
        (0, 64, False),
        ((1 << 63) - 4, 64, False),
        (GPA + RING_PAGES * PAGE, 0, False),
    ],
)
def test_what_is_no_array_of_pages_is_counted_as_malformed(
    kind: Queue, gpa: int, length_bytes: int, writable: bool
) -> None:
    """Writable, odd, too long, outside, empty: acknowledged, counted, and nothing is discarded."""
    with QueueRig(kind) as rig:
        rig.add([(gpa, length_bytes)], writable=writable)
        rig.process()
        assert rig.used() == 1
        name = kind.name.lower()
        assert rig.word(f"{name}_malformed") == 1
        assert rig.word(f"{name}_reported_bytes") == rig.word(f"{name}_discarded_bytes") == 0
        assert rig.guest.resident_pages() == set(range(256))


@pytest.mark.parametrize("kind", [Queue.INFLATE, Queue.REPORTING])
def test_an_inhibited_guest_keeps_its_memory(kind: Queue) -> None:
    """Inhibited, both queues acknowledge and discard nothing; afterwards they discard again."""
    with QueueRig(kind) as rig:
        account = "inflate_" if kind is Queue.INFLATE else ""
        for inhibited, skipped, discarded in ((True, 1, 0), (False, 1, 1)):
            rig.device.inhibited = inhibited
            if kind is Queue.INFLATE:
                rig.put_pfns([FREE])
            else:
                rig.add([(GPA + FREE * PAGE, PAGE)], writable=True)
            rig.process()
            assert rig.used() == 1
            assert rig.word(f"{account}skipped_inhibited_bytes") == skipped * PAGE
            assert rig.word(f"{account}discarded_bytes") == discarded * PAGE
            assert len(rig.guest.resident_pages()) == 256 - discarded


@pytest.mark.parametrize("negotiated", [True, False])
def test_poisoned_reports_are_left_alone(negotiated: bool) -> None:
    """A poison value counts with PAGE_POISON only, and only while it is not 0."""
    features = int(FEATURES if negotiated else FEATURES & ~Feature.PAGE_POISON)
    with QueueRig(Queue.REPORTING, features=features) as rig:
        for n, poison in enumerate((b"\xaa" * 4, bytes(4))):
            rig.device.config.write(CONFIG_POISON_VAL, poison)
            rig.add([(GPA + (FREE + n) * PAGE, PAGE)], writable=True)
            rig.process()
            assert rig.used() == 1
            assert (FREE + n in rig.guest.resident_pages()) == (negotiated and any(poison))
        assert rig.word("skipped_poisoned_bytes") == negotiated * PAGE


@pytest.mark.parametrize(("left", "discards"), [(None, False), (0xAAAAAAAA, False), (0, True)])
def test_a_driver_of_another_device_may_have_poisoned_its_pages(left: int | None, discards: bool) -> None:
    """A queue that goes on at another's place: what that device was told counts, and unknown is as bad as poison."""
    with QueueRig(Queue.REPORTING) as rig:
        for _ in range(2):
            rig.add([(GPA + FREE * PAGE, PAGE)], writable=True)
            rig.process()
        base = rig.device.queues.stop(rig.index)
        assert base == 2
        successor = BalloonDevice(rig.memory, rig.device.ledger)
        assert not successor.take_over(DeviceState(7, left, CMD_ID_STOP, CMD_ID_FIRST + 3))
        assert successor.config.fields.actual == 7
        successor.start_queue(rig.index, rig.guest.queue_place, base, int(FEATURES))
        rig.add([(GPA + (FREE + 1) * PAGE, PAGE)], writable=True)
        successor.process(rig.index, 16)
        assert (FREE + 1 not in rig.guest.resident_pages()) == discards
        assert successor.state == DeviceState(7, left, CMD_ID_STOP, CMD_ID_FIRST + 3)
        successor.queues.stop(rig.index)
        successor.reset()
        successor.start_queue(rig.index, rig.guest.queue_place, base + 1, int(FEATURES))
        successor.config.write(CONFIG_POISON_VAL, bytes(4))
        rig.add([(GPA + (FREE + 2) * PAGE, PAGE)], writable=True)
        successor.process(rig.index, 16)
        assert FREE + 2 not in rig.guest.resident_pages()


def test_who_finishes_serves_what_was_there() -> None:
    """What comes after that stays in the ring, however often the queue is served, and is there for a successor."""
    with QueueRig(Queue.REPORTING) as rig:
        for n in range(3):
            rig.add([(GPA + (FREE + n) * PAGE, PAGE)], writable=True)
        rig.device.process(rig.index, 2)
        rig.device.queues.finish()
        for n in range(3, 5):
            rig.add([(GPA + (FREE + n) * PAGE, PAGE)], writable=True)
        rig.process()
        assert rig.process() == NOTHING
        assert rig.used() == 3
        assert rig.guest.resident_pages() == set(range(256)) - set(range(FREE, FREE + 3))
        assert rig.device.queues.stop(rig.index) == 3


def test_a_paused_device_leaves_reports_in_the_ring() -> None:
    """Paused, nothing is acknowledged or discarded; unpaused, everything is, without another kick."""
    with QueueRig(Queue.REPORTING) as rig:
        rig.device.paused = True
        for n in range(3):
            rig.add([(GPA + (FREE + n) * PAGE, PAGE)], writable=True)
            assert not rig.process().more
        assert rig.used() == 0
        assert rig.guest.resident_pages() == set(range(256))
        rig.device.paused = False
        rig.process()
        assert rig.used() == 3
        assert rig.word("verified_bytes") == rig.word("reported_bytes") == 3 * PAGE


def stats(**figures: int) -> bytes:
    """A buffer of statistics."""
    return b"".join(STAT.pack(Stat[name.upper()], value) for name, value in figures.items())


def test_statistics_are_asked_for_by_giving_the_buffer_back() -> None:
    """The first buffer is kept; each request gives it back once, and its new content is read when it comes again."""
    with QueueRig(Queue.STATS) as rig:
        rig.guest.driver.arm_call()
        assert rig.device.request_statistics() == (rig.index, NOTHING)
        rig.put(stats(memfree=5, memtot=1 << 40))
        rig.process()
        assert rig.used() == 0
        assert rig.device.statistics == {"memfree": 5, "memtot": 1 << 40}
        asked = rig.device.request_statistics()
        assert asked is not None
        assert asked[1].call
        assert rig.device.request_statistics() == (rig.index, NOTHING)
        assert rig.used() == 1
        rig.put(stats(memfree=6))
        rig.process()
        assert rig.device.statistics == {"memfree": 6}
        assert rig.word("statistics") == 2


def test_a_kept_buffer_survives_a_restart_of_the_queue() -> None:
    """A device that takes the queue over takes the buffer, too: it was not given back."""
    with QueueRig(Queue.STATS) as rig:
        rig.put(stats(memfree=5))
        rig.process()
        rig.restart()
        rig.process()
        assert rig.used() == 0
        assert rig.device.statistics == {"memfree": 5}
        rig.device.request_statistics()
        assert rig.used() == 1


def test_a_second_statistics_buffer_replaces_the_first() -> None:
    """A driver that puts in two gets the older one back, so none is lost."""
    with QueueRig(Queue.STATS) as rig:
        for n in range(2):
            rig.put(stats(memfree=n), offset=n * PAGE)
        rig.process()
        assert rig.used() == 1
        assert rig.device.statistics == {"memfree": 1}


@given(st.binary(max_size=2 * STATISTICS_BYTES_MAX))
def test_any_bytes_are_statistics_or_nothing(data: bytes) -> None:
    """Unknown tags and a torn entry are left out; every value is what its last entry says."""
    entries = [STAT.unpack_from(data, at) for at in range(0, len(data) - STAT.size + 1, STAT.size)]
    known = {tag.value: tag.name.lower() for tag in Stat}
    assert decode_statistics(data) == {known[tag]: value for tag, value in entries if tag in known}


def test_a_hinting_round_runs_from_its_command_to_the_stop() -> None:
    """The id is announced, hints count and stay, and the stop ends the round with CMD_ID_DONE."""
    with QueueRig(Queue.FREE_PAGE) as rig:
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_STOP
        rig.device.begin_hinting()
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_FIRST
        rig.put(CMD_ID_FIRST.to_bytes(4, "little"))
        for n in range(2):
            rig.add([(GPA + (FREE + 64 * n) * PAGE, 64 * PAGE)], writable=True)
        turn = rig.process()
        assert (turn.config_changed, turn.in_vain) == (False, 0.0)
        rig.put(CMD_ID_STOP.to_bytes(4, "little"))
        assert rig.process().config_changed
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_DONE
        assert rig.used() == 4
        assert (rig.word("hints"), rig.word("hinted_bytes"), rig.word("hints_stale")) == (2, 128 * PAGE, 0)
        assert rig.guest.resident_pages() == set(range(256))
        rig.device.begin_hinting()
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_FIRST + 1


def test_a_round_ends_with_its_device_or_its_driver() -> None:
    """A reset ends a round; a successor has the driver take its pages back; ids are not used twice."""
    with QueueRig(Queue.FREE_PAGE) as rig:
        rig.device.begin_hinting()
        successor = BalloonDevice(rig.memory, rig.device.ledger)
        assert successor.take_over(rig.device.state)
        assert successor.config.fields.free_page_hint_cmd_id == CMD_ID_DONE
        successor.begin_hinting()
        assert successor.config.fields.free_page_hint_cmd_id == CMD_ID_FIRST + 1
        rig.device.queues.stop(rig.index)
        rig.device.reset()
        assert not rig.device.hinting
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_STOP
        rig.device.begin_hinting()
        assert config_of(rig).free_page_hint_cmd_id == CMD_ID_FIRST + 1


@pytest.mark.parametrize("command", [b"", b"\1", (7).to_bytes(4, "little"), bytes(4)])
def test_hints_outside_a_round_are_stale(command: bytes) -> None:
    """Without the round's own id hints mean nothing; they are acknowledged all the same, and the round goes on."""
    with QueueRig(Queue.FREE_PAGE) as rig:
        rig.device.begin_hinting()
        if command:
            rig.put(command)
        rig.add([(GPA + FREE * PAGE, PAGE)], writable=True)
        turn = rig.process()
        assert (turn.config_changed, turn.in_vain) == (False, 1.0)
        assert rig.used() == 1 + bool(command)
        assert (rig.word("hints"), rig.word("hints_stale")) == (0, 1)


def test_the_target_is_what_the_guest_may_keep() -> None:
    """A target of memory becomes a number of pages in the balloon; the guest's whole memory, or more, empties it."""
    with QueueRig(Queue.INFLATE) as rig:
        assert rig.device.ram_bytes == 256 * PAGE
        rig.device.set_target_bytes(200 * PAGE)
        assert config_of(rig).num_pages == 56
        rig.device.set_target_bytes(256 * PAGE)
        assert config_of(rig).num_pages == 0
        rig.device.set_target_bytes(1 << 40)
        assert config_of(rig).num_pages == 0
        with pytest.raises(ValueError, match="cannot keep"):
            rig.device.set_target_bytes(-1)
        with pytest.raises(ValueError, match="from 0 to"):
            rig.device.config.set_num_pages(1 << 32)


@pytest.mark.parametrize("oom", [True, False])
def test_a_guest_that_has_less_than_it_shares_is_asked_for_no_more(oom: bool) -> None:
    """The guest's own total and what is populated decide; what else is shared is a virtio-mem device's, not plugged."""
    mib = 1 << 20
    features = FEATURES & ~Feature.DEFLATE_ON_OOM | (Feature.DEFLATE_ON_OOM if oom else 0)
    with QueueRig(Queue.STATS, features=int(features)) as rig:
        big_fd = os.memfd_create("virtio-mem")
        os.truncate(big_fd, 8 << 30)
        rig.memory.add(MemoryRegion(1 << 40, 8 << 30, 1 << 40, 0), os.dup(big_fd))
        assert rig.device.ram_bytes == 256 * PAGE
        assert rig.device.target.shared_bytes == (8 << 30) + 256 * PAGE
        rig.device.set_target_bytes(200 * PAGE)
        assert config_of(rig).num_pages == 56
        # 1 GiB is plugged, the guest touches a quarter of it, and its kernel keeps some for itself.
        os.posix_fallocate(big_fd, 0, 256 * mib)
        own_bytes = 1000 * mib
        rig.device.config.write(4, (100 * mib // PAGE).to_bytes(4, "little"))
        rig.put(stats(memtot=own_bytes - (0 if oom else 100 * mib)))
        turn = rig.process()
        assert turn.config_changed, "the target holds for the memory that it has now"
        assert rig.device.ram_bytes == own_bytes
        assert config_of(rig).num_pages == own_bytes // PAGE - 200
        rig.device.set_target_bytes(0)
        assert config_of(rig).num_pages == own_bytes // PAGE
        os.close(big_fd)


def test_a_reset_forgets_what_the_driver_set() -> None:
    """`actual`, the poison value and the statistics go; what the host wants stays."""
    with QueueRig(Queue.STATS) as rig:
        rig.device.config.set_num_pages(3)
        rig.device.config.write(0, b"\x01" * 16)
        rig.put(stats(memfree=5))
        rig.process()
        rig.device.queues.stop(rig.index)
        rig.device.reset()
        assert config_of(rig) == Config(num_pages=3)
        assert rig.device.statistics == {}


def test_a_queue_that_begins_anew_has_another_driver() -> None:
    """A guest that was reset, and nobody said so: its balloon is empty, and no round of hints is under way."""
    with QueueRig(Queue.INFLATE) as rig:
        rig.put_pfns([FREE])
        rig.process()
        rig.device.config.write(CONFIG_ACTUAL, (1).to_bytes(4, "little"))
        rig.device.begin_hinting()
        rig.restart()
        told = config_of(rig)
        assert (told.actual, told.free_page_hint_cmd_id) == (1, CMD_ID_FIRST), "it went on"
        rig.device.config.write(CONFIG_POISON_VAL, (0xAA).to_bytes(4, "little"))
        rig.device.queues.stop(rig.index)
        rig.guest.reset_driver()
        rig.device.start_queue(rig.index, rig.guest.queue_place, 0, int(FEATURES))
        assert config_of(rig) == Config(poison_val=0xAA), "which the new driver writes before it starts its queues"
        assert not rig.device.hinting


@pytest.mark.parametrize(("poison", "known"), [(0, False), (0xAA, True)])
def test_a_poison_value_that_is_written_back_amid_others_tells_nothing(poison: int, known: bool) -> None:
    """QEMU writes the whole space for each field: what its driver once told a killed daemon is still not known."""
    config = DeviceConfig()
    config.served_before()
    config.write(0, Config(num_pages=3, actual=5, poison_val=poison).encode())
    assert (config.fields.actual, config.poison_known) == (5, known)
    config.write(CONFIG_POISON_VAL, poison.to_bytes(4, "little"))
    assert config.poison_val == poison
