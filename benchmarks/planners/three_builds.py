"""Three VMs that build clang three times each, with their peaks apart: what a host holds for all of them at the most.

HyperAlloc (Wrenger, Albes, Wurps, Dietrich, Lohmann: EuroSys 2025, 5.6) measured it on 16 GiB and 8 cores a VM, two
hours from a build's slot to the next one's, 40 minutes from one VM to the next: nothing of ours is in its figures. The
builds' times, and the shape of what a build uses, are those of its samples (github.com/luhsra/hyperalloc-bench,
multivm/, VM 0): page cache grows slowly to 2 GiB, and to 5.5 GiB while programs are linked, in the last sixth; `clean`
takes all but half a gigabyte of it; compilers have 3.7 GiB among them, which moves by 0.85 GiB within the minute.
Their hosts back memory with pages of 2 MiB: what they hold grows in steps of that.

Here a compiler's memory grows over the first half of its life, and goes at its end; some pages beside one another are
touched together. Files are single pages. What stays of each build are files that compilers read, here and there among
what they make. All is scaled down by SCALE, but times: a report of Linux's 32 blocks is then one block. All three
settings have the times of HyperAlloc's run, though each had its own. The workload is fitted to what the samples say is
in use, and to nothing that they say is held.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import GIB, PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, Lives, lives
from pagetide.workload.mix import Mix
from pagetide.workload.plan import Plan, plan_of

SCALE = 32
_RAM_BYTES = 16 * GIB // SCALE
_BUILDS_S = (
    ((1, 5183), (7200, 19298), (19307, 31422)),
    ((2401, 11548), (11565, 21556), (21579, 31357)),
    ((4800, 14997), (15012, 26770), (26780, 33745)),
)
"""Each VM's builds, from when to when."""

_CLEAN_S = 12.0
_END_S = 36_150.0
_SYSTEM_BYTES = int(0.6 * GIB)
_CACHED_BYTES = ((0.0, 0.12), (0.08, 0.3), (0.36, 0.9), (0.44, 1.6), (0.86, 2.1), (0.95, 5.2), (1.0, 5.5))
"""What a build has in the page cache by its progress, in GiB; `clean` takes it."""

_READ_PROGRESS = 0.86
"""Sources are read until then; after it is linked."""

_STAYS_BYTES = (int(0.47 * GIB), int(0.24 * GIB), int(0.24 * GIB))
"""What stays of each build: sources, and what the kernel keeps about files."""

_JOBS = 8
_JOB_BYTES = 0.62 * GIB
"""A compiler has this in the second half of its life, and three quarters of it on average; some a half more or less."""

_JOB_S = 45.0
_JOB_MIX: Mix = {4: 0.4, 2: 0.4, 0: 0.2}

_GUEST: dict[str, Any] = {"ram_bytes": _RAM_BYTES, "vcpus": 1, "backing": "hugetmpfs"}
_SETTINGS = {
    "off": RunConfig(design="off", **_GUEST),
    "scan": RunConfig(design="scan", pace="linux", order=9, capacity=1, wake_blocks=1, **_GUEST),
    "shared": RunConfig(design="shared", **_GUEST),
}
PUBLISHED_GIB = {"off": 40.7, "scan": 36.0, "shared": 28.1}
"""The peak of the sum: without reporting, with Linux's, with HyperAlloc."""

_CLEANED_S = 6000.0
_AFTER_GIB = {"off": 13.2, "scan": 10.7, "shared": 7.2}
"""Held for VM 0 then; with Linux's reporting: all but what was free in whole 2 MiB, in the run without reporting."""

_OFF_SHARE = 0.1
_STEP_S = 5.0


def builds(vm: int) -> Plan:
    """What one VM does, scaled down."""
    rng = np.random.default_rng(vm)
    parts = [lives(np.zeros(_pages(_SYSTEM_BYTES)), STAYS, 0, 0)]
    for number, (begin_s, end_s) in enumerate(_BUILDS_S[vm]):
        parts += [
            _cached(begin_s, end_s),
            _read(rng, begin_s, begin_s + _READ_PROGRESS * (end_s - begin_s), _pages(_STAYS_BYTES[number])),
            _compilers(rng, begin_s, end_s),
        ]
    return plan_of(*parts, name="builds", end_s=_END_S, starting="booting")


def _pages(size_bytes: float) -> int:
    return int(size_bytes / SCALE / PAGE_SIZE_BYTES)


def _cached(begin_s: float, end_s: float) -> Lives:
    """The files that a build makes, in the order in which they are made; `clean` goes through them in that order."""
    progress, gib = zip(*_CACHED_BYTES, strict=True)
    pages = _pages(gib[-1] * GIB)
    born = np.interp(np.linspace(0.0, gib[-1], pages), gib, progress)
    return lives(begin_s + (end_s - begin_s) * born, end_s + np.linspace(0.0, _CLEAN_S, pages), 0, 0)


def _read(rng: np.random.Generator, begin_s: float, end_s: float, pages: int) -> Lives:
    return lives(np.sort(rng.uniform(begin_s, end_s, pages)), STAYS, 0, 0)


def _compilers(rng: np.random.Generator, begin_s: float, end_s: float) -> Lives:
    """Jobs one after the other on each of the cores, as long as they end before the build does."""
    columns = []
    for _ in range(_JOBS):
        now_s, until_s = begin_s, begin_s + rng.uniform(0.2, 1.8) * _JOB_S
        while until_s < end_s:
            columns.append(_compiler(rng, now_s, until_s, _JOB_BYTES * rng.uniform(0.5, 1.5)))
            now_s, until_s = until_s, until_s + rng.uniform(0.2, 1.8) * _JOB_S
    born_s, dies_s, order = (np.concatenate(column) for column in zip(*columns, strict=True))
    return lives(born_s, dies_s, order, 0)


def _compiler(
    rng: np.random.Generator, begin_s: float, end_s: float, size_bytes: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    orders = [
        np.full(round(_pages(size_bytes * share) / (1 << order)), order, np.uint8) for order, share in _JOB_MIX.items()
    ]
    order = rng.permutation(np.concatenate(orders))
    return np.linspace(begin_s, (begin_s + end_s) / 2, len(order)), np.full(len(order), end_s), order


def held(setting: str, vm: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the host holds for a VM and what that uses, every five seconds, in GiB of the VM that was not scaled down.

    Raises:
        RuntimeError: the guest did not get through.
    """
    result = SimulatedMachine(_SETTINGS[setting], read_costs(None), work=builds(vm)).run(Nobody())
    if result.outcome != "complete":
        raise RuntimeError(f"{setting}, VM {vm}: {result.outcome}")
    at_s, samples = np.array(result.samples.t_s), result.samples
    steps_s = np.arange(0.0, _END_S, _STEP_S)
    columns = (np.array(column, np.float64) for column in (samples.host_resident_bytes, samples.guest_used_bytes))
    resident, used = (np.interp(steps_s, at_s, column) * SCALE / GIB for column in columns)
    return resident, used


def run() -> Iterator[Row]:
    """Measure; the order is what is asked, and each within a tenth of what is published."""
    peaks, after = dict[str, float](), dict[str, float]()
    for setting, published in PUBLISHED_GIB.items():
        name = f"three VMs' builds, peak of the sum, {setting}"
        try:
            vms = [held(setting, vm) for vm in range(len(_BUILDS_S))]
        except RuntimeError as failed:
            yield Row(name, None, "GiB", note=str(failed))
            continue
        sums = np.sum(vms, axis=0)
        after[setting] = float(vms[0][0][int(_CLEANED_S / _STEP_S)])
        peaks[setting] = float(sums[0].max())
        yield Row(
            name,
            peaks[setting],
            "GiB",
            at_least=(1 - _OFF_SHARE) * published,
            at_most=(1 + _OFF_SHARE) * published,
            note=f"published {published:g} GiB, {peaks[setting] / published - 1:+.0%}; used {sums[1].max():.1f} GiB",
        )
    for setting, held_gib in after.items():
        note = f"of its samples {_AFTER_GIB[setting]:g} GiB, with 1.1 GiB in use"
        yield Row(f"the first VM after its first build, {setting}", held_gib, "GiB", note=note)
    for more, less in (("off", "scan"), ("scan", "shared")):
        if more in peaks and less in peaks:
            yield Row(f"three VMs' builds, {more} / {less}", peaks[more] / peaks[less], "ratio", at_least=1.0)
