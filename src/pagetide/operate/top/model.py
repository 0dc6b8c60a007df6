"""What `pagetide top` shows now, as a function of what was seen and of the keys that were pressed."""

from collections import deque

from rich.text import Text

from pagetide.operate.top.lines import TITLES, Line, lines_of, sort_lines
from pagetide.operate.top.screen import KEPT_LOOKS, GuestView, Point, TableView, guest_screen, table_screen
from pagetide.operate.watch.all_vms import Look
from pagetide.operate.watch.guest_map import GuestMap
from pagetide.operate.watch.seen import Seen

_PAGE_LINES = 10


class Model:
    """The state of the picture.

    Attributes:
        over: whether to end.
        opened: the name of the VM whose curves and map are shown; None for the table.
    """

    over: bool
    opened: str | None

    def __init__(self, column: int) -> None:
        """Have seen nothing, and sort by this column."""
        self.over = False
        self.opened = None
        self._column, self._reverse = column, False
        self._look: Look | None = None
        self._lines: list[Line] = []
        self._chosen = ""
        self._points: dict[str, deque[Point]] = {}
        self._map: tuple[str, GuestMap | None, str] = ("", None, "")

    @property
    def opened_vm(self) -> Seen | None:
        """The VM whose curves and map are shown, as it was seen last; None for the table."""
        return next((line.seen for line in self._lines if line.seen.name == self.opened), None)

    def saw(self, look: Look) -> None:
        """Take a look."""
        self._lines = sort_lines(lines_of(look, self._look), self._column, reverse=self._reverse)
        self._look = look
        names = {seen.name for seen in look.vms}
        if self._chosen not in names and self._lines:
            self._chosen = self._lines[0].seen.name
        if self.opened not in names:
            self.opened = None
        self._points = {name: points for name, points in self._points.items() if name in names}
        for seen in look.vms:
            points = self._points.setdefault(seen.name, deque(maxlen=KEPT_LOOKS))
            if not seen.is_stale:
                points.append(Point(look.t_s, seen.held_bytes, seen.used_bytes))

    def mapped(self, name: str, page_map: GuestMap | None, trouble: str) -> None:
        """Take what was read of a VM's map, or why there is none."""
        self._map = (name, page_map, trouble)

    def press(self, key: str) -> None:
        """Do as a key says; one that means nothing here does nothing."""
        match key:
            case "q":
                self.over = True
            case "up" | "down" | "page up" | "page down" | "home" | "end":
                self._move(key)
            case "escape":
                self.opened = None
            case "enter" if self._lines:
                self.opened = self._chosen
            case "left" | "right" if self.opened is None:
                self._column = (self._column + (1 if key == "right" else -1)) % len(TITLES)
            case "r" if self.opened is None:
                self._reverse = not self._reverse
        self._lines = sort_lines(self._lines, self._column, reverse=self._reverse)

    def screen(self, width: int, height: int) -> list[Text]:
        """The lines of the picture, as many as the terminal has."""
        if self._look is None:
            return [Text("looking for VMs", "bold")]
        line = next((line for line in self._lines if line.seen.name == self.opened), None)
        if line is None:
            view = TableView(self._lines, self._column, self._reverse, self._chosen)
            return table_screen(view, self._look, width, height)
        name, page_map, trouble = self._map
        shown = (page_map, trouble) if name == line.seen.name else (None, "")
        return guest_screen(GuestView(line, self._points[line.seen.name], *shown), width, height)

    def _move(self, key: str) -> None:
        names = [line.seen.name for line in self._lines]
        if not names:
            return
        steps = {"up": -1, "down": 1, "page up": -_PAGE_LINES, "page down": _PAGE_LINES, "home": -len(names)}
        place = names.index(self._chosen) + steps.get(key, len(names))
        self._chosen = names[min(max(0, place), len(names) - 1)]
        if self.opened is not None:
            self.opened = self._chosen
