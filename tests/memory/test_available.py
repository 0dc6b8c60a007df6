"""How much memory there is, by proc and by control groups."""

import os
from pathlib import Path

import pytest

from pagetide.memory.available import available_bytes, total_bytes

pytestmark = pytest.mark.jit  # no kernel is called

MIB = 1 << 20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc that tells of 8 GiB, 4 GiB of them available, and 1 GiB of free swap, in control group /a/b."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self/cgroup").write_text("3:cpu:/other\n0::/a/b\n")
    values = {"MemTotal": 8192, "MemFree": 1024, "MemAvailable": 4096, "SwapFree": 1024}
    lines = [f"{name}:  {mib * 1024} kB\n" for name, mib in values.items()]
    (folder / "meminfo").write_text("".join([*lines, "HugePages_Total:       0\n"]))
    return folder


def limit(group: Path, limit_bytes: int | str, current_bytes: int, files_bytes: tuple[int, int] = (0, 0)) -> None:
    """Give a control group a limit, and files in the page cache: active ones and others."""
    group.mkdir(parents=True, exist_ok=True)
    active_bytes, inactive_bytes = files_bytes
    stat = {"anon": 5 * MIB, "file": sum(files_bytes) + MIB, "shmem": MIB, "inactive_anon": 3 * MIB,
            "active_anon": 3 * MIB, "inactive_file": inactive_bytes, "active_file": active_bytes}  # fmt: skip
    (group / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))
    (group / "memory.max").write_text(f"{limit_bytes}\n")
    (group / "memory.current").write_text(f"{current_bytes}\n")


def test_this_machine() -> None:
    """On this machine the total is what sysconf(3) says, and some of it is available."""
    assert total_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available_bytes() > 0


def test_available_memory_and_free_swap_count(proc: Path, tmp_path: Path) -> None:
    """Without limits, what is available and the free swap can be used."""
    assert total_bytes(proc) == 8192 * MIB
    assert available_bytes(proc, tmp_path) == 5120 * MIB


def test_the_tightest_control_group_decides(proc: Path, tmp_path: Path) -> None:
    """A limit counts from any ancestor, less what its group uses; `max` is none."""
    limit(tmp_path / "a/b", "max", 7 * MIB)
    assert available_bytes(proc, tmp_path) == 5120 * MIB
    limit(tmp_path / "a", 512 * MIB, 100 * MIB)
    assert available_bytes(proc, tmp_path) == 412 * MIB
    limit(tmp_path / "a/b", 100 * MIB, 60 * MIB)
    assert available_bytes(proc, tmp_path) == 40 * MIB


def test_files_in_the_page_cache_leave_room(proc: Path, tmp_path: Path) -> None:
    """They are given up before anybody is killed; pages of memory files, which are `shmem`, are not."""
    limit(tmp_path / "a/b", 512 * MIB, 500 * MIB, (100 * MIB, 300 * MIB))
    assert available_bytes(proc, tmp_path) == 412 * MIB


def test_a_containers_own_group_is_the_root(proc: Path, tmp_path: Path) -> None:
    """In a container, whose groups are not where its path says, the limit at the root counts."""
    limit(tmp_path, 64 * MIB, 0)
    assert available_bytes(proc, tmp_path) == 64 * MIB


def test_more_used_than_allowed_leaves_nothing(proc: Path, tmp_path: Path) -> None:
    """A group above its limit has no room, not a negative one."""
    limit(tmp_path / "a", 64 * MIB, 65 * MIB)
    assert available_bytes(proc, tmp_path) == 0
