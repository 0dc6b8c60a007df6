"""VMs as they might be seen, made up."""

from typing import Any

from pagetide.operate.watch.seen import Seen

MIB = 1 << 20


def seen(name: str, **figures: Any) -> Seen:
    """A guest of the daemon's with 1 GiB, of which 512 MiB are held."""
    fields: dict[str, Any] = {
        "balloon": "ours", "state": "serving", "ram_bytes": 1024 * MIB, "held_bytes": 512 * MIB, "account": 1,
        "used_bytes": 300 * MIB, "returned_bytes": 0, "refaulted_bytes": 0, "lag_p99_us": 100,
    }  # fmt: skip
    return Seen(name=name, **(fields | figures))


def seen_by_kernel(name: str, pid: int, **figures: Any) -> Seen:
    """A VM on QEMU's own balloon."""
    fields: dict[str, Any] = {"ram_bytes": 2048 * MIB, "held_bytes": 2000 * MIB, "swapped_bytes": 0, "own_bytes": MIB}
    return Seen(name=name, pid=pid, vmm="QEMU", balloon="QEMU's, no reports", **(fields | figures))
