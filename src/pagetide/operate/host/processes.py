"""The processes that run VMs on this host, and what the kernel holds for each. Only /proc is read."""

import contextlib
import itertools
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pagetide.operate.host.guest_ram import guest_ram, range_bytes
from pagetide.operate.host.page_tables import page_bytes_at, pages_of
from pagetide.operate.host.smaps import Mapping, read_smaps
from pagetide.operate.host.vmm_facts import Kind, RamMapping, Vmm, VmmFacts
from pagetide.operate.host.vmm_options import (
    backends_of,
    balloon_sockets,
    find_balloons,
    holds_device,
    passes_devices,
    which_vmm,
)
from pagetide.units import PAGE_SIZE_BYTES

_STAT_BLOCK_BYTES = 512  # the unit of st_blocks, stat(3type)
_NAME_MAX = 40

_NO_PAGES = ("[vvar", "[vsyscall")
"""How mappings are called that the kernel counts no pages of."""

_SHARED_ANONYMOUS = "/dev/zero (deleted)"
"""As the kernel calls a shared mapping without a file (shmem_zero_setup, mm/shmem.c, Linux 6.18)."""


class ProcessError(Exception):
    """A process cannot be looked at; the message says why."""


def look_at(pid: int, backends: Sequence[int] = (), *, counts_others: bool = True) -> VmmFacts:
    """What the kernel tells of a VM's process.

    Args:
        pid: which process.
        backends: sizes of its memory backends, as its monitor has them; without, as its command line has them.
        counts_others: whether to look who else maps it, into every process of this host.

    Raises:
        ProcessError: there is none, it may not be looked at, or it has no memory that could be a guest's.
    """
    try:
        words = _words(pid)
        vmm = which_vmm(_program(pid), words)
        sizes = backends_of(vmm, words, backends)
        is_passed = passes_devices(words) or holds_device(_descriptors(pid))
        by_tables = None if is_passed else _by_page_tables(pid, vmm, sizes)
        mappings = by_tables or list(read_smaps(proc_text(pid, "smaps")))
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessError(f"there is no process {pid}") from None
    except PermissionError:
        raise ProcessError(f"process {pid} may not be looked at: run this as root, or as the VM's user") from None
    if not mappings:  # its parent has not asked how it ended yet
        raise ProcessError(f"process {pid} has ended")
    ram, is_guessed = guest_ram(vmm, mappings, sizes)
    if not ram:
        raise ProcessError(f"process {pid} ({vmm}) has no memory that could be a guest's")
    parts = tuple(_ram_mapping(pid, of_file, counts_others=counts_others) for of_file in ram)
    taken = {mapping.start for of_file in ram for mapping in of_file}
    others = [mapping for mapping in mappings if mapping.start not in taken]
    return VmmFacts(
        vmm=vmm,
        pid=pid,
        ram=parts,
        ram_is_guessed=is_guessed,
        own_bytes=sum(mapping.resident_bytes for mapping in others),
        own_swapped_bytes=sum(mapping.swapped_bytes for mapping in others),
        balloons=find_balloons(vmm, words),
        passes_devices=is_passed,
        told_by="PAGEMAP_SCAN" if by_tables else "smaps",
    )


def _by_page_tables(pid: int, vmm: Vmm, sizes: Sequence[int]) -> list[Mapping] | None:
    """What it maps and what is there of it, as smaps has that; None where the page tables do not tell all of it.

    They do where the guest's memory is shared, and nothing is in swap on this host, locked, or on hugetlbfs.
    """
    mappings = list(read_smaps(proc_text(pid, "maps")))
    ram = [mapping for of_file in guest_ram(vmm, mappings, sizes)[0] for mapping in of_file]
    if not ram or not all(mapping.is_shared and mapping.inode for mapping in ram) or _has_what_they_lack(pid):
        return None
    try:
        if any(page_bytes_at(pid, mapping.start) != PAGE_SIZE_BYTES for mapping in ram):
            return None
        return [_with_figures(pid, mapping) for mapping in mappings]
    except OSError:  # the kernel has not the one or the other, or the process has gone
        return None


def _has_what_they_lack(pid: int) -> bool:
    told = dict(line.partition(":")[::2] for line in proc_text(pid, "status").split("\n"))
    memory = dict(line.partition(":")[::2] for line in Path("/proc/meminfo").read_text().splitlines())
    is_elsewhere = any(int(told.get(name, "0 kB").split()[0]) for name in ("VmLck", "VmPin", "HugetlbPages"))
    return is_elsewhere or memory["SwapFree"].split() != memory["SwapTotal"].split()


def _with_figures(pid: int, mapping: Mapping) -> Mapping:
    if mapping.name.startswith(_NO_PAGES):
        return mapping
    pages = pages_of(pid, mapping.start, mapping.end)
    figures = {"Rss": pages.there_bytes, "AnonHugePages": pages.huge_bytes, "KernelPageSize": PAGE_SIZE_BYTES}
    return mapping._replace(figures=figures)


def find_vms() -> Iterator[int]:
    """The processes on this host that run a VM, as far as they may be looked at."""
    for entry in sorted(Path("/proc").iterdir(), key=lambda path: path.name.zfill(9)):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            vmm = which_vmm(_program(pid), _words(pid))
            if vmm != "not known" and not _is_helper(pid, vmm):
                yield pid


def vmm_of(pid: int) -> Vmm:
    """Which VMM this process is; `not known` for one that may not be looked at."""
    with contextlib.suppress(OSError):
        return which_vmm(_program(pid), _words(pid))
    return "not known"


def libvirt_uuid_of(pid: int) -> str | None:
    """The UUID of a VM that libvirt has started, as QEMU's command line has it; None for any other."""
    with contextlib.suppress(OSError):
        options = dict(itertools.pairwise(_words(pid)))
        if options.get("-name", "").startswith("guest="):  # as libvirt has it
            return options.get("-uuid")
    return None


def name_of(pid: int) -> str | None:
    """What a QEMU's command line calls its VM (-name), as far as it can be printed; None for any other."""
    with contextlib.suppress(OSError):
        name = dict(itertools.pairwise(_words(pid))).get("-name", "").partition(",")[0].removeprefix("guest=")
        return "".join(each if each.isprintable() else "?" for each in name[:_NAME_MAX]) or None
    return None


def ram_ranges(pid: int) -> list[tuple[int, int]]:
    """Where in a VM's process its guest's memory is, as far as that is known by name, else what is largest.

    Raises:
        OSError: there is none, or it may not be looked at.
    """
    mappings = list(read_smaps(proc_text(pid, "maps")))
    vmm = vmm_of(pid)
    ram, _ = guest_ram(vmm, mappings, backends_of(vmm, _words(pid), ()))
    return sorted((each.start, each.end) for of_file in ram for each in of_file)


def proc_text(pid: int, name: str) -> str:
    """One of the kernel's files on a process. Its lines end with a line feed, and names in them may have all else.

    Raises:
        OSError: there is none, or it may not be read.
    """
    return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")


def sockets_of(pid: int) -> list[Path]:
    """Where the balloons of a VM are that are behind a socket, resolved; none if it may not be looked at."""
    with contextlib.suppress(OSError, RuntimeError):  # the latter for symbolic links in a circle
        words, folder = _words(pid), Path(f"/proc/{pid}/cwd").readlink()
        return [(folder / path).resolve() for path in balloon_sockets(which_vmm(_program(pid), words), words)]
    return []


def _is_helper(pid: int, vmm: Vmm) -> bool:
    """A User-Mode Linux has a process for each of its own; those are its children."""
    parent = _parent(pid)
    return vmm == "User-Mode Linux" and parent > 0 and which_vmm(_program(parent), _words(parent)) == vmm


def _parent(pid: int) -> int:
    status = proc_text(pid, "stat")
    return int(status.rpartition(")")[2].split()[1])


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]


def _program(pid: int) -> str:
    """The program's name. A loader may have started it, so the first word is asked, too."""
    words = _words(pid)
    try:
        name = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        name = ""
    if name.startswith("ld-linux") or not name:
        name = next((Path(word).name for word in words if which_vmm(Path(word).name, ()) != "not known"), name)
    return name


def _ram_mapping(pid: int, of_file: Sequence[Mapping], *, counts_others: bool) -> RamMapping:
    first = max(of_file, key=lambda mapping: mapping.size_bytes)
    size_bytes, kind = range_bytes(of_file), _kind(pid, first)
    swapped_bytes = min(sum(mapping.swapped_bytes for mapping in of_file), size_bytes)
    held_bytes = min(sum(mapping.resident_bytes for mapping in of_file) + swapped_bytes, size_bytes)
    if kind in {"memfd", "tmpfs", "hugetlbfs"} and first.is_shared:
        # the file holds what others touched, too, of which this process's page tables know nothing
        file_bytes = _file_held_bytes(pid, first)
        held_bytes = held_bytes if file_bytes is None else file_bytes
    file_bytes = None
    if not first.is_shared and kind in {"memfd", "tmpfs"} and (file_bytes := _file_held_bytes(pid, first)) is not None:
        # it has copies of its own, and what it maps besides is the file's
        copied_bytes = sum(mapping.figures.get("Anonymous", 0) for mapping in of_file)
        held_bytes = min(copied_bytes + swapped_bytes, size_bytes)
    huge = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
    return RamMapping(
        kind=kind,
        is_shared=first.is_shared,
        size_bytes=size_bytes,
        held_bytes=held_bytes,
        swapped_bytes=min(swapped_bytes, held_bytes),
        huge_bytes=min(sum(first.figures.get(name, 0) for name in huge), held_bytes),
        page_bytes=first.figures.get("KernelPageSize", 0),
        is_locked="lo" in first.flags,
        file_bytes=file_bytes,
        others=_others(pid, first) if counts_others and first.is_shared and first.inode else 0,
    )


def _others(pid: int, mapping: Mapping) -> int:
    """How many other processes, as far as they may be looked at, map the same file; of its own it may have many."""
    found = 0
    wanted = f" {mapping.inode} "
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != pid:
            with contextlib.suppress(OSError):
                text = Path(entry, "maps").read_bytes()
                if wanted.encode() in text:  # few have it, and there may be thousands
                    lines = text.decode(errors="replace").split("\n")
                    maps = any(wanted in line and line.endswith(mapping.name) for line in lines)
                    found += maps and _parent(int(entry.name)) != pid
    return found


def _kind(pid: int, mapping: Mapping) -> Kind:
    if mapping.is_hugetlb:
        return "hugetlbfs"
    if mapping.inode == 0:
        return "anonymous"
    if mapping.name.startswith("/memfd:"):
        return "memfd"
    if mapping.name == _SHARED_ANONYMOUS:
        return "anonymous"
    return "tmpfs" if _file_system(pid, mapping.device) == "tmpfs" else "file"


def _file_system(pid: int, device: str) -> str:
    """The type of the file system that is this device, as the process has it mounted; empty if it has not."""
    with contextlib.suppress(OSError):
        for line in proc_text(pid, "mountinfo").split("\n")[:-1]:
            where, _, what = line.partition(" - ")
            number = where.split()[2]  # in decimal, and smaps has it in hexadecimal (proc(5))
            if [int(each) for each in number.split(":")] == [int(each, 16) for each in device.split(":")]:
                return what.split()[0]
    return ""


def _descriptors(pid: int) -> Iterator[str]:
    """Names of what a process has open, as far as that may be read."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())


def _file_held_bytes(pid: int, mapping: Mapping) -> int | None:
    """By st_blocks of the mapping's file, as one of the process's descriptors has it; None if none may be read."""
    name = mapping.name.removesuffix(" (deleted)")
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                status = entry.stat()
                is_it = stat.S_ISREG(status.st_mode) and status.st_ino == mapping.inode
                if is_it and str(entry.readlink()).startswith(name):
                    return status.st_blocks * _STAT_BLOCK_BYTES
    return None
