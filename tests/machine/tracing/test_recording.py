"""From a recording to a stream and an account: what real kernels recorded, and what is wrong on purpose."""

from pathlib import Path

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.guest.allocator.zone_layout import MOVABLE, RECLAIMABLE, UNMOVABLE
from pagetide.machine.tracing.recording import THERE_BEFORE, RecordingError, Whose, read_recording
from pagetide.machine.tracing.snapshot import read_snapshot
from pagetide.workload.stream import Mark
from pagetide.workload.stream_file import load_stream, save_stream
from tests.machine.tracing.recorded import LINUX_6_1, LINUX_6_18, load


@pytest.mark.parametrize("path", [LINUX_6_1, LINUX_6_18], ids=["linux-6.1", "linux-6.18"])
@pytest.mark.parametrize("whose", ["all", "others", "family"])
def test_a_recording_is_a_stream(path: Path, whose: Whose, tmp_path: Path) -> None:
    """A stream can be made of a real kernel's events, kept, and read again, whoever's they are."""
    stream, _ = read_recording(load(path).recording, whose)
    stream.check()
    save_stream(stream, tmp_path / "stream")
    again = load_stream(tmp_path / "stream")
    for name, column in stream.columns.items():
        assert np.array_equal(again.columns[name], column), name
    assert again.marks == stream.marks


def test_a_guests_recording_fits_together() -> None:
    """Nothing was lost, nearly each free is of a block as it was allocated, and stretches are those of the guest."""
    stream, account = read_recording(load(LINUX_6_1).recording, "all")
    fit = account.fit
    assert account.lost == account.gaps == fit.overlaps == fit.unmatched == fit.failed == 0
    assert fit.exact > 0.98 * fit.frees
    names = [mark.name for mark in stream.marks]
    assert names == [THERE_BEFORE, "burst 1 of 1: eating", "burst 1 of 1: freed, reporting"]
    eating, freeing = stream.stretches[1:]
    assert eating.allocated_bytes > 4 << 20
    freed = np.count_nonzero(stream.kind[freeing.mark.first :] == FREE)
    assert freed > 1024
    assert account.listed_peak_pages >= account.before.listed_pages


def test_what_was_there_before_is_a_stretch_at_the_beginning() -> None:
    """It is allocated at 0 s, by who frees it."""
    stream, account = read_recording(load(LINUX_6_1).recording, "all")
    assert stream.marks[0] == Mark(0, THERE_BEFORE)
    there = slice(0, stream.marks[1].first)
    assert (stream.kind[there] == ALLOCATE).all()
    assert (stream.at_s[there] == 0).all()
    assert account.fit.there_before == stream.marks[1].first > 0
    assert stream.migratetype is not None
    assert (stream.migratetype[there] == MOVABLE).all(), "nobody knows what it was"


def test_a_family_has_only_its_own() -> None:
    """It has nothing from before, and no more than all others do."""
    recording = load(LINUX_6_18).recording
    everybody, _ = read_recording(recording, "all")
    others, _ = read_recording(recording, "others")
    family, _ = read_recording(recording, "family")
    assert [mark.name for mark in family.marks] == ["sh"]
    assert 0 < family.nr_operations <= others.nr_operations <= everybody.nr_operations


def test_who_frees_is_told() -> None:
    """Some blocks are freed on another processor than the one that allocated them."""
    stream, _ = read_recording(load(LINUX_6_18).recording, "all")
    assert stream.freed_by is not None
    frees = stream.kind == FREE
    assert (stream.freed_by[frees] != stream.vcpu[frees]).any()
    assert (stream.freed_by[~frees] == stream.vcpu[~frees]).all()


def test_what_can_be_moved_is_told() -> None:
    """Most allocations are movable, and some of the kernel's own are not."""
    stream, _ = read_recording(load(LINUX_6_18).recording, "all")
    assert stream.migratetype is not None
    stream.check()
    allocated = stream.migratetype[stream.kind == ALLOCATE]
    assert {MOVABLE, UNMOVABLE} <= set(allocated.tolist()) <= {MOVABLE, UNMOVABLE, RECLAIMABLE}
    assert np.count_nonzero(allocated == MOVABLE) > len(allocated) / 2


def test_a_missing_mark_is_no_recording() -> None:
    """Where a mark found no room nobody knows when the recording ended."""
    recording = load(LINUX_6_18).recording
    with pytest.raises(RecordingError, match=r"^of 3 marks 2 were found"):
        read_recording(recording._replace(marks=("sh", "more", "end")), "all")


def test_what_does_not_fit_is_told() -> None:
    """Lost events, and a processor whose events are missing, are shares above what is accepted."""
    recording = load(LINUX_6_18).recording
    _, account = read_recording(recording, "all")
    assert account.troubles(0.25) == []  # of so short a recording
    assert account._replace(lost=account.events).troubles(0.25) == ["50.0% of the events were lost"]
    marked = recording.cpus == recording.cpus[0]
    with pytest.raises(RecordingError):
        read_recording(recording._replace(pages=recording.pages[~marked], cpus=recording.cpus[~marked]), "all")
    few = account._replace(fit=account.fit._replace(allocated_pages=0))
    assert few.troubles(0.25) == ["100.0% of the pages that the kernel counts as allocated have no event"]


def test_a_snapshot_is_what_the_kernel_said() -> None:
    """Sums over zones and processors, of texts of a real kernel."""
    texts = load(LINUX_6_1).before
    found = read_snapshot(texts)
    assert len(found.free_blocks) == 11
    in_blocks = sum(count << order for order, count in enumerate(found.free_blocks))
    assert in_blocks == pytest.approx(found.free_pages, rel=0.02)
    by_type = np.array([*found.free_by_type.values()]).sum(axis=0)
    assert sum(count << order for order, count in enumerate(by_type.tolist())) == pytest.approx(in_blocks, rel=0.02)
    assert {"Unmovable", "Movable", "Reclaimable"} <= set(found.free_by_type)
    assert 0 < found.listed_pages < found.list_limit_pages * 3
    assert found.allocated_pages > 0
    assert found.freed_pages > found.allocated_pages  # what the kernel freed while it booted was never allocated
