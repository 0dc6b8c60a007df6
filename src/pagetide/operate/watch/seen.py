"""One VM as it was seen at one time: by our daemon, whose guest it is, or by the kernel alone."""

import msgspec

from pagetide.operate.host.vmm_facts import VmmFacts
from pagetide.operate.watch.told_guests import ToldGuest


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A VM. What is not known of it is None.

    Attributes:
        name: the daemon's name of it, or what its command line calls it.
        pid: its VMM's process.
        vmm: which program that is.
        balloon: whose balloon it has, and whether that takes reports, in a few words.
        state: the daemon's word.
        ram_bytes: memory that it has.
        held_bytes: what the host holds of that, in RAM and in swap.
        swapped_bytes: as much of that is in swap.
        own_bytes: what its VMM has in RAM besides.
        used_bytes: what it has in use by its own statistics: all that is not available.
        target_bytes: memory that it is to make do with.
        balloon_bytes: what is in its balloon.
        reported_bytes: what it has reported since its account began.
        returned_bytes: as much came back, by reports and by the balloon.
        refaulted_bytes: as much of that was found there again.
        lag_p99_us: 99 of 100 reports waited no longer.
        account: the number of its account, which changes when counts begin anew.
        is_stale: whether the daemon does not answer, and this is what it told last.
    """

    name: str
    pid: int | None = None
    vmm: str | None = None
    balloon: str
    state: str | None = None
    ram_bytes: int
    held_bytes: int
    swapped_bytes: int | None = None
    own_bytes: int | None = None
    used_bytes: int | None = None
    target_bytes: int | None = None
    balloon_bytes: int | None = None
    reported_bytes: int | None = None
    returned_bytes: int | None = None
    refaulted_bytes: int | None = None
    lag_p99_us: int | None = None
    account: int | None = None
    is_stale: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it is a guest of our daemon's."""
        return self.account is not None


def of_daemon(guest: ToldGuest, vm: VmmFacts | None, *, is_stale: bool = False) -> Seen:
    """A guest of our daemon, with what the kernel says of its VMM if that was found."""
    ledger = guest.ledger
    state = "resting" if guest.resting else guest.state
    return Seen(
        name=guest.name,
        pid=None if vm is None else vm.pid,
        vmm=None if vm is None else vm.vmm,
        balloon="ours",
        state="no answer" if is_stale else state,
        ram_bytes=guest.ram_bytes,
        held_bytes=guest.held_bytes,
        own_bytes=None if vm is None else vm.own_bytes,
        used_bytes=_used_bytes(guest.statistics),
        target_bytes=guest.target_bytes,
        balloon_bytes=guest.balloon_bytes,
        reported_bytes=ledger["reported_bytes"],
        returned_bytes=ledger["returned_bytes"] + ledger["inflate_returned_bytes"],
        refaulted_bytes=ledger["refaulted_bytes"],
        lag_p99_us=guest.lag.p99_us if guest.lag.count else None,
        account=guest.account,
        is_stale=is_stale,
    )


def of_kernel(name: str, vm: VmmFacts, held_bytes: int, swapped_bytes: int) -> Seen:
    """A VM of which only its process is seen."""
    return Seen(
        name=name,
        pid=vm.pid,
        vmm=vm.vmm,
        balloon=_balloon(vm),
        ram_bytes=vm.ram_bytes,
        held_bytes=held_bytes,
        swapped_bytes=swapped_bytes,
        own_bytes=vm.own_bytes,
    )


def _used_bytes(statistics: dict[str, int]) -> int | None:
    """By `avail` (virtio 1.2, 5.5.6.4), or by `memfree` of a guest that does not tell it."""
    left = statistics.get("avail", statistics.get("memfree"))
    return None if left is None or "memtot" not in statistics else max(0, statistics["memtot"] - left)


def _balloon(vm: VmmFacts) -> str:
    if vm.balloons is None:
        return "not known"
    if not vm.balloons:
        return "none"
    if any(each.is_ours for each in vm.balloons):
        return "behind a socket"
    return f"{vm.vmm}'s" if any(each.offers_reporting for each in vm.balloons) else f"{vm.vmm}'s, no reports"
