"""How often hosts are short and what it leads to: against plain Python, and by hand."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.fleet.hosts.answering.answer import Answer, Pressed
from pagetide.fleet.hosts.answering.registry import ANSWERS
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.hosts.pressure import demand_of, pressure_of

HOST = Host(ram_bytes=110, reserve_bytes=10, swap_bytes=30)
STEPS = 4

VMS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 120), min_size=STEPS, max_size=STEPS)), min_size=1, max_size=6
)
"""The host and what is held by step, of each VM."""


def pressed_of(vms: list[tuple[int, list[int]]], used_share: float = 0.5) -> Pressed:
    """Hosts with these VMs, each of which uses so much of what is held for it; the numbers of hosts have no gap."""
    names = sorted({host for host, _ in vms})
    hosts = np.array([names.index(host) for host, _ in vms])
    held = np.array([row for _, row in vms], np.float32)
    return Pressed(HOST, held, held * np.float32(used_share), hosts, demand_of(held, np.arange(len(vms)), hosts), 300)


def by_host(rows: npt.NDArray[np.float32], hosts: npt.NDArray[np.int64]) -> list[list[float]]:
    """The sums of rows in plain Python."""
    return [
        [sum(float(row[step]) for row, on in zip(rows, hosts, strict=True) if on == host) for step in range(STEPS)]
        for host in sorted(set(hosts.tolist()))
    ]


@settings(max_examples=50)
@given(VMS)
def test_pressure_is_as_in_plain_python(vms: list[tuple[int, list[int]]]) -> None:
    """How long, how often anew and how deep, host by host and step by step."""
    pressed = pressed_of(vms)
    demand = by_host(pressed.held_bytes, pressed.hosts)
    over = [max(0.0, now - 100) for host in demand for now in host]
    begun = sum(now > 100 and (step == 0 or host[step - 1] <= 100) for host in demand for step, now in enumerate(host))
    found = pressure_of(pressed.demand, HOST.room_bytes)
    assert found == (len(demand), len(over), sum(one > 0 for one in over), begun, sum(over), max(over))


@settings(max_examples=50)
@given(VMS)
def test_swap_and_balloon_are_as_in_plain_python(vms: list[tuple[int, list[int]]]) -> None:
    """Swap has what is beyond the room as far as there is swap; a balloon takes what is not used before that."""
    pressed = pressed_of(vms)
    demand, used = by_host(pressed.held_bytes, pressed.hosts), by_host(pressed.used_bytes, pressed.hosts)
    over = [max(0.0, now - 100) for host in demand for now in host]
    spare = [now - uses for host, of in zip(demand, used, strict=True) for now, uses in zip(host, of, strict=True)]
    taken = [min(pair) for pair in zip(over, spare, strict=True)]
    for name, took in (("swap", [0.0] * len(over)), ("balloon", taken)):
        left = [beyond - less for beyond, less in zip(over, took, strict=True)]
        found = ANSWERS[name](pressed)
        assert found.taken_byte_steps == sum(took)
        assert found.swapped_byte_steps == sum(min(one, 30) for one in left)
        assert found.short_steps == sum(one > 30 for one in left)


def moved_plainly(pressed: Pressed) -> tuple[int, float, list[float]]:
    """Migration in plain Python: moves, bytes, and what is beyond the room after them, by step and host."""
    hosts, moves, sent, left = pressed.hosts.tolist(), 0, 0.0, list[float]()
    count = max(hosts) + 1
    for step in range(STEPS):
        holds = [float(row[step]) for row in pressed.held_bytes]

        def demand(host: int, holds: list[float] = holds) -> float:
            return sum(held for held, on in zip(holds, hosts, strict=True) if on == host)

        for host in range(count):
            while (over := demand(host) - 100) > 0:
                own = sorted((held, vm) for vm, held in enumerate(holds) if hosts[vm] == host and held > 0)
                enough = [vm for held, vm in own if held >= over]
                chosen = enough[0] if enough else max(own, key=lambda one: (one[0], -one[1]))[1]
                to = min(range(count), key=demand)
                if demand(to) + holds[chosen] > 100:
                    break
                hosts[chosen] = to
                moves, sent = moves + 1, sent + holds[chosen]
        left += [max(0.0, demand(host) - 100) for host in range(count)]
    return moves, sent, left


@settings(max_examples=50)
@given(VMS)
def test_migration_is_as_in_plain_python(vms: list[tuple[int, list[int]]]) -> None:
    """The smallest VM that is enough, or the largest, to the emptiest host, for good; swap has what is left."""
    pressed = pressed_of(vms)
    moves, sent, left = moved_plainly(pressed)
    found = ANSWERS["migration"](pressed)
    assert (found.moves, found.moved_bytes) == (moves, sent)
    assert found.swapped_byte_steps == sum(min(one, 30) for one in left)
    assert pressed.hosts.tolist() == pressed_of(vms).hosts.tolist(), "what was asked about stays as it was"


def test_the_largest_is_killed_and_comes_back() -> None:
    """It is down for ten minutes, two steps, in which there is no pressure; then it is killed again."""
    found = ANSWERS["kill"](pressed_of([(0, [60, 60, 60, 60]), (0, [50, 50, 50, 50])]))
    assert found == Answer(kills=2, down_steps=4)


def test_kills_go_on_until_it_is_enough() -> None:
    """Three of 60 on a host of 100: two are killed at once, and nothing once there is no pressure."""
    found = ANSWERS["kill"](pressed_of([(0, [60, 0, 0, 0])] * 3))
    assert found == Answer(kills=2, down_steps=4)


@pytest.mark.parametrize("name", ANSWERS)
def test_without_pressure_nothing_is_done(name: str) -> None:
    """A host that is just full is not short."""
    assert ANSWERS[name](pressed_of([(0, [50] * STEPS), (0, [50] * STEPS), (1, [100] * STEPS)])) == Answer()
