"""Which targets are let pass: what a guest has and what it uses, by its own statistics, decide."""

from typing import NamedTuple

import pytest

from pagetide.host.daemon.targets import TargetError, check_targets, used_bytes
from pagetide.units import GIB, MIB, PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Config


class Guest(NamedTuple):
    """One that has 1 GiB, with 256 MiB of it in its balloon, and tells that 300 MiB are available."""

    ram_bytes: int = GIB
    config: Config = Config(num_pages=0, actual=256 * MIB // PAGE_SIZE_BYTES, free_page_hint_cmd_id=0, poison_val=0)
    statistics: dict[str, int] = {"avail": 300 * MIB, "memtot": 700 * MIB}  # noqa: RUF012


USED = GIB - 256 * MIB - 300 * MIB


def test_what_a_guest_uses_is_neither_available_nor_in_its_balloon() -> None:
    """By its own figures; unknown without them, and before it has shared any memory."""
    assert used_bytes(Guest()) == USED
    assert used_bytes(Guest(statistics={"memtot": GIB})) is None
    assert used_bytes(Guest(ram_bytes=0)) is None
    assert used_bytes(Guest(statistics={"avail": 1 << 62})) == 0


def test_less_than_a_guest_uses_must_be_meant() -> None:
    """A target below that is refused with both figures, unless it is forced; at it, it passes."""
    check_targets("vm", [Guest()], USED, force=False)
    with pytest.raises(TargetError, match=r"^vm uses 468 MiB by its own statistics, .* with 400 MiB; --force"):
        check_targets("vm", [Guest()], 400 * MIB, force=False)
    check_targets("vm", [Guest()], 400 * MIB, force=True)
    check_targets("vm", [Guest(statistics={})], MIB, force=False)


def test_more_than_a_guest_has_cannot_be_forced() -> None:
    """But for the little that a kernel keeps out of what it shares; nor can nothing at all."""
    check_targets("vm", [Guest()], GIB + GIB // 8, force=False)
    for target_bytes in (GIB + GIB // 8 + 1, 0):
        with pytest.raises(TargetError, match="target=none"):
            check_targets("vm", [Guest()], target_bytes, force=True)


def test_of_a_guest_that_is_not_there_only_nothing_is_refused() -> None:
    """What it will have is not known."""
    check_targets("vm", [], 1 << 62, force=False)
    check_targets("vm", [Guest(ram_bytes=0)], 1 << 62, force=False)
    with pytest.raises(TargetError, match="no memory at all"):
        check_targets("vm", [], 0, force=False)
