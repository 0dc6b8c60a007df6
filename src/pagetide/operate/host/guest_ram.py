"""Which mappings of a VM's process are its guest's memory: by what its VMM says, by name, or by size."""

from collections import defaultdict
from collections.abc import Sequence

from pagetide.operate.host.smaps import Mapping
from pagetide.operate.host.vmm_facts import Vmm
from pagetide.units import MIB

_RAM_BYTES_MIN = 32 * MIB
"""No VM has less RAM in one piece."""

_BY_NAME = (
    "/memfd:memory-backend-memfd",
    "/memfd:ram",
    "/dev/shm/qemu-",  # noqa: S108 - QEMU makes it there
    "/memfd:crosvm_guest",
    "/memfd:ch_ram",
    "/memfd:guest_mem",
)
"""How the guest's memory is called where a VMM gives it a name."""


def guest_ram(vmm: Vmm, mappings: Sequence[Mapping], backends: Sequence[int]) -> tuple[list[list[Mapping]], bool]:
    """The mappings that are the guest's RAM, by what they map, and whether that is a guess.

    What its VMM says comes first: memory that has a name may be but one of a guest's nodes.

    A User-Mode Linux maps its memory file whole, and parts of it again (vmalloc), so all of a file's count as one.
    """
    by_file: dict[tuple[int, int], list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        if "w" in mapping.permissions:
            by_file[(mapping.inode, 0) if mapping.inode else (0, mapping.start)].append(mapping)
    large = [each for each in by_file.values() if range_bytes(each) >= _RAM_BYTES_MIN]
    if vmm == "User-Mode Linux":
        shared = [each for each in large if each[0].is_shared and each[0].inode]
        return ([max(shared, key=range_bytes)] if shared else []), False
    # QEMU's translator has a buffer that is executable, and no guest's RAM is
    plain = [each for each in large if "x" not in each[0].permissions]
    told = _of_sizes(plain, backends)
    if told:
        return told, False
    named = [each for each in plain if _is_named(each)]
    if named:
        return named, False
    return ([max(plain, key=range_bytes)] if plain else []), True


def _is_named(of_file: Sequence[Mapping]) -> bool:
    return of_file[0].name.startswith(_BY_NAME) or of_file[0].is_hugetlb


def _of_sizes(found: Sequence[list[Mapping]], backends: Sequence[int]) -> list[list[Mapping]]:
    """One mapping for each of these sizes; none if they are not all there. Neighbours of one kind are one mapping."""
    left, told = list(found), []
    for size_bytes in sorted(backends, reverse=True):
        fitting = [each for each in left if range_bytes(each) >= size_bytes]
        if size_bytes < _RAM_BYTES_MIN:
            continue
        if not fitting:
            return []
        told.append(min(fitting, key=lambda each: (range_bytes(each), not _is_named(each))))
        left.remove(told[-1])
    return told


def range_bytes(of_file: Sequence[Mapping]) -> int:
    """How much of a file is mapped, each part of it once; of no file, how much memory."""
    if not of_file[0].inode:
        return of_file[0].size_bytes
    total, end = 0, 0
    for mapping in sorted(of_file, key=lambda each: each.offset):
        mapped_end = mapping.offset + mapping.size_bytes
        total += max(0, mapped_end - max(end, mapping.offset))
        end = max(end, mapped_end)
    return total
