"""What a vector is, and what one found."""

from collections.abc import Callable
from typing import NamedTuple

from pagetide.conformance.vectors.bench import Bench


class Vector(NamedTuple):
    """One thing that a driver does, and what must be seen of it, as the same few words on every device.

    Attributes:
        topic: what it is about.
        name: what it tries.
        play: plays the driver, and says what was seen.
        expected: what must be seen.
        counted: the word of our device's ledger that must grow, if any.
        qemu: what is seen on QEMU 7.2 instead, if that differs.
        why: why it differs.
        ours_only: that it is for our own device, whose ledger can be read, and is sent to no other.
    """

    topic: str
    name: str
    play: Callable[[Bench], str]
    expected: str
    counted: str = ""
    qemu: str = ""
    why: str = ""
    ours_only: bool = False


class Result(NamedTuple):
    """A vector on one device.

    Attributes:
        topic: the vector's.
        name: the vector's.
        expected: what this device must do.
        found: what it did; None if it does not offer what the vector needs, or cannot be asked for it.
        passed: whether that is right.
        note: why a device differs, what was wrong, or why there is nothing to be found.
    """

    topic: str
    name: str
    expected: str
    found: str | None
    passed: bool
    note: str
