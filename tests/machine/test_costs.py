"""What things cost, as a file."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import BackingCosts, Cost, Costs, Piece, read_costs, write_costs
from pagetide.memory.metadata import PIECE_KINDS, PRICE_CALL, PRICE_PAGE, PRICE_SPLIT, PRICE_UNIT

pytestmark = pytest.mark.jit  # its kernels are tested both ways elsewhere


def test_there_are_costs_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in costs serve until `calibrate` has written some, and then those do."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    built_in = read_costs()
    assert built_in.survey is not None  # or passes of `pool` would be free in every simulated run
    assert built_in.backing("hugetmpfs").split is not None
    assert built_in.backings["memfd"].fault.ns > built_in.stamp.ns > 0
    own = msgspec.structs.replace(built_in, cpu="mine")
    write_costs(own, tmp_path / "pagetide" / "costs.json")
    assert read_costs() == own


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("{", "", "does not hold costs"),
        ('"order0"', '"order1"', "does not hold costs"),
        ('"cpus": ', '"cpus": -', "at least 1 processor"),
        ('"high_ns": ', '"high_ns": -', "must be from 0 to"),
        ('"size_bytes": 4096', '"size_bytes": 409600000', "must grow"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, before: str, after: str, sentence: str) -> None:
    """A file that is not costs, or holds impossible ones, is refused with its reason."""
    path = tmp_path / "costs.json"
    write_costs(read_costs(), path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(ConfigError, match=sentence):
        read_costs(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """The sentence names the file and the command."""
    with pytest.raises(ConfigError, match=r"costs\.json cannot be read.*pagetide calibrate"):
        read_costs(tmp_path / "costs.json")


def test_a_backing_without_costs_is_refused() -> None:
    """Costs measured without root have none of huge pages."""
    costs = read_costs()
    without = msgspec.structs.replace(costs, backings={"memfd": costs.backings["memfd"]})
    with pytest.raises(ConfigError, match="hugetmpfs"):
        without.backing("hugetmpfs")


def cost(ns: float) -> Cost:
    """A cost without spread."""
    return Cost(ns=ns, low_ns=ns, high_ns=ns)


def test_discarding_costs_by_size() -> None:
    """A page of a measured size costs what was measured, others lie between; the call itself is counted apart."""
    pieces = (Piece(size_bytes=4096, cost=cost(3000)), Piece(size_bytes=2 << 20, cost=cost(52_200)))
    page_ps = BackingCosts(fault=cost(1), fault_shared=cost(1), punch=cost(1000), pieces=pieces).page_ps()
    assert len(page_ps) == PIECE_KINDS
    assert page_ps[0] == 2_000_000
    assert page_ps[9] == page_ps[20] == 100_000
    assert (np.diff(page_ps) <= 0).all()
    assert isinstance(read_costs(), Costs)


def test_huge_pages_go_whole_or_in_parts() -> None:
    """Parts cost what those of split pages do, whatever their size, and the first of them the split, if it is known."""
    measured = {4096: 1500, 1 << 16: 9000, 2 << 20: 6120}
    pieces = tuple(Piece(size_bytes=size_bytes, cost=cost(ns)) for size_bytes, ns in measured.items())
    costs = BackingCosts(fault=cost(1), fault_shared=cost(1), punch=cost(1000), pieces=pieces, split=cost(70_000))
    prices = costs.prices_ps()
    assert prices[[PRICE_CALL, PRICE_SPLIT, PRICE_UNIT]].tolist() == [1_000_000, 70_000_000, 5_120_000]
    assert prices[[PRICE_PAGE, PRICE_PAGE + 4, PRICE_PAGE + 12]].tolist() == [500_000] * 3
    of_before = msgspec.structs.replace(costs, split=None).prices_ps()
    assert of_before[[PRICE_SPLIT, PRICE_UNIT]].tolist() == [0, 5_120_000]
    assert of_before[PRICE_PAGE:].tolist() == costs.page_ps().tolist()
    for change, said in (({"split": cost(-1)}, "hugetmpfs split"), ({"pieces": pieces[2:]}, "below a huge page")):
        wrong = {"hugetmpfs": msgspec.structs.replace(costs, **change)}
        with pytest.raises(ConfigError, match=said):
            msgspec.structs.replace(read_costs(), backings=read_costs().backings | wrong).check_ranges()
