"""What a simulated run takes is told before it begins."""

import subprocess
import sys

import pytest

from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import read_costs
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated import memory_need
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.machine.simulated.memory_need import needed_bytes
from pagetide.units import format_size

GIB = 1 << 30
_MEASURE = """
from pathlib import Path
from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.costs import read_costs
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine
def peak_bytes():  # getrusage's would have the parent's in it
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
before = peak_bytes()
config = RunConfig(**workload_defaults({workload!r}) | {{"ram_bytes": {ram_bytes}}})
assert SimulatedMachine(config, read_costs()).run(Nobody()).outcome == "complete"
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.jit
@pytest.mark.parametrize("workload", ["day", "burst", "churn", "web", "database"])
def test_it_is_about_what_a_run_takes(workload: str) -> None:
    """Not less, and not twice as much."""
    config = RunConfig(**workload_defaults(workload) | {"ram_bytes": 16 * GIB})
    script = _MEASURE.format(workload=workload, ram_bytes=config.ram_bytes)
    taken = int(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert taken < needed_bytes(config) < 2 * taken


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with both figures, before anything is made."""
    config = RunConfig(ram_bytes=1024 * GIB)
    monkeypatch.setattr(memory_need, "available_bytes", lambda: GIB)
    with pytest.raises(ConfigError, match=f"about {format_size(needed_bytes(config))} of memory, and 1 GiB are"):
        SimulatedMachine(config, read_costs())


def test_a_limit_of_addresses_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest's addresses are mapped, whatever of them is touched."""
    monkeypatch.setattr(memory_need, "address_space_bytes", lambda: 4 * GIB)
    with pytest.raises(ConfigError, match=r"of addresses, and the limit .* leaves 4 GiB"):
        SimulatedMachine(RunConfig(ram_bytes=8 * GIB), read_costs())


def test_a_run_that_runs_out_says_so_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback, and with how much it takes."""

    def fails(*_: object) -> None:
        raise MemoryError

    config = RunConfig(ram_bytes=64 << 20, bursts=1)
    monkeypatch.setattr("pagetide.machine.simulated.guest.SimulatedGuest.advance", fails)
    outcome = SimulatedMachine(config, read_costs()).run(Nobody()).outcome
    assert outcome.startswith("there is not enough memory: simulating this guest takes about ")
