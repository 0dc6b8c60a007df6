"""The modules that a guest's kernel has to load before it has a balloon, in the order in which they load.

A module says itself which others it needs (`depends=` in its .modinfo section, scripts/mod/modpost.c), so no list of
depmod's is asked for: a kernel package that was only unpacked has none.
"""

import gzip
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_READERS: dict[str, Callable[[bytes], bytes]] = {".ko": bytes, ".ko.gz": gzip.decompress, ".ko.xz": lzma.decompress}


class KernelModule(NamedTuple):
    """One module.

    Attributes:
        name: as the kernel has it, without a suffix and with underscores.
        data: the module itself, uncompressed.
    """

    name: str
    data: bytes


class ModuleMissingError(Exception):
    """A module is neither in the folder nor built into the kernel; the message says which."""


def modules_to_load(folder: Path, wanted: Sequence[str]) -> list[KernelModule]:
    """These modules and all that they need, each after those that it needs; what is built in is left out.

    Args:
        folder: of one kernel release, such as /lib/modules/6.1.0-56-amd64.
        wanted: names of modules, with underscores.

    Raises:
        ModuleMissingError: one of them, or one that they need, is not there, or is packed in a way not known here.
    """
    files = {_name(path): path for path in sorted(folder.glob("kernel/**/*.ko*"))}
    listed = folder / "modules.builtin"
    built_in = {_name(Path(line)) for line in listed.read_text().splitlines()} if listed.is_file() else set()
    loaded: dict[str, KernelModule] = {}

    def load(name: str) -> None:
        if name in loaded or name in built_in:
            return
        if name not in files:
            raise ModuleMissingError(f"the module {name}")
        data = _read(files[name])
        for needed in needs(data):
            load(needed)
        loaded[name] = KernelModule(name, data)

    for name in wanted:
        load(name)
    return list(loaded.values())


def needs(module: bytes) -> list[str]:
    """The names of the modules that this one says it needs."""
    _, found, rest = module.partition(b"\0depends=")
    text = rest.partition(b"\0")[0].decode() if found else ""
    return [name.replace("-", "_") for name in text.split(",") if name]


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _read(path: Path) -> bytes:
    read = _READERS.get("".join(path.suffixes))
    if read is None:
        raise ModuleMissingError(f"a way to unpack the module {path}")
    return read(path.read_bytes())
