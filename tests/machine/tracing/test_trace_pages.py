"""Reading pages of the kernel's ring buffer, judged by the kernel's own text of the same events."""

import re

import numpy as np
import pytest

from pagetide.machine.tracing.formats import ALLOC, EVENTS, FORK, FREE, MARK, REFILL, FormatError, read_layout
from pagetide.machine.tracing.pages import BrokenPageError, read_events
from tests.machine.tracing.recorded import LINUX_6_1, LINUX_6_18, load

LINE = re.compile(r"^.{16}-(\d+) +\[(\d+)\] (.)\S(.)\S+ +(\d+\.\d{6}): (\w+): (.*)$", re.MULTILINE)
KINDS = {"tracing_mark_write": MARK} | {name.partition("/")[2]: kind for kind, name in EVENTS.items()}


def in_kernels_words(text: str) -> list[tuple[int, ...]]:
    """Microsecond, kind, processor, process, value and order of each event, and the migratetype of an allocation."""
    found: list[tuple[int, ...]] = []
    for pid, cpu, _, _, at_s, name, rest in LINE.findall(text):
        value = re.search(r"pfn=0x([0-9a-f]+)|child_pid=(\d+)", rest)
        number = -1 if value is None else int(value[1], 16) if value[1] else int(value[2])
        order = re.search(r"order=(\d+)", rest)
        kind, migratetype = KINDS[name], re.search(r"migratetype=(\d+)", rest)
        its_type = int(migratetype[1]) if migratetype and kind == ALLOC else 0
        at_us, its_order = round(float(at_s) * 1e6), int(order[1]) if order else 0
        found.append((at_us, kind, int(cpu), int(pid), number, its_order, its_type))
    return found


def test_events_are_those_of_the_kernels_text() -> None:
    """Each event of a real kernel's buffer is read as the kernel itself tells it, in the same order of time."""
    recorded = load(LINUX_6_18)
    events, gaps = read_events(recorded.pages, recorded.cpus, read_layout(recorded.formats))
    told = in_kernels_words(recorded.text)
    assert gaps == 0
    assert len(told) == len(events.kind) > 500
    assert {ALLOC, FREE, FORK, MARK, REFILL} <= set(events.kind.tolist())
    microseconds = (events.at_ns + 500) // 1000
    read = zip(
        microseconds.tolist(), events.kind.tolist(), events.cpu.tolist(), events.pid.tolist(), events.value.tolist(),
        events.order.tolist(), events.migratetype.tolist(), strict=True,
    )  # fmt: skip
    assert sorted(read) == sorted(told)
    assert (np.diff(events.at_ns) >= 0).all()


def test_an_older_kernels_events_are_read_too() -> None:
    """Linux 6.1 lays its events out otherwise; all of a guest's are read."""
    recorded = load(LINUX_6_1)
    events, _ = read_events(recorded.pages, recorded.cpus, read_layout(recorded.formats))
    assert set(events.kind.tolist()) == set(EVENTS)
    assert np.count_nonzero(events.kind == MARK) == len(recorded.marks)
    assert events.order.max() <= 10


def test_pages_in_pieces_are_the_same_events() -> None:
    """Pages are read on their own: the time of each begins anew."""
    recorded = load(LINUX_6_18)
    layout = read_layout(recorded.formats)
    whole, _ = read_events(recorded.pages, recorded.cpus, layout)
    each = [read_events(recorded.pages[page : page + 1], recorded.cpus[page : page + 1], layout)[0]
            for page in range(len(recorded.pages))]  # fmt: skip
    assert sorted(np.concatenate([part.at_ns for part in each]).tolist()) == whole.at_ns.tolist()


def one_page(*words: int, commit: int | None = None) -> np.ndarray:
    """A page of the ring buffer with these words of events, which begins at 1000 ns."""
    page = np.zeros(1024, np.uint32)
    page[0], page[2] = 1000, 4 * len(words) if commit is None else commit
    page[4 : 4 + len(words)] = words
    return page.view(np.uint8).reshape(1, 4096)


def free_event(event_id: int, delta: int, pfn: int, order: int) -> list[int]:
    """Words of a mm_page_free as Linux 6.18 lays it out: type and flags, process, frame, order."""
    return [delta << 5 | 5, event_id, 77, pfn & 0xFFFFFFFF, pfn >> 32, order]


def test_padding_and_long_times_are_gone_past() -> None:
    """Time grows by extensions and by events that were taken back, an absolute stamp sets it, padding ends a page."""
    recorded = load(LINUX_6_18)
    layout = read_layout(recorded.formats)
    ident = int(np.flatnonzero(layout.kinds == FREE)[0])
    taken_back = [7 << 5 | 29, 8, 0]  # 8 bytes after its header
    page = one_page(
        *free_event(ident, 0, 5, 0),
        3 << 5 | 30, 2,  # 3 ns and 2 times 2^27 ns
        *taken_back,
        *free_event(ident, 1, 1 << 33, 9),
        100 << 5 | 31, 1,  # it is now 100 ns and 2^27 ns
        *free_event(ident, 2, 6, 1),
        29, *free_event(ident, 1, 9, 0),
    )  # fmt: skip
    events, gaps = read_events(page, np.zeros(1, np.uint16), layout)
    assert gaps == 0
    by_value = dict(zip(events.value.tolist(), events.at_ns.tolist(), strict=True))
    assert by_value == {5: 1000, 1 << 33: 1000 + 3 + (2 << 27) + 7 + 1, 6: 100 + (1 << 27) + 2}


def test_no_page_is_minus_one() -> None:
    """An allocation that failed has the frame -1, whether this is compiled or not."""
    layout = read_layout(load(LINUX_6_18).formats)
    ident = int(np.flatnonzero(layout.kinds == FREE)[0])
    events, _ = read_events(one_page(*free_event(ident, 0, (1 << 64) - 1, 0)), np.zeros(1, np.uint16), layout)
    assert events.value.tolist() == [-1]


def test_a_gap_is_counted() -> None:
    """A page whose header says that events are missing before it is one gap."""
    recorded = load(LINUX_6_18)
    layout = read_layout(recorded.formats)
    ident = int(np.flatnonzero(layout.kinds == FREE)[0])
    words = free_event(ident, 0, 5, 0)
    _, gaps = read_events(one_page(*words, commit=4 * len(words) | 1 << 31), np.zeros(1, np.uint16), layout)
    assert gaps == 1


@pytest.mark.parametrize(
    "words",
    [
        [5],  # an event of five words with none behind it
        [0, 4096],  # longer than the page
        [0, 0],  # no length at all
        [30],  # a time without its other half
        [1 << 5 | 29, 1 << 30],  # taken back, beyond the page
        [1, 0],  # of a kind that is longer than this one
    ],
)
def test_a_broken_page_is_refused(words: list[int]) -> None:
    """No entry is read beyond its page, whatever its length says, and none stands still."""
    recorded = load(LINUX_6_18)
    layout = read_layout(recorded.formats)
    kinds = np.zeros_like(layout.kinds)  # every event id is an allocation
    with pytest.raises(BrokenPageError, match=r"^page 0 of processor 0 has an event"):
        read_events(one_page(*words), np.zeros(1, np.uint16), layout._replace(kinds=kinds))


def test_a_page_that_says_too_much_is_refused() -> None:
    """A page with more bytes of events than it has room for is broken."""
    layout = read_layout(load(LINUX_6_18).formats)
    with pytest.raises(BrokenPageError):
        read_events(one_page(commit=5000), np.zeros(1, np.uint16), layout)


@pytest.mark.parametrize(
    ("event", "old", "new", "sentence"),
    [
        ("kmem/mm_page_free", "unsigned long pfn", "unsigned long frame", "has no field pfn that can be read"),
        ("kmem/mm_page_free", "size:4;\tsigned:0;\n\nprint", "size:1;\tsigned:0;\n\nprint", "has no field order"),
        ("kmem/mm_page_alloc", "ID: ", "No: ", "the kernel has no trace event kmem/mm_page_alloc"),
        ("kmem/mm_page_alloc", "common_pid;\toffset:4", "common_pid;\toffset:8", r"has common_pid at \(8, 4\)"),
    ],
)
def test_a_layout_that_is_not_understood_is_refused(event: str, old: str, new: str, sentence: str) -> None:
    """A kernel with other fields is told so, and nothing is guessed."""
    formats = dict(load(LINUX_6_18).formats)
    assert old in formats[event]
    formats[event] = formats[event].replace(old, new)
    with pytest.raises(FormatError, match=sentence):
        read_layout(formats)


def test_a_kernel_without_the_events_is_refused() -> None:
    """A missing format is a sentence."""
    with pytest.raises(FormatError, match=r"^the kernel has no trace event header_page$"):
        read_layout({})
