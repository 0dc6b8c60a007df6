"""What a real guest is made of, where Debian has it, and which package brings what is missing."""

import contextlib
import os
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import NamedTuple

from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import AMD64, Architecture
from pagetide.machine.linux.kernel_modules import (
    KernelModule,
    ModuleMissingError,
    UnpackerMissingError,
    modules_to_load,
)
from pagetide.machine.linux.uml_probe import probe_uml
from pagetide.machine.qemu.process import QEMU

GENERIC_DEVICE = "vhost-user-test-device-pci"
"""QEMU's device that attaches any virtio device behind a vhost-user socket (QEMU 10.2 and newer)."""

_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_QEMU_PACKAGES = "qemu-system-x86 seabios"
_UML_WANTED = ("virtio_balloon",)
_PCI_WANTED = ("virtio_pci", "virtio_balloon")
_BARE_IMAGES = ("vmlinuz", "vmlinux")
_ELF_MAGIC = b"\x7fELF"
_PT_INTERP = 3


_NEWER_UML = (
    "name another with --kernel (Linux 7.2 runs on processors with AMX), or as root on Debian, make setup-guests "
    "unpacks one that runs"
)


class _DoesNotRunError(ConfigError):
    """A kernel does not run on this machine; another may."""


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
    """Find the files of a User-Mode Linux guest that runs on this machine. The first time that takes a boot.

    Args:
        kernel: the program; otherwise the first that runs of linux.uml on the search path and in the guests' folder.
            Its modules are in ../lib/uml/modules beside it.
        search_path: folders to look for programs in, as in PATH, which is the default.

    Raises:
        ConfigError: one is missing, or none runs; the sentence says which and why, and what to do.
    """
    failures = []
    for found in _uml_programs(kernel, search_path):
        try:
            return _uml_parts(found, search_path)
        except _DoesNotRunError as failure:
            failures.append(str(failure))
    raise ConfigError(f"{'; '.join(failures)}; {_NEWER_UML}")


def find_umls(*, search_path: str | None = None) -> list[GuestParts]:
    """Each User-Mode Linux that runs on this machine, the one that `find_uml` takes first; none is an empty list."""
    running = []
    with contextlib.suppress(ConfigError):
        for found in _uml_programs(None, search_path):
            with contextlib.suppress(ConfigError):
                running.append(_uml_parts(found, search_path))
    return running


def find_linux(
    kernel: Path | None = None,
    *,
    architecture: Architecture = AMD64,
    root: Path = Path("/"),
    search_path: str | None = None,
) -> GuestParts:
    """Find the files of a Linux guest for QEMU.

    Args:
        kernel: its image, FOLDER/boot/vmlinuz-RELEASE with modules in FOLDER/lib/modules/RELEASE or in usr/lib, or
            .../modules/RELEASE/vmlinuz beside its modules, where Debian 14 has it; or a link to one. Otherwise the
            newest of those that `tools/setup_guests` unpacked, or of those installed.
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
            where = f"vmlinuz-* in {root / 'boot'}, vmlinuz in {root / 'usr/lib/modules/*'}"
            raise _missing(f"a Linux kernel for the guest ({where})", _KERNEL_PACKAGE)
        kernel = images[0]
    folder, release = _modules_of(kernel)
    modules = _modules(folder, str(kernel), _PCI_WANTED, _KERNEL_PACKAGE)
    return GuestParts(kernel, release, modules, find_busybox(search_path=search_path))


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
    except (ModuleMissingError, UnpackerMissingError) as missing:
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
    named = kernel if _has_release(kernel) else kernel.resolve()  # such as /vmlinuz, a link
    release = _release(named)
    top = named.absolute().parent.parent
    beside = [named.absolute().parent] if named.name in _BARE_IMAGES else []
    folders = [*beside, *(top / name / release for name in ("lib/modules", "usr/lib/modules"))]
    return next((folder for folder in folders if folder.is_dir()), folders[0]), release


def _uml_programs(kernel: Path | None, search_path: str | None) -> list[Path]:
    names: list[str | Path] = ["linux.uml", guests_folder() / "bin/linux.uml"] if kernel is None else [kernel]
    found = [Path(path) for name in names if (path := which(str(name), path=search_path)) is not None]
    if not found:
        raise _missing("the program linux.uml" if kernel is None else f"the program {kernel}", "user-mode-linux")
    return found


def _uml_parts(found: Path, search_path: str | None) -> GuestParts:
    busybox = find_busybox(search_path=search_path)
    probe = probe_uml(found, busybox, guests_folder().parent / "probes")
    if probe.release is None:
        raise _DoesNotRunError(f"{found} {probe.failure}")
    folders = [program.parent.parent / "lib/uml/modules" / probe.release for program in (found, found.resolve())]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return GuestParts(found, probe.release, _modules(folder, str(found), _UML_WANTED, "user-mode-linux"), busybox)


def find_busybox(*, search_path: str | None = None) -> Path:
    """Find the busybox that a guest's first program is.

    Args:
        search_path: as for `find_uml`.

    Raises:
        ConfigError: there is none that needs no libraries; the sentence says what installs one.
    """
    busybox = which("busybox", path=search_path)
    if busybox is None:
        raise _missing("the program busybox", "busybox-static")
    if not is_static(Path(busybox).read_bytes()):
        raise _missing(f"a busybox that needs no libraries ({busybox} does)", "busybox-static")
    return Path(busybox)


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
        return [int(number) for number in re.findall(r"\d+", _release(image))]

    patterns = ("boot/vmlinu[xz]-*", "usr/lib/modules/*/vmlinu[xz]", "lib/modules/*/vmlinu[xz]")
    return sorted((image for pattern in patterns for image in top.glob(pattern)), key=key, reverse=True)


def _has_release(image: Path) -> bool:
    return image.name.partition("-")[0] in _BARE_IMAGES and (
        image.name not in _BARE_IMAGES or image.parent.parent.name == "modules"
    )


def _release(image: Path) -> str:
    """The release of a kernel's image, which its own name or that of its folder has."""
    return image.parent.name if image.name in _BARE_IMAGES else image.name.partition("-")[2]


def _modules(folder: Path, kernel: str, wanted: tuple[str, ...], package: str) -> list[KernelModule]:
    try:
        return modules_to_load(folder, wanted)
    except UnpackerMissingError as missing:
        raise _missing(f"{missing} of {kernel},", "zstd") from missing
    except ModuleMissingError as missing:
        raise _missing(f"{missing} of {kernel}, in {folder},", package) from missing


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
