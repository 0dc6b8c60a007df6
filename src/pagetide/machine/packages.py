"""What a real guest is made of, where Debian has it, and which package brings what is missing."""

import subprocess
from pathlib import Path
from shutil import which
from typing import NamedTuple

from pagetide.machine.config import ConfigError

UML_PACKAGES = ("user-mode-linux", "busybox-static")
"""Debian packages that a User-Mode Linux guest needs."""

_UML_MODULES = Path("/usr/lib/uml/modules")
_BALLOON_MODULE = Path("kernel/drivers/virtio/virtio_balloon.ko")
_ELF_MAGIC = b"\x7fELF"
_PT_INTERP = 3


class UmlParts(NamedTuple):
    """The files of a User-Mode Linux guest.

    Attributes:
        kernel: the program linux.uml.
        release: its kernel's release, such as 6.1.176.
        module: its virtio_balloon.ko.
        busybox: a static busybox.
    """

    kernel: Path
    release: str
    module: Path
    busybox: Path


def find_uml(search_path: str | None = None, modules: Path = _UML_MODULES) -> UmlParts:
    """Find the files of a User-Mode Linux guest.

    Args:
        search_path: folders to look for programs in, as in PATH, which is the default.
        modules: the folder with a folder of modules for each release.

    Raises:
        ConfigError: one is missing; the sentence says which, and what installs it.
    """
    kernel = which("linux.uml", path=search_path)
    if kernel is None:
        raise _missing("the program linux.uml", "user-mode-linux")
    release = _release(kernel)
    module = modules / release / _BALLOON_MODULE
    if not module.is_file():
        raise _missing(f"the balloon's module of {kernel}, {module},", "user-mode-linux")
    busybox = which("busybox", path=search_path)
    if busybox is None:
        raise _missing("the program busybox", "busybox-static")
    if not is_static(Path(busybox).read_bytes()):
        raise _missing(f"a busybox that needs no libraries ({busybox} does)", "busybox-static")
    return UmlParts(Path(kernel), release, module, Path(busybox))


def is_static(program: bytes) -> bool:
    """Whether this is a 64-bit ELF program that asks for no loader: it has no program header PT_INTERP (elf(5))."""
    if len(program) < 64 or program[:5] != _ELF_MAGIC + b"\x02":
        return False
    order = "big" if program[5] == 2 else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(program[offset : offset + size], order)  # type: ignore[arg-type]

    table, entry_bytes, count = number(32, 8), number(54, 2), number(56, 2)
    return all(number(table + index * entry_bytes, 4) != _PT_INTERP for index in range(count))


def _release(kernel: str) -> str:
    try:
        done = subprocess.run([kernel, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{kernel} does not tell its version: {error}") from error
    return done.stdout.strip()


def _missing(what: str, package: str) -> ConfigError:
    return ConfigError(f"{what} is missing: as root, apt-get install {package}")
