"""The first page of what is kept of a guest: whose it is, and how the rest is laid out.

Releases that cannot read the rest read this page, so what it has stays where it is, and more goes behind it. Pages of
the first release end with the number of words: its guests have no name here, and are not known to come back.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pagetide.host.device.kept_state import VERSION, UnreadableStateError
from pagetide.host.memory.ledger import LEDGER_WORDS, WORD_NAMES

HEAD_BYTES = 4096
"""Of the page."""

WORDS_ROOM = 512
"""How many words of an account there is room for, so that a later release may have more than this one."""

_MAGIC = b"pagetide"
_FIXED = struct.Struct("<8sII?xHH")  # magic, version, words, comes back, bytes of the name and of the words' names
_NAME_BYTES_MAX = 255


class KeptHead(NamedTuple):
    """What the page says.

    Attributes:
        version: of the layout of the rest.
        words: of the account; 0 while it is moved to another order, when it begins anew.
        word_names: what each is called; empty where that is not said.
        name: the guest's; empty where that is not said.
        comes_back: whether the front-end keeps what a daemon needs that knows nothing of it, and so will reconnect.
    """

    version: int = VERSION
    words: int = LEDGER_WORDS
    word_names: tuple[str, ...] = WORD_NAMES
    name: str = ""
    comes_back: bool = False

    @property
    def lack(self) -> str:
        """Why this release cannot read the rest; empty if it can."""
        return lack_of(self.version, self.words, has_names=bool(self.word_names))

    def encode(self) -> bytes:
        """The page."""
        name = self.name.encode()[:_NAME_BYTES_MAX]
        names = "\n".join(self.word_names).encode()
        fixed = _FIXED.pack(_MAGIC, self.version, self.words, self.comes_back, len(name), len(names))
        return (fixed + name + names).ljust(HEAD_BYTES, b"\0")

    @classmethod
    def decode(cls, page: bytes) -> Self:
        """From a page.

        Raises:
            UnreadableStateError: it is none.
        """
        if len(page) < HEAD_BYTES or not page.startswith(_MAGIC):
            raise UnreadableStateError("it is no guest of a pagetide daemon's")
        _, version, words, comes_back, name_bytes, names_bytes = _FIXED.unpack_from(page)
        name_end = _FIXED.size + name_bytes
        name = page[_FIXED.size : name_end].decode(errors="replace")
        names = page[name_end : name_end + names_bytes].decode(errors="replace")
        return cls(version, words, tuple(names.split("\n")) if names else (), name, comes_back)


def lack_of(version: int, words: int, *, has_names: bool) -> str:
    """Why this release cannot read what is kept in this way; empty if it can."""
    if version == VERSION and (has_names or words in (0, LEDGER_WORDS)):
        return ""
    return (
        f"it was kept in version {version} with {words} words of account, and this release reads version {VERSION} "
        f"with {LEDGER_WORDS}"
    )


def in_our_order(words: npt.NDArray[np.int64], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """An account whose words have these names, as this release has it: 0 for a word that was not counted."""
    found = dict(zip(names, words.tolist(), strict=False))
    return np.array([found.get(name, 0) for name in WORD_NAMES], np.int64)
