"""What a real guest is made of, where Debian has it, and which package brings what is missing."""

import os
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import NamedTuple

from pagetide.machine.architectures import AMD64, Architecture
from pagetide.machine.config import ConfigError
from pagetide.machine.kernel_modules import KernelModule, ModuleMissingError, modules_to_load
from pagetide.machine.qemu_process import QEMU

GENERIC_DEVICE = "vhost-user-test-device-pci"
"""QEMU's device that attaches any virtio device behind a vhost-user socket (QEMU 10.2 and newer)."""

_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_QEMU_PACKAGES = "qemu-system-x86 seabios"
_UML_WANTED = ("virtio_balloon",)
_PCI_WANTED = ("virtio_pci", "virtio_balloon")
_ELF_MAGIC = b"\x7fELF"
_PT_INTERP = 3


class GuestParts(NamedTuple):
    """The files of a guest.

    Attributes:
        kernel: the program linux.uml, or a kernel's image for QEMU.
        release: the kernel's release, such as 6.1.176.
        modules: those that it has to load, in order.
        busybox: a static busybox.
    """

    kernel: Path
    release: str
    modules: list[KernelModule]
    busybox: Path


class QemuProgram(NamedTuple):
    """A QEMU.

    Attributes:
        path: the program.
        version: as it tells it, such as 7.2.22; for people.
    """

    path: Path
    version: str


def guests_folder() -> Path:
    """Where `tools/setup_guests` unpacks what the system's own packages do not have."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pagetide" / "guests"


def find_uml(kernel: Path | None = None, *, search_path: str | None = None) -> GuestParts:
    """Find the files of a User-Mode Linux guest.

    Args:
        kernel: the program; otherwise linux.uml on the search path. Its modules are in ../lib/uml/modules beside it.
        search_path: folders to look for programs in, as in PATH, which is the default.

    Raises:
        ConfigError: one is missing; the sentence says which, and what installs it.
    """
    found = which("linux.uml" if kernel is None else kernel, path=search_path)
    if found is None:
        raise _missing("the program linux.uml" if kernel is None else f"the program {kernel}", "user-mode-linux")
    release = _ask_version(found)
    if not re.fullmatch(r"\d+\.\d+\S*", release):
        raise ConfigError(f"{found} is no User-Mode Linux: asked for its version, it says {release[:60]!r}")
    folders = [program.parent.parent / "lib/uml/modules" / release for program in (Path(found), Path(found).resolve())]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    modules = _modules(folder, found, _UML_WANTED, "user-mode-linux")
    return GuestParts(Path(found), release, modules, _find_busybox(search_path))


def find_linux(
    kernel: Path | None = None,
    *,
    architecture: Architecture = AMD64,
    root: Path = Path("/"),
    search_path: str | None = None,
) -> GuestParts:
    """Find the files of a Linux guest for QEMU.

    Args:
        kernel: its image, FOLDER/boot/vmlinuz-RELEASE, with modules in FOLDER/lib/modules/RELEASE or in usr/lib;
            otherwise the newest of those that `tools/setup_guests` unpacked, or of those installed.
        architecture: the guest's. The files of another one than AMD64 are only looked for in the guests' folder.
        root: where installed ones are.
        search_path: as for `find_uml`.

    Raises:
        ConfigError: one is missing; the sentence says which, and what installs it.
    """
    if architecture is not AMD64:
        return _find_foreign_linux(kernel, architecture)
    if kernel is None:
        images = [image for top in (guests_folder() / "linux", root) for image in _newest_first(top)]
        if not images:
            raise _missing(f"a Linux kernel for the guest (vmlinuz-* in {root / 'boot'})", _KERNEL_PACKAGE)
        kernel = images[0]
    folder, release = _modules_of(kernel)
    modules = _modules(folder, str(kernel), _PCI_WANTED, _KERNEL_PACKAGE)
    return GuestParts(kernel, release, modules, _find_busybox(search_path))


def _find_foreign_linux(kernel: Path | None, architecture: Architecture) -> GuestParts:
    top = guests_folder() / f"linux-{architecture.name}"
    install = f"as root on Debian, make setup-guests ARCH={architecture.name}"
    busybox = next((path for name in ("usr/bin", "bin") if (path := top / name / "busybox").is_file()), None)
    images = [kernel] if kernel else _newest_first(top)
    if not images or busybox is None:
        raise ConfigError(f"the files of a guest of {architecture.name} are missing: {install}")
    folder, release = _modules_of(images[0])
    try:
        modules = modules_to_load(folder, architecture.modules)
    except ModuleMissingError as missing:
        raise ConfigError(f"{missing} of {images[0]}, in {folder}, is missing: {install}") from missing
    return GuestParts(images[0], release, modules, busybox)


def find_qemu(
    program: Path | None = None,
    *,
    generic: bool,
    architecture: Architecture = AMD64,
    search_path: str | None = None,
) -> QemuProgram:
    """Find a QEMU.

    Args:
        program: the one to take; otherwise the first on the search path and then in the guests' folder that will do.
        generic: whether it must have the device that attaches a vhost-user balloon. It is asked, whatever its version.
        architecture: the guest's.
        search_path: as for `find_uml`.

    Raises:
        ConfigError: there is none, or none has the device; the sentence says what to do.
    """
    name = architecture.program
    names: list[str | Path] = [name, guests_folder() / "bin" / name] if program is None else [program]
    found = [path for name in names if (path := which(str(name), path=search_path)) is not None]
    if not found:
        if architecture.program != QEMU:
            raise ConfigError(
                f"the program {program or name} is missing: as root on Debian, make setup-guests "
                f"ARCH={architecture.name}"
            )
        raise _missing(f"the program {program or QEMU}", _QEMU_PACKAGES)
    for path in found:
        if not generic or _has_device(path, GENERIC_DEVICE):
            match = re.search(r"version (\S+)", _ask_version(path))
            return QemuProgram(Path(path), match[1] if match else "of no known version")
    raise ConfigError(
        f"{' and '.join(found)} cannot attach a guest to our balloon: there is no device {GENERIC_DEVICE}; name a QEMU "
        "that has it with --qemu (10.2 or newer), or run the guest on QEMU's own balloon with --peer"
    )


def _modules_of(kernel: Path) -> tuple[Path, str]:
    """The folder of a kernel image's modules, and its release.

    Raises:
        ConfigError: there is no such image.
    """
    if not kernel.is_file():
        raise ConfigError(f"there is no kernel {kernel}")
    release = kernel.name.partition("-")[2]
    folders = [kernel.absolute().parent.parent / name / release for name in ("lib/modules", "usr/lib/modules")]
    return next((folder for folder in folders if folder.is_dir()), folders[0]), release


def is_static(program: bytes) -> bool:
    """Whether this is a 64-bit ELF program that asks for no loader: it has no program header PT_INTERP (elf(5))."""
    if len(program) < 64 or program[:5] != _ELF_MAGIC + b"\x02":
        return False
    order = "big" if program[5] == 2 else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(program[offset : offset + size], order)  # type: ignore[arg-type]

    table, entry_bytes, count = number(32, 8), number(54, 2), number(56, 2)
    return all(number(table + index * entry_bytes, 4) != _PT_INTERP for index in range(count))


def _newest_first(top: Path) -> list[Path]:
    def key(image: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", image.name)]

    return sorted((top / "boot").glob("vmlinu[xz]-*"), key=key, reverse=True)


def _modules(folder: Path, kernel: str, wanted: tuple[str, ...], package: str) -> list[KernelModule]:
    try:
        return modules_to_load(folder, wanted)
    except ModuleMissingError as missing:
        raise _missing(f"{missing} of {kernel}, in {folder},", package) from missing


def _find_busybox(search_path: str | None) -> Path:
    busybox = which("busybox", path=search_path)
    if busybox is None:
        raise _missing("the program busybox", "busybox-static")
    if not is_static(Path(busybox).read_bytes()):
        raise _missing(f"a busybox that needs no libraries ({busybox} does)", "busybox-static")
    return Path(busybox)


def _has_device(qemu: str, device: str) -> bool:
    """Whether a QEMU has something to say of this device; its exit status is 0 in any case."""
    done = subprocess.run([qemu, "-device", f"{device},help"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    return f"{device} options" in done.stdout


def _ask_version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{program} does not tell its version: {error}") from error
    return done.stdout.strip()


def _missing(what: str, package: str) -> ConfigError:
    return ConfigError(f"{what} is missing: as root, apt-get install {package}")
