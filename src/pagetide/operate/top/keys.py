"""Keys, as a terminal sends them."""

import re

_KEYS = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"k": "up", b"j": "down", b"l": "right", b"h": "left",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1b[F": "end",
    b"\r": "enter", b"\n": "enter", b"\x1b": "escape", b"\x7f": "escape",
}  # fmt: skip
_ONE = re.compile(rb"\x1b\[[0-9;?]*[@-~]|\x1bO.|[\x00-\xff]", re.DOTALL)


def read_keys(data: bytes) -> list[str]:
    """The keys in what was read at once: a name, or the character; what is neither is left out.

    An escape sequence comes in one piece, so a lone escape is the key of that name.
    """
    return [key for found in _ONE.findall(data) if (key := _KEYS.get(found) or _character(found))]


def _character(found: bytes) -> str:
    return found.decode("ascii") if len(found) == 1 and found.isascii() and found.decode("ascii").isprintable() else ""
