"""Sizes as people write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.units import ORDER_MAX, ORDERS, block_bytes, format_size, parse_size

pytestmark = pytest.mark.jit  # no kernel is called


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        (" 1.5 GiB ", 3 << 29),
        ("64kb", 64 << 10),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    """A number with or without a suffix is read as bytes; suffixes are powers of 1024 in any case."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.2.3", "2 GiBs", "1e9", "0x10", "2X", "nan"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    """Anything else is refused with a sentence that shows the text and how to write a size."""
    with pytest.raises(ValueError, match=r"is not a size; write it like"):
        parse_size(text)


def test_part_of_a_byte_is_refused() -> None:
    """A fraction must come to whole bytes."""
    with pytest.raises(ValueError, match=r"not a whole number of bytes"):
        parse_size("0.3KiB")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (-(3 << 20), "-3 MiB"),
        (2 << 30, "2 GiB"),
        (int(1.234 * (1 << 30)), "1.23 GiB"),
        (123456789, "118 MiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes_are_shown(size_bytes: int, text: str) -> None:
    """A size is shown in the largest unit that keeps it at least 1, with three digits or so."""
    assert format_size(size_bytes) == text


@given(st.integers(0, 1 << 50))
def test_a_shown_size_is_near_the_true_one(size_bytes: int) -> None:
    """What is shown differs from the size by less than one part in a hundred."""
    number, unit = format_size(size_bytes).split()
    shown = float(number) * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
    assert abs(shown - size_bytes) <= size_bytes / 100


@given(st.integers(1, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_sizes_are_read_as_they_are_shown(number: int, unit: str) -> None:
    """Showing a size that was read gives the text that was read."""
    assert format_size(parse_size(f"{number} {unit}")) == f"{number} {unit}"


def test_blocks_double_with_their_order() -> None:
    """There are eleven orders, from a page of 4 KiB to a block of 4 MiB."""
    assert [block_bytes(order) for order in range(ORDERS)] == [4096 * 2**order for order in range(11)]
    assert block_bytes(ORDER_MAX) == 4 << 20
