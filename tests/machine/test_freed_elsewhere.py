"""Streams of which one vCPU frees what another allocated, on both machines."""

from pathlib import Path

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.workload.stream import Mark, Stream
from pagetide.workload.stream_file import save_stream
from tests.machine.watcher import Watcher

MIB = 1 << 20


def early() -> Stream:
    """The first block of a slot is freed by its own vCPU, late for what it does before; the next by one that is not."""
    return Stream(
        np.arange(5, dtype=np.float64) * 1e-6,
        np.array([ALLOCATE, ALLOCATE, FREE, ALLOCATE, FREE], np.uint8),
        np.array([6, 0, 0, 0, 0], np.uint8),
        np.array([9, 0, 0, 0, 0], np.int32),
        np.zeros(5, np.uint16),
        (Mark(0, "early"),),
        4e-6,
        np.array([0, 0, 0, 0, 1], np.uint16),
    )


@pytest.mark.parametrize("machine", ["simulated", pytest.param("live", marks=[pytest.mark.slow, pytest.mark.jit])])
def test_who_frees_for_another_is_early_and_all_ends(machine: str, tmp_path: Path) -> None:
    """It waits for the block that is meant, and takes no earlier one of the slot."""
    save_stream(early(), tmp_path / "early.parquet")
    config = RunConfig(ram_bytes=16 * MIB, design="off", stream=str(tmp_path / "early.parquet"))
    made: Machine = LiveMachine(config) if machine == "live" else SimulatedMachine(config, read_costs())
    result = made.run(Watcher())
    assert result.outcome == "complete"
    assert result.stamp_errors == 0
