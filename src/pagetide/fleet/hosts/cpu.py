"""What returning memory costs in CPU time, from what came back and what was touched again.

By the costs that the simulated machine is made of (machine/costs.py), per block as that machine counts them: a report's
share and each block's, of the guest's worker and of the host, or for `shared`, which reports nothing, a batch's share
and each frame that the host takes; discarding the block; a fault for each page that is touched again. All that came
back is taken to have come in blocks of the setting's own order, the smallest that it reports: larger ones are cheaper.
A balloon's pages are told of 256 at a time, as they go and as they come back, and each is discarded for itself, as
where none lies beside another. What walking, looking at frames, searching for pages and taking locks costs is not in
it, so that this is no bound.
"""

from typing import NamedTuple

from pagetide.fleet.learning.settings import SETTINGS
from pagetide.guest.allocator.balloon_pages import PFNS_ORDER
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.units import PAGE_SIZE_BYTES

_NS_PER_S = 1e9
_PS_PER_NS = 1000


class Cpu(NamedTuple):
    """CPU time in seconds.

    Attributes:
        reports_s: of guests and hosts for what came back; with `shared` of the host, which takes it.
        refaults_s: of guests for what was touched again.
    """

    reports_s: float
    refaults_s: float


def cpu_of(setting: str, returned_bytes: float, refaulted_bytes: float, costs: Costs) -> Cpu:
    """What a setting costs.

    Args:
        setting: a name in SETTINGS.
        returned_bytes: what came back under it.
        refaulted_bytes: what was touched again.
        costs: what things cost.

    Raises:
        ConfigError: the costs have none of its backing, or of taking frames.
    """
    config = RunConfig(**SETTINGS[setting])
    backing = costs.backing(config.backing)
    order = 0 if config.design == "balloon" else config.order
    pages, capacity = 1 << order, config.capacity
    if config.design == "shared":
        a_batch_ns, a_block_ns = costs.of_taking().batch.ns, costs.of_taking().frame.ns
    elif config.design == "balloon":
        told_ns = costs.report.ns + costs.element.ns + costs.report_block.ns + costs.element_block.ns
        a_batch_ns, a_block_ns, capacity = 2 * told_ns, 0.0, 1 << PFNS_ORDER
    else:
        a_batch_ns = costs.report.ns + costs.element.ns
        a_block_ns = costs.report_block.ns + costs.element_block.ns
    discard_ns = backing.punch.ns + pages * int(backing.page_ps()[order]) / _PS_PER_NS
    blocks = returned_bytes / (pages * PAGE_SIZE_BYTES)
    refaults_ns = refaulted_bytes / PAGE_SIZE_BYTES * backing.fault.ns
    return Cpu(blocks * (a_batch_ns / capacity + a_block_ns + discard_ns) / _NS_PER_S, refaults_ns / _NS_PER_S)
