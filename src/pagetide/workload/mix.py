"""Which share of a workload's memory is in blocks of which order."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pagetide.units import ORDER_MAX

Mix = Mapping[int, float]
"""Shares of memory by order; they add up to 1."""

_SUM_ERROR_MAX = 1e-6


class MixError(ValueError):
    """A mix that there cannot be; the message is one sentence."""


def parse_mix(text: str) -> Mix:
    """Read a mix such as `9=0.5,4=0.25,0=0.25`: half of the memory in 2 MiB blocks, a quarter in single pages.

    Raises:
        MixError: it is written wrongly, names an order twice, or its shares do not add up to 1.
    """
    mix: dict[int, float] = {}
    for part in text.split(","):
        order, _, share = part.partition("=")
        try:
            read = int(order), float(share)
        except ValueError:
            raise MixError(f"{text!r} is not a mix of orders; write it like 9=0.5,0=0.5") from None
        if not 0 <= read[0] <= ORDER_MAX or read[0] in mix:
            raise MixError(f"a mix has each order from 0 to {ORDER_MAX} at most once, unlike {text!r}")
        if not 0 < read[1] <= 1:
            raise MixError(f"each share of a mix is above 0 and at most 1, unlike in {text!r}")
        mix[read[0]] = read[1]
    if abs(sum(mix.values()) - 1) > _SUM_ERROR_MAX:
        raise MixError(f"the shares of a mix add up to 1, unlike those of {text!r}")
    return mix


def fill(rng: np.random.Generator, pages: int, mix: Mix) -> npt.NDArray[np.uint8]:
    """Orders of blocks, shuffled, that hold exactly this many pages; what a share leaves over is single pages."""
    drawn = [np.full(int(pages * share) >> order, order, np.uint8) for order, share in mix.items()]
    rest = pages - sum(len(blocks) << int(blocks[0]) for blocks in drawn if len(blocks))
    blocks = np.concatenate([*drawn, np.zeros(rest, np.uint8)])
    rng.shuffle(blocks)
    return blocks


def draw(rng: np.random.Generator, count: int, mix: Mix) -> npt.NDArray[np.uint8]:
    """Orders of this many blocks, drawn so that in the long run each order has its share of the memory."""
    orders = np.array(list(mix), np.uint8)
    weights = np.array(list(mix.values())) / (1 << orders.astype(np.int64))
    return rng.choice(orders, count, p=weights / weights.sum())


def mean_pages(mix: Mix) -> float:
    """Pages in a block, on average over `draw`."""
    return 1 / sum(share / (1 << order) for order, share in mix.items())
