"""Why the host holds memory whatever the guest does: locked, pinned, or in swap."""

from collections.abc import Iterator

from pagetide.operate.balance import Balance
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.units import format_size


def host_causes(evidence: Evidence, _: Balance, least_bytes: int) -> Iterator[Finding]:
    """What is found of all that."""
    vm = evidence.vm
    if vm.ram_swapped_bytes >= least_bytes:
        yield Finding(
            cause="host-swap",
            size_bytes=vm.ram_swapped_bytes,
            sentence=f"{format_size(vm.ram_swapped_bytes)} of the guest's memory are in the host's swap.",
            evidence=("Swap of the guest's memory (smaps)",),
            remedies=(
                Remedy(where="host", command="swapoff and swapon", note="reads it back, if there is room in RAM"),
            ),
            cost="reading it from the swap device",
        )
    if vm.passes_devices:
        yield Finding(
            cause="device-passed-through",
            size_bytes=None,
            sentence="A device is passed through to the guest (vfio): all of its memory is pinned, and nothing that it "
            "frees can be discarded.",
            evidence=("a vfio device on the command line",),
            remedies=(Remedy(where="VM", command="no passed-through device", note="from the next start on"),),
            cost="the device",
        )
