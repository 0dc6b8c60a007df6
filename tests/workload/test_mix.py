"""Mixes of orders."""

import numpy as np
import pytest

from pagetide.workload.mix import MixError, draw, fill, mean_pages, parse_mix

MIX = {9: 0.5, 3: 0.25, 0: 0.25}


def test_a_mix_is_read() -> None:
    """Order and share of each part."""
    assert parse_mix("9=0.5,3=0.25,0=0.25") == MIX


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a mix"),
        ("9", "not a mix"),
        ("a=1", "not a mix"),
        ("9=0.5,9=0.5", "at most once"),
        ("11=1", "from 0 to 10"),
        ("9=0,0=1", "above 0"),
        ("9=nan", "above 0"),
        ("9=0.5", "add up to 1"),
    ],
)
def test_a_bad_mix_is_one_sentence(text: str, sentence: str) -> None:
    """Syntax, orders, shares and their sum are checked."""
    with pytest.raises(MixError, match=sentence):
        parse_mix(text)


@pytest.mark.parametrize("pages", [1, 511, 512, 10_000])
def test_filling_takes_exactly_the_pages(pages: int) -> None:
    """What does not fit a share's order is single pages."""
    orders = fill(np.random.default_rng(1), pages, MIX)
    assert int((1 << orders.astype(np.int64)).sum()) == pages


def test_drawing_gives_each_order_its_share_of_the_memory() -> None:
    """In the long run, and the mean block is as large as said."""
    orders = draw(np.random.default_rng(1), 1_000_000, MIX)
    pages = 1 << orders.astype(np.int64)
    for order, share in MIX.items():
        assert pages[orders == order].sum() / pages.sum() == pytest.approx(share, rel=0.05)
    assert pages.mean() == pytest.approx(mean_pages(MIX), rel=0.05)
