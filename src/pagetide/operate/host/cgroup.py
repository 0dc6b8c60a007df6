"""The control group that a VM's process is in, and what is charged to it (Documentation/admin-guide/cgroup-v2.rst).

Memory is charged to the group of who touched it first; after a discard, to that of who touches it next. So what another
process touched of a guest's memory, as a daemon does that fills it, is charged there and not here.
"""

import contextlib
from pathlib import Path

import msgspec

from pagetide.operate.sizes import LARGEST, Size

_ROOT = Path("/sys/fs/cgroup")


class CgroupFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is charged to the group, which may have other processes.

    Attributes:
        charged_bytes: in RAM (memory.current).
        limit_bytes: what may be (memory.max); None for no limit.
        swapped_bytes: in swap (memory.swap.current); None where that is not counted.
        shared_bytes: shared memory and tmpfs among what is charged (`shmem` in memory.stat); None likewise.
    """

    charged_bytes: Size
    limit_bytes: Size | None
    swapped_bytes: Size | None
    shared_bytes: Size | None


def cgroup_of(pid: int, root: Path = _ROOT) -> CgroupFacts | None:
    """What is charged to the group of this process; None in the root's, with version 1, or where it may not be read."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
        paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
        return None if not paths else read_group(root / paths[0].lstrip("/"))
    return None


def read_group(folder: Path) -> CgroupFacts | None:
    """The same of a group by its folder.

    Raises:
        OSError: it cannot be read.
        ValueError: what stands there is no number.
    """
    current = folder / "memory.current"
    if not current.exists():
        return None
    limit = (folder / "memory.max").read_text().strip()
    statistics = dict(line.split()[:2] for line in (folder / "memory.stat").read_text().splitlines() if " " in line)
    swap = folder / "memory.swap.current"
    return CgroupFacts(
        charged_bytes=_size(current.read_text()),
        limit_bytes=None if limit == "max" else _size(limit),
        swapped_bytes=_size(swap.read_text()) if swap.exists() else None,
        shared_bytes=_size(statistics["shmem"]) if "shmem" in statistics else None,
    )


def _size(text: str) -> int:
    return min(max(0, int(text)), LARGEST)
