"""The modules that a guest's kernel has to load before it has a balloon, in the order in which they load.

A module says itself which others it needs (`depends=` in its .modinfo section, scripts/mod/modpost.c), so no list of
depmod's is asked for: a kernel package that was only unpacked has none.
"""

import gzip
import lzma
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


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


class UnpackerMissingError(ModuleMissingError):
    """A module is there, but the program that unpacks it is not."""


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
    try:
        return read(path.read_bytes())
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError, subprocess.CalledProcessError) as error:
        raise ModuleMissingError(f"a module {path} that can be unpacked") from error


def _unpack_zstd(data: bytes) -> bytes:
    """With the program, since Python's own library can do it only from 3.14 on."""
    command = ["zstd", "--decompress", "--stdout", "--quiet"]
    try:
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout  # noqa: S603 - no input in it
    except FileNotFoundError as error:
        raise UnpackerMissingError("the program zstd, which unpacks the modules") from error


_READERS: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".ko.gz": gzip.decompress,
    ".ko.xz": lzma.decompress,
    ".ko.zst": _unpack_zstd,
}
