"""Streams as a kernel is recorded, on both machines: another vCPU may free a block, and what can be moved is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import PAGEBLOCKS
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine
from pagetide.machine.result import RunResult
from pagetide.machine.simulated import machine as simulated
from pagetide.machine.tracing.recording import read_recording
from pagetide.workload.stream import Mark, Stream
from pagetide.workload.stream_file import save_stream
from tests.machine.tracing.recorded import LINUX_6_18, load
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


def run(machine: str, stream: Stream, folder: Path, **settings: Any) -> RunResult:
    """What becomes of a stream in a file."""
    save_stream(stream, folder / "stream")
    config = RunConfig(ram_bytes=16 * MIB, stream=str(folder / "stream"), **settings)
    config.check()
    made: Machine = LiveMachine(config) if machine == "live" else simulated.SimulatedMachine(config, read_costs())
    return made.run(Watcher())


ON_PROCESSES = [pytest.mark.slow, pytest.mark.jit]


@pytest.mark.parametrize("machine", ["simulated", pytest.param("live", marks=ON_PROCESSES)])
def test_who_frees_for_another_is_early_and_all_ends(machine: str, tmp_path: Path) -> None:
    """It waits for the block that is meant, and takes no earlier one of the slot."""
    result = run(machine, early(), tmp_path, design="off")
    assert result.outcome == "complete"
    assert result.stamp_errors == 0


@pytest.mark.parametrize("design", ["scan", "cursor"])
@pytest.mark.parametrize(
    ("machine", "migratetypes"),
    [("simulated", None), ("simulated", False), pytest.param("live", None, marks=ON_PROCESSES)],
)
def test_what_a_kernel_did_is_done_again(
    machine: str, design: str, migratetypes: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With free lists by migratetype, as the stream has them, and with one an order; the zone is sound behind it."""
    zones: list[Zone] = []

    def kept(*arguments: Any, **named: Any) -> Zone:
        zones.append(Zone(*arguments, **named))
        return zones[-1]

    monkeypatch.setattr(simulated, "Zone", kept)
    stream, _ = read_recording(load(LINUX_6_18).recording, "all")
    result = run(machine, stream, tmp_path, design=design, order=0, delay_s=0.0, migratetypes=migratetypes)
    assert result.outcome == "complete"
    assert result.stamp_errors == 0
    assert result.reported_bytes
    for zone in zones:
        zone.check()
        assert (zone.words[PAGEBLOCKS] != 0) == (migratetypes is None)
    assert len(zones) == (machine == "simulated")
