"""Files that one command makes and others read: JSON, written whole, and nothing else in it than there should be."""

import os
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from pagetide.machine.config_error import ConfigError
from pagetide.whole_file import write_whole

_Made = TypeVar("_Made")


class MadeFile(NamedTuple, Generic[_Made]):
    """One kind of such files.

    Attributes:
        kind: what one holds, a type that msgspec knows.
        what: what that is called in sentences.
        command: what makes one.
        name: of the file in the usual folder, pagetide in XDG_DATA_HOME.
        built_in: the file that serves where there is none.
    """

    kind: type[_Made]
    what: str
    command: str
    name: str
    built_in: Path

    @property
    def usual_path(self) -> Path:
        """Where one is made, and looked for, when nobody says."""
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return Path(base) / "pagetide" / self.name

    def read(self, path: Path | None) -> _Made:
        """What is in this file; without a path in that at `usual_path`, or in the built-in one.

        Raises:
            ConfigError: the file cannot be read, or holds something else.
        """
        if path is None:
            path = self.usual_path if self.usual_path.is_file() else self.built_in
        try:
            return msgspec.json.decode(path.read_bytes(), type=self.kind)
        except OSError as error:
            raise ConfigError(
                f"the {self.what} {path} cannot be read: {error.strerror}; `{self.command}` makes them"
            ) from error
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{path} does not hold {self.what} as `{self.command}` writes them: {error}; {self._what_to_do(path)}"
            ) from error

    def _what_to_do(self, path: Path) -> str:
        """About a file that holds something else, as one of an older version does."""
        anew = f"`{self.command}` makes it anew"
        return f"{anew}, or delete it to use what is built in" if path == self.usual_path else anew


def write_made(made: Any, path: Path) -> None:
    """Write it as JSON, making the folder if need be.

    Raises:
        OSError: that cannot be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
