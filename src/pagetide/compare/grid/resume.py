"""Whether an interrupted grid can be gone on with: same cells, same versions, same costs."""

from collections.abc import Sequence

from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store
from pagetide.workers.database import ResultsError

_CODE = ("pagetide", "python", "numpy", "numba")
_MACHINE = ("kernel", "cpu")


def cells_left(store: Store, wanted: Sequence[Cell] | None, versions: dict[str, str], costs_name: str) -> list[Cell]:
    """The planned cells that have not been run.

    Args:
        store: what is there.
        wanted: the cells that were asked for; None for those that are planned.
        versions: what would run them.
        costs_name: digest and name of what things would cost.

    Raises:
        ResultsError: nothing is planned, other cells are, or other versions or costs ran what is done.
    """
    planned, runs = store.planned(), store.runs()
    anew = "start anew with another --out"
    if not planned:
        raise ResultsError(f"no grid was planned in {store.folder}: {anew}")
    if wanted is not None and {cell.key for cell in wanted} != {cell.key for cell in planned}:
        raise ResultsError(f"{store.folder} has another grid: --resume needs none of its options again, or {anew}")
    for run in runs:
        other = _difference(run, versions, costs_name)
        if other is not None:
            raise ResultsError(f"the results in {store.folder} are of {other}, and would not compare: {anew}")
    done = {run.key for run in runs}
    return [cell for cell in planned if cell.key not in done]


def _difference(run: Run, versions: dict[str, str], costs_name: str) -> str | None:
    """What a run was made with that is not what there is now; None if that is the same."""
    live = run.cell.machine == "live"
    for name in _CODE + (_MACHINE if live else ()):
        if run.versions.get(name) != versions[name]:
            return f"{name} {run.versions.get(name)}, this is {versions[name]}"
    if not live and run.costs.split()[:1] != costs_name.split()[:1]:
        return f"the costs {run.costs}, these are {costs_name}"
    return None
