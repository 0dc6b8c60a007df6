"""Commands start processes that run kernels as everywhere: one run is enough."""

from pathlib import Path

import pytest

from pagetide.compare.results.cells import repeats_of
from pagetide.compare.results.records import LeftOut
from pagetide.compare.results.store import Store
from pagetide.machine.config import RunConfig
from tests.commands.fake_machine import result_of
from tests.compare.results.test_compare_store import record_of
from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)

MIB = 1 << 20


def _config(design: str) -> RunConfig:
    return RunConfig(design="off" if design == "off" else "scan", ram_bytes=512 * MIB, bursts=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of two designs with three repeats each, of which one failed and one left nothing."""
    folder = tmp_path / "results"
    cells = [cell for design in ("off", "scan") for cell in repeats_of(_config(design), "simulated", 3)]
    with Store.create(folder) as store:
        store.plan(cells, [LeftOut("balloon", "it does not fit")])
        for number, cell in enumerate(cells):
            result = result_of(cell.config, mean_resident_bytes=(10 + number) * MIB)
            if number == 4:
                store.add(record_of(cell, result=result, outcome="the host stopped", failed=True))
            elif number == 5:
                store.add(record_of(cell, result=None, outcome="its worker was lost", failed=True))
            else:
                store.add(record_of(cell, result=result))
    return folder
