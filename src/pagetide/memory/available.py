"""How much memory the machine has, and how much of it new guests could still use."""

import resource
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


def total_bytes(proc: Path = _PROC) -> int:
    """The machine's memory (`MemTotal`, proc_meminfo(5))."""
    return _meminfo(proc)["MemTotal"]


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """What this process's memory files could still take before the kernel kills for memory.

    That is `MemAvailable` and free swap, to which tmpfs pages can go, or less: the room in the process's control group
    or one of its ancestors (`memory.max` less `memory.current`, Documentation/admin-guide/cgroup-v2.rst), whose files
    in the page cache do not count: they go before the kernel kills. Limits of control groups of version 1 are not seen.
    """
    meminfo = _meminfo(proc)
    room_bytes = [meminfo["MemAvailable"] + meminfo["SwapFree"], *_group_rooms(proc, cgroup)]
    return max(0, min(room_bytes))


def address_space_bytes(proc: Path = _PROC) -> int | None:
    """How much more this process may map (RLIMIT_AS, getrlimit(2)); None if that is not limited."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit_bytes == resource.RLIM_INFINITY:
        return None
    mapped_pages = int((proc / "self/statm").read_text().split()[0])
    return max(0, limit_bytes - mapped_pages * resource.getpagesize())


def _meminfo(proc: Path) -> dict[str, int]:
    lines = (proc / "meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}


def _group_rooms(proc: Path, cgroup: Path) -> list[int]:
    """Room in bytes of each of this process's control groups that has a limit."""
    lines = (proc / "self/cgroup").read_text().splitlines()
    unified = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    group, rooms_bytes = cgroup, []
    for name in ("", *Path(unified).parts[1:]):
        group /= name
        try:
            limit, current = (group / "memory.max").read_text(), (group / "memory.current").read_text()
            cache_bytes = _file_cache_bytes(group)
        except OSError:  # the root group has no limit, and a container may not see its outer ones
            continue
        if limit.strip() != "max":
            rooms_bytes.append(int(limit) - int(current) + cache_bytes)
    return rooms_bytes


def _file_cache_bytes(group: Path) -> int:
    """What a control group has in the page cache, and gives up for other memory; memory files are not in it."""
    values = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(values["active_file"]) + int(values["inactive_file"])
