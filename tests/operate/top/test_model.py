"""What `pagetide top` shows, by what was seen and which keys were pressed."""

from rich.cells import cell_len

from pagetide.host.memory.page_map import MapPiece
from pagetide.operate.top.keys import read_keys
from pagetide.operate.top.lines import TITLES
from pagetide.operate.top.model import Model
from pagetide.operate.top.screen import cells_of
from pagetide.operate.watch.all_vms import Look
from pagetide.operate.watch.guest_map import GuestMap
from pagetide.operate.watch.seen import Seen
from tests.operate.watch.seen_vms import MIB, seen, seen_by_kernel

HELD, CAME_BACK, STATE = (TITLES.index(title) for title in ("held", "came back", "state"))


def model_of(*vms: Seen, column: int = HELD, t_s: float = 100.0) -> Model:
    """One that has seen these."""
    model = Model(column)
    model.saw(Look(t_s, list(vms), []))
    return model


def shown(model: Model, width: int = 160, height: int = 20) -> list[str]:
    """The lines, each of which must fit."""
    lines = [text.plain for text in model.screen(width, height)]
    assert len(lines) <= height
    return lines


def names(model: Model) -> list[str]:
    """The first words of the table's lines."""
    return [line.split()[0] for line in shown(model)[2:-2] if line]


def test_it_is_sorted_by_any_column_and_either_way() -> None:
    """Numbers from the largest, names from a; what is not known is last either way. The mark says which."""
    vms = seen("b", held_bytes=5, refaulted_bytes=7), seen("a", held_bytes=3, refaulted_bytes=9), seen_by_kernel("q", 7)
    model = model_of(*vms, column=CAME_BACK)
    assert names(model) == ["a", "b", "q"]
    assert "came back▾" in shown(model)[1]
    model.press("r")
    assert names(model) == ["b", "a", "q"]
    assert "came back▴" in shown(model)[1]
    for _ in range(len(TITLES) - CAME_BACK):
        model.press("right")
    assert shown(model)[1].startswith("guest▾")
    assert names(model) == ["q", "b", "a"]
    model.press("left")
    assert "state▾" in shown(model)[1]


def test_how_fast_memory_comes_back_is_told_from_look_to_look() -> None:
    """By the time between two, and not across a guest's new account."""
    model = model_of(seen("a"), seen("b", returned_bytes=900 * MIB))
    vms = [seen("a", returned_bytes=6 * MIB, refaulted_bytes=4 * MIB), seen("b", returned_bytes=3 * MIB, account=2)]
    model.saw(Look(102.0, vms, []))
    a, b = shown(model)[2:4]
    assert "3 MiB/s" in a
    assert "2 MiB/s" in a
    assert "/s" not in b


def test_a_look_that_fails_takes_nothing_away() -> None:
    """The opened guest stays open with its curves; how fast memory comes back is not known until two looks follow."""
    model = model_of(seen("a", returned_bytes=0))
    model.press("enter")
    model.saw(Look(101.0, [seen("a", held_bytes=7, is_stale=True)], [], "no daemon answers"))
    model.saw(Look(102.0, [seen("a", returned_bytes=6 * MIB)], []))
    assert model.opened == "a"
    assert "██ the host holds" in "\n".join(shown(model, height=30))
    model.press("escape")
    assert "/s" not in shown(model)[2]
    model.saw(Look(103.0, [seen("a", returned_bytes=8 * MIB)], []))
    assert "2 MiB/s" in shown(model)[2]


def test_the_chosen_guest_stays_in_sight() -> None:
    """In a table that is longer than the terminal, and when it has gone another is chosen."""
    model = model_of(*(seen(f"vm{number:02}", held_bytes=100 - number) for number in range(40)))
    assert shown(model, height=10)[-2] == "34 more below"
    model.press("end")
    assert any(line.startswith("vm39") for line in shown(model, height=10))
    model.press("up")
    model.press("enter")
    assert model.opened == "vm38"
    model.saw(Look(101.0, [seen("vm01")], []))
    assert model.opened is None
    assert names(model) == ["vm01"]


def test_columns_are_left_out_where_there_is_no_room() -> None:
    """But for the guest, what is held, its state, and what it is sorted by; every line fits."""
    model = model_of(seen("one"), column=CAME_BACK)
    assert [title for title in TITLES if title in shown(model)[1]] == list(TITLES)
    narrow = shown(model, width=60)
    assert cell_len(narrow[1].rstrip()) <= 60
    assert all(title in narrow[1] for title in ("guest", "held", "came back▾", "state"))
    assert "swap" not in narrow[1]


def test_a_guest_has_curves_and_a_page_map() -> None:
    """A mark for each block, a legend with sizes; of a VM that only the kernel knows it says so."""
    model = model_of(seen("one", held_bytes=1024 * MIB), seen_by_kernel("two", 7, held_bytes=1))
    model.press("enter")
    page_map = GuestMap(Source("hhffrrnnpu"))
    page_map.read()
    assert "the page map is being read" in "\n".join(shown(model))
    model.mapped("one", page_map, "")
    lines = shown(model, height=30)
    assert "██▓▓··  ▒?" in lines
    assert "█ held 4 MiB   ▒ held in part 2 MiB   ▓ came back 4 MiB   · given back 4 MiB" in "\n".join(lines)
    assert "██ the host holds" in "\n".join(lines)
    model.press("down")
    model.mapped("two", None, "process 7 may not be looked at")
    assert "process 7 may not be looked at" in "\n".join(shown(model))
    model.press("escape")
    assert names(model) == ["one", "two"]


class Source:
    """A map of one region, whole at once."""

    def __init__(self, states: str) -> None:
        self._states = states

    def piece(self, first: int) -> MapPiece:
        return MapPiece(first, len(self._states), self._states, [(0, len(self._states) << 21, 0)])


def test_a_large_map_is_told_by_the_most_frequent_state_of_each_part() -> None:
    """As many marks as there is room for, or fewer."""
    assert cells_of(b"hhhrrrnnn", 3) == "hrn"
    assert cells_of(b"hhrrrrnnf", 3) == "hrn"
    assert cells_of(b"hrn", 100) == "hrn"
    assert len(cells_of(b"h" * 100_001, 1000)) <= 1000


def test_keys_are_read_as_terminals_send_them() -> None:
    """Several at once, with or without a modifier's number, and what means nothing is left out."""
    assert read_keys(b"\x1b[A\x1bOBq\r\x1b") == ["up", "down", "q", "enter", "escape"]
    assert read_keys(b"\x1b[5~\x1b[1;5C\xc3\xa4r") == ["page up", "r"]


def test_q_ends_it() -> None:
    """Wherever it is pressed."""
    model = model_of(seen("one"))
    model.press("enter")
    model.press("q")
    assert model.over
