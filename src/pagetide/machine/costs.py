"""What things cost on a real machine: the simulated machine's clock is made of these.

`pagetide calibrate` measures them (calibrate.py) and writes them to a file. Where there is none, those of
`costs_default.json` beside this file serve, which `pagetide calibrate --out src/pagetide/machine/costs_default.json`
wrote.
"""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.machine.config_error import ConfigError
from pagetide.machine.made_file import MadeFile, write_made
from pagetide.memory.guest_ram import Backing
from pagetide.memory.metadata import PIECE_KINDS, PRICE_CALL, PRICE_PAGE, PRICE_SPLIT, PRICE_UNIT, PRICES
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES, format_size

PS_PER_S = 10**12
"""Simulated time is counted in picoseconds: a page that is touched again costs only a few thousand of them."""

_COST_MAX_NS = 1e10
_KIND_OF_HUGE = (HUGE_PAGE_BYTES // PAGE_SIZE_BYTES).bit_length() - 1


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cost in nanoseconds: the median of what was measured, and its 10th and 90th percentile."""

    ns: float
    low_ns: float
    high_ns: float

    @property
    def ps(self) -> int:
        """The median in picoseconds."""
        return round(self.ns * 1000)


class Piece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What discarding a resident piece of this size costs, all of it."""

    size_bytes: int
    cost: Cost


class BackingCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What depends on the memory's backing.

    Attributes:
        fault: the first touch of memory: of a page, or with huge pages of 2 MiB.
        fault_shared: the same while another vCPU does it as well.
        punch: discarding what is not resident, asking before and reading back.
        pieces: discarding what is, by the size of the piece, growing. With huge pages smaller pieces are parts of pages
            that are split already, and the others are whole pages.
        split: discarding a part of a huge page that is still one costs so much more; None with small pages, and in a
            file of before it was measured, where it is nothing.
    """

    fault: Cost
    fault_shared: Cost
    punch: Cost
    pieces: tuple[Piece, ...]
    split: Cost | None = None

    def page_ps(self) -> npt.NDArray[np.int64]:
        """What discarding a resident page costs besides the call, by the kind of piece (memory/metadata.py)."""
        return self._page_ps(self.pieces)

    def prices_ps(self) -> npt.NDArray[np.int64]:
        """What discarding costs, as `discarding_ps` takes it (memory/metadata.py)."""
        prices = np.zeros(PRICES, np.int64)
        prices[PRICE_CALL] = self.punch.ps
        prices[PRICE_UNIT] = HUGE_PAGE_BYTES // PAGE_SIZE_BYTES * self.page_ps()[_KIND_OF_HUGE]
        parts = self.pieces
        if self.split is not None:
            prices[PRICE_SPLIT] = self.split.ps
            parts = tuple(piece for piece in parts if piece.size_bytes < HUGE_PAGE_BYTES)
        prices[PRICE_PAGE:] = self._page_ps(parts)
        return prices

    def check_ranges(self, name: str) -> None:
        """Raise ConfigError for a cost that cannot be, of the backing with this name."""
        _check(f"{name} fault", self.fault)
        _check(f"{name} fault_shared", self.fault_shared)
        _check(f"{name} punch", self.punch)
        sizes_bytes = [piece.size_bytes for piece in self.pieces]
        if not sizes_bytes or sizes_bytes != sorted(set(sizes_bytes)) or sizes_bytes[0] < PAGE_SIZE_BYTES:
            raise ConfigError(f"the pieces of {name} must grow, from a page on")
        for piece in self.pieces:
            _check(f"{name} piece of {format_size(piece.size_bytes)}", piece.cost)
        if self.split is not None:
            _check(f"{name} split", self.split)
            if sizes_bytes[0] >= HUGE_PAGE_BYTES:
                raise ConfigError(f"the pieces of {name} must begin below a huge page, since there is a split")

    def _page_ps(self, pieces: tuple[Piece, ...]) -> npt.NDArray[np.int64]:
        pages = np.array([piece.size_bytes // PAGE_SIZE_BYTES for piece in pieces])
        each_ps = [max(0.0, p.cost.ns - self.punch.ns) * 1000 / n for p, n in zip(pieces, pages, strict=True)]
        by_kind: npt.NDArray[np.float64] = np.interp(np.arange(PIECE_KINDS), np.log2(pages), each_ps)
        return np.rint(by_kind).astype(np.int64)


class TakingCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it costs a host to take frames by itself (`shared`), besides discarding them.

    Attributes:
        batch: each batch, and each end of a pass.
        frame: each frame of a batch.
        look: each frame that a pass looks at.
    """

    batch: Cost
    frame: Cost
    look: Cost


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that simulated time is made of.

    Attributes:
        date: when it was measured, as ISO 8601 has it.
        kernel: on which kernel.
        cpu: and which processor.
        cpus: how many there were for vCPUs, worker and host together.
        order0: an allocation or free that a per-CPU list serves, measured on pages.
        moved_page: each page or block that goes between such a list and the buddy allocator, under the zone lock.
        block: an allocation or free of a block that has no such list, under the zone lock.
        stamp: touching a page that is resident.
        check: looking at a page's stamp before it is freed.
        report: what a report costs the worker, besides its blocks.
        report_block: and for each block.
        walk: what each block that a walk passes over costs, under the zone lock.
        element: what a report costs the host, besides discarding and its blocks.
        element_block: and for each block.
        wake: from a kick or a call until the other side runs.
        survey: what a pass of `pool` costs the worker besides its reports and what it looks at, with 1536 unreported
            blocks in a guest of 2 GiB; None in a file of before it was measured, and then that is nothing.
        backings: what depends on the backing.
        taking: what `shared` costs the host; None in a file of before it was measured.
    """

    date: str
    kernel: str
    cpu: str
    cpus: int
    order0: Cost
    moved_page: Cost
    block: Cost
    stamp: Cost
    check: Cost
    report: Cost
    report_block: Cost
    walk: Cost
    element: Cost
    element_block: Cost
    wake: Cost
    survey: Cost | None = None
    backings: dict[Backing, BackingCosts]
    taking: TakingCosts | None = None

    def of_taking(self) -> TakingCosts:
        """What it costs a host to take frames.

        Raises:
            ConfigError: it was not measured.
        """
        if self.taking is None:
            raise ConfigError("these costs have none of the design shared: run `pagetide calibrate` to make them anew")
        return self.taking

    def backing(self, name: Backing) -> BackingCosts:
        """The costs of this backing.

        Raises:
            ConfigError: they were not measured.
        """
        found = self.backings.get(name)
        if found is None:
            raise ConfigError(
                f"these costs have none of --backing {name}: run `pagetide calibrate` where it can be had"
            )
        return found

    def check_ranges(self) -> None:
        """Raise ConfigError for a cost that cannot be."""
        if self.cpus < 1:
            raise ConfigError(f"costs must be of at least 1 processor, not {self.cpus}")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Cost):
                _check(name, value)
        if self.taking is not None:
            for name in self.taking.__struct_fields__:
                _check(f"taking {name}", getattr(self.taking, name))
        for backing, costs in self.backings.items():
            costs.check_ranges(backing)


def _check(name: str, cost: Cost) -> None:
    if not 0 <= cost.low_ns <= cost.ns <= cost.high_ns <= _COST_MAX_NS:
        raise ConfigError(
            f"the cost {name!r} must be from 0 to {_COST_MAX_NS:g} ns, and between its low and its high: "
            f"{cost.low_ns} {cost.ns} {cost.high_ns}"
        )


_FILE = MadeFile(Costs, "costs", "pagetide calibrate", "costs.json", Path(__file__).with_name("costs_default.json"))


def default_path() -> Path:
    """Where `pagetide calibrate` writes, and `run --machine simulated` looks: XDG_DATA_HOME/pagetide/costs.json."""
    return _FILE.usual_path


def read_costs(path: Path | None = None) -> Costs:
    """The costs in this file; without a path those at `default_path`, or the built-in ones.

    Raises:
        ConfigError: the file cannot be read, or does not hold costs.
    """
    costs = _FILE.read(path)
    costs.check_ranges()
    return costs


def write_costs(costs: Costs, path: Path) -> None:
    """Write them as JSON, making the folder if need be.

    Raises:
        OSError: that cannot be.
    """
    write_made(costs, path)
