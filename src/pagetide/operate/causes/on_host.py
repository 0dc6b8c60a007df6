"""Why the host holds memory whatever the guest does: what is in its swap."""

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
