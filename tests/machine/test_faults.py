"""Faults as they are written."""

import math

import pytest

from pagetide.machine.faults import Fault, FaultError, parse_fault, parse_faults, ring_entries

pytestmark = pytest.mark.jit  # no kernel is called


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stop@1.5:10", Fault("stop", 1.5, 10.0)),
        ("slow@0:3:4", Fault("slow", 0.0, 3.0, factor=4.0)),
        ("off@2:1", Fault("off", 2.0, 1.0)),
        ("ring-full@2:0.5", Fault("ring-full", 2.0, 0.5)),
        ("mmlock", Fault("mmlock", 0.0, math.inf)),
        ("mmlock-split", Fault("mmlock-split", 0.0, math.inf)),
        ("ring=8", Fault("ring", entries=8)),
    ],
)
def test_every_fault_is_read(text: str, fault: Fault) -> None:
    """Each form gives its kind, its times, and its factor or entries."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is no fault; there are stop@T:D, slow@T:D:FACTOR,"),
        ("stopp@1:2", "'stopp@1:2' is no fault"),
        ("stop", "the fault 'stop' is not of the form stop@T:D"),
        ("stop@1", "not of the form stop@T:D"),
        ("stop@1:2:3", "not of the form stop@T:D"),
        ("stop@a:b", "not of the form stop@T:D"),
        ("stop@-1:2", "a time must be from 0 s to a day, not '-1'"),
        ("stop@1:0", "a time must be from 0 s to a day, not '0'"),
        ("stop@nan:1", "a time must be from 0 s to a day, not 'nan'"),
        ("stop@1:inf", "a time must be from 0 s to a day, not 'inf'"),
        ("slow@1:2", "not of the form slow@T:D:FACTOR"),
        ("slow@1:2:1", "the factor must be above 1 and at most 1000, not 1"),
        ("ring", "not of the form ring=ENTRIES"),
        ("ring=7", "the entries must be a power of two from 1 to 1024, not 7"),
        ("ring=2048", "from 1 to 1024, not 2048"),
        ("mmlock@1:2", "it lasts for the whole run"),
        ("mmlock=3", "it lasts for the whole run"),
    ],
)
def test_a_bad_fault_is_one_sentence(text: str, sentence: str) -> None:
    """The sentence says what was written and what would do."""
    with pytest.raises(FaultError) as caught:
        parse_fault(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "texts", [("stop@1:2", "stop@2.9:1"), ("slow@1:2:3", "stop@2:1"), ("ring=8", "ring=4"), ("mmlock", "mmlock-split")]
)
def test_faults_that_exclude_each_other_are_refused(texts: tuple[str, ...]) -> None:
    """The same thing cannot go wrong twice at once."""
    with pytest.raises(FaultError, match="are both on at"):
        parse_faults(texts)


def test_faults_come_in_the_order_of_their_beginnings() -> None:
    """Whatever the order in which they were given; one may begin when the one before is over."""
    faults = parse_faults(("stop@3:1", "off@2:5", "stop@1:2", "ring=8"))
    assert [(fault.kind, fault.start_s) for fault in faults] == [("ring", 0), ("stop", 1), ("off", 2), ("stop", 3)]
    assert ring_entries(faults) == 8
    assert ring_entries(faults[1:]) is None
