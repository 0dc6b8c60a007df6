"""A cluster: placed by what its first half shows, counted over the rest, and drawn anew by its seed."""

import numpy as np
import pytest
from msgspec.structs import replace

from pagetide.fleet.guests.held import HELD
from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.guests.response import ALL_RETURNS, NOTHING_RETURNS
from pagetide.fleet.hosts.cluster import Cluster, Question, cluster
from pagetide.fleet.hosts.cpu import cpu_of
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.hosts.placing.registry import Plan
from pagetide.fleet.usage.canonical import Grid, Usage
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import read_costs
from pagetide.units import GIB

ALL, NOTHING = Mixture.of(ALL_RETURNS), Mixture.of(NOTHING_RETURNS)
HOST = Host(64 * GIB, 4 * GIB, 8 * GIB)


def made_up(draws: int, seed: int = 1, number: int = 0) -> Cluster:
    """Forty VMs over two days, under what returns all."""
    usage, _ = MadeUp(40, 2, 1).read(0, 40)
    return cluster(usage, ALL, Question((Plan("quantile", 0.9),), HOST, "swap", draws, seed), number)


def test_vms_are_placed_by_the_first_half_and_counted_over_the_rest() -> None:
    """Two VMs whose peaks were apart share a host, and are short when they come together."""
    used = np.array([[60, 10, 60, 60], [10, 60, 60, 10], [0, 0, 0, 0]], np.float32)
    capacity = np.array([[80] * 4, [80] * 4, [0] * 4], np.float32)
    usage = Usage(Grid(0, 3600, 4), ("a", "b", "c"), capacity, used, np.ones(used.shape, np.bool_))
    plans = (Plan("peak-of-sum"), Plan("reservation"))
    found = cluster(usage, ALL, Question(plans, Host(100, 0, 15), "swap", 0, 1), 0)
    together, apart = found.placed
    assert (together.vms, together.pressure) == (2, (1, 2, 1, 1, 20, 20))
    assert apart.pressure == (2, 4, 0, 0, 0, 0)
    assert found.answers["peak-of-sum"].short_steps == 1
    assert found.heat["peak-of-sum"].tolist() == [[pytest.approx(1.2)]]
    kept = cluster(usage, NOTHING, Question(plans, Host(100, 0, 15), "swap", 0, 1), 0).placed[0]
    assert kept.pressure.hosts == 2, "what returns nothing held both peaks at the end of the first half"


def test_vms_that_are_gone_by_then_take_no_place() -> None:
    """One that was on in the first half alone is no VM that needs nothing, also among those that are drawn."""
    used = np.array([[50, 50, 50, 50], [50, 50, 0, 0]], np.float32)
    usage = Usage(Grid(0, 3600, 4), ("a", "b"), used * 2, used, used > 0)
    found = cluster(usage, ALL, Question((Plan("reservation"),), Host(100, 0, 0), "swap", 20, 1), 0)
    for one, chosen in zip(found.placed, [np.arange(2), *found.drawn], strict=True):
        assert one.vms == np.count_nonzero(chosen == 0)
        assert one.pressure.hosts == one.vms, "each that is placed has a host to itself"
    assert {one.vms for one in found.placed} == {0, 1, 2}


def test_an_hour_of_which_nothing_is_known_is_reserved_for() -> None:
    """By the peak of the sum two VMs whose peaks are apart share a host, but not if one's low hours are unknown."""
    used = np.array([[60, 10, 60, 10], [10, 60, 10, 60]], np.float32)
    question = Question((Plan("peak-of-sum"),), Host(100, 0, 0), "swap", 0, 1)
    hosts = []
    for known_first in (True, False):
        valid = np.ones(used.shape, np.bool_)
        valid[1, 0] = known_first
        usage = Usage(Grid(0, 3600, 4), ("a", "b"), np.where(valid, 80, 0).astype(np.float32), used * valid, valid)
        hosts.append(cluster(usage, ALL, question, 0).placed[0].pressure.hosts)
    assert hosts == [1, 2]


def test_the_seed_and_the_number_decide_the_draws() -> None:
    """The same again, others for another seed or cluster; whatever is drawn, as many are placed."""
    first = made_up(3)
    assert made_up(3).placed == first.placed
    for other in (made_up(3, seed=2), made_up(3, number=1)):
        assert (other.drawn != first.drawn).any()
    assert {one.vms for one in first.placed} == {40}
    assert made_up(1).drawn.tolist() == first.drawn[:1].tolist(), "more draws leave the first ones as they are"


@pytest.mark.parametrize("draws", [0, 2])
def test_a_cluster_that_is_never_on_needs_no_host(draws: int) -> None:
    """None of its VMs is placed or drawn, and nothing is held for them."""
    nothing = np.zeros((3, 4), np.float32)
    usage = Usage(Grid(0, 3600, 4), ("a", "b", "c"), nothing, nothing, np.ones(nothing.shape, np.bool_))
    question = Question((Plan("peak-of-sum"), Plan("quantile", 0.9)), HOST, "migration", draws, 1)
    found = cluster(usage, ALL, question, 0)
    assert found.drawn.shape == (draws, 0)
    assert {(one.vms, one.pressure.hosts) for one in found.placed} == {(0, 0)}
    assert len(found.placed) == 2 * (draws + 1)
    assert found.series.held_bytes.sum() == 0


def test_rows_add_up_to_what_the_model_says() -> None:
    """Each VM's series is what its figures say of it."""
    found = made_up(0).series
    assert found.held_bytes.sum(1, dtype=np.float64) == pytest.approx(found.figures[:, HELD], rel=1e-5)


def test_cpu_follows_from_bytes_and_costs() -> None:
    """By hand for one block of 2 MiB with `linux-9`; single pages cost more for the same memory."""
    costs = read_costs()
    backing = costs.backings["memfd"]
    block = (costs.report.ns + costs.element.ns) / 32 + costs.report_block.ns + costs.element_block.ns
    discard = backing.punch.ns + 512 * int(backing.page_ps()[9]) / 1000
    found = cpu_of("linux-9", 2 << 20, 4096, costs)
    assert found.reports_s == pytest.approx((block + discard) / 1e9)
    assert found.refaults_s == pytest.approx(backing.fault.ns / 1e9)
    assert costs.taking is not None
    taken = costs.taking.batch.ns / 32 + costs.taking.frame.ns
    assert cpu_of("shared", 2 << 20, 0, costs).reports_s == pytest.approx((taken + discard) / 1e9)
    with pytest.raises(ConfigError, match="have none of the design shared"):
        cpu_of("shared", 0, 0, replace(costs, taking=None))
    assert cpu_of("linux-0", 2 << 20, 4096, costs).reports_s > 5 * found.reports_s
    told = 2 * (costs.report.ns + costs.element.ns + costs.report_block.ns + costs.element_block.ns)
    alone = 256 * (backing.punch.ns + int(backing.page_ps()[0]) / 1000)
    assert cpu_of("balloon", 1 << 20, 0, costs).reports_s == pytest.approx((told + alone) / 1e9)


def test_a_mixture_gives_each_vm_one_of_its_parts() -> None:
    """By the seed; for each is held what its part holds, and a larger share has the VMs of a smaller one, too."""
    usage, _ = MadeUp(40, 2, 1).read(0, 40)
    question = Question((Plan("reservation"),), HOST, "swap", 0, 1)
    parts, all_of = (ALL_RETURNS, NOTHING_RETURNS), [cluster(usage, one, question, 3).series for one in (ALL, NOTHING)]
    before: set[int] = set()
    for share in (0.2, 0.5, 0.9):
        mixed = cluster(usage, Mixture("mixed", parts, (share, 1 - share)), question, 3).series
        first = set(np.flatnonzero(mixed.parts == 0).tolist())
        assert before < first
        assert abs(len(first) - 40 * share) <= 1
        for vm in range(40):
            assert (mixed.held_bytes[vm] == all_of[0 if vm in first else 1].held_bytes[vm]).all()
            assert (mixed.figures[vm] == all_of[0 if vm in first else 1].figures[vm]).all()
        before = first
    assert (mixed.parts != cluster(usage, Mixture("mixed", parts, (0.5, 0.5)), question, 4).series.parts).any()
