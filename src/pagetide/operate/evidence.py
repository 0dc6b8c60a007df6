"""All that was gathered of one VM, as it is saved and answered later elsewhere: no names, addresses or contents."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.host.cgroup import CgroupFacts
from pagetide.operate.host.firecracker import FirecrackerFacts
from pagetide.operate.host.monitor_facts import MonitorFacts
from pagetide.operate.host.vmm_facts import VmmFacts
from pagetide.operate.sizes import Size, Word

_FILE_BYTES_MAX = 32 << 20

Sentence = Annotated[str, msgspec.Meta(max_length=1000)]


class EvidenceError(Exception):
    """A saved file cannot be used; the message says why."""


class DaemonFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `pagetide serve` tells of the guest.

    Attributes:
        state: as `pagetide ctl list` has it.
        is_paused: reports wait in the ring.
        is_inhibited: nothing is discarded.
        features: names of the features that were negotiated.
        target_bytes: memory that the guest is to make do with.
        balloon_bytes: in its balloon.
        reported_bytes: reported since it was attached.
        discarded_bytes: discarded of that.
        checked_bytes: read back of that; None if the daemon is older than this program.
        verified_bytes: what the kernel said was gone then.
        returned_bytes: how much of that the host had held; None if the daemon is older than that figure.
        refaulted_bytes: how much of that was touched again, as far as it was looked for; None likewise.
    """

    state: Word
    is_paused: bool
    is_inhibited: bool
    features: tuple[Word, ...]
    target_bytes: Size
    balloon_bytes: Size
    reported_bytes: Size
    discarded_bytes: Size
    verified_bytes: Size
    checked_bytes: Size | None = None
    returned_bytes: Size | None = None
    refaulted_bytes: Size | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was gathered.

    Attributes:
        format: of the file.
        taken: when, as ISO 8601 in UTC.
        vm: what the kernel tells of the process.
        guest: what the guest tells.
        monitor: what QEMU's monitor tells.
        firecracker: what a Firecracker's API tells.
        daemon: what our daemon tells.
        cgroup: what is charged to the process's control group.
        gaps: what could not be read, and what that leaves open, as sentences.
    """

    format: Literal[1] = 1
    taken: Word
    vm: VmmFacts
    guest: GuestFacts | None = None
    monitor: MonitorFacts | None = None
    firecracker: FirecrackerFacts | None = None
    daemon: DaemonFacts | None = None
    cgroup: CgroupFacts | None = None
    gaps: tuple[Sentence, ...] = ()

    @property
    def is_private_for_ours(self) -> bool:
        """Whether the balloon is behind a socket, to which private memory cannot be shared."""
        if self.daemon is not None and self.daemon.state == "no shared memory":
            return True
        behind_socket = any(each.is_ours for each in self.vm.balloons or ())
        return behind_socket and not all(part.is_shared for part in self.vm.ram)

    @property
    def answers_no_report(self) -> bool:
        """Whether a report that the guest makes waits: what is in it is in none of its free lists meanwhile."""
        return self.is_private_for_ours or (self.daemon is not None and self.daemon.is_paused)


def save_evidence(evidence: Evidence, path: Path) -> None:
    """Write the evidence to a file.

    Raises:
        OSError: it cannot be written.
    """
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=1) + b"\n")


def load_evidence(path: Path) -> Evidence:
    """The evidence that is in a file.

    Raises:
        EvidenceError: the file is not there, or is none of ours.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise EvidenceError(f"{path} is larger than {_FILE_BYTES_MAX >> 20} MiB: it is no evidence that `why` saved")
    try:
        return msgspec.json.decode(data, type=Evidence)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is no evidence that `pagetide why --save` wrote: {error}") from error
