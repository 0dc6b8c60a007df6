"""Order 0's memory at order 9's cost: what `pool` reaches on page traces of a real kernel, against Linux's own scan.

Each trace is a stream in a Parquet file of the folder that --traces names, replayed by the simulated machine once for
each design and tuning. Saved is what the host holds less than with `off`, added up over time; the added CPU time is the
guest's and the host's beyond that with `off`. The allocator is measured with marks that keep blocks apart (`pool`
started) and without, by turns.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.prize import real_memory
from benchmarks.prize.lists import Listed, long_lists
from benchmarks.prize.picture import draw
from benchmarks.prize.replay import Replays, Trace, keeping, linux, operations_per_s, policies
from benchmarks.rows import Row
from benchmarks.turns import allocator_rows
from pagetide.units import GIB
from pagetide.workload.stream import StreamError
from pagetide.workload.stream_file import load_stream


def _asked(traces: list[Trace]) -> Iterator[Row]:
    """What is asked of `pool`, on each trace and on all."""
    order_0, order_9 = linux(0), linux(9)
    for trace in traces:
        zero, five = trace.outcomes[order_0], trace.outcomes[keeping(5)]
        yield Row(f"{trace.name}: held, G = 5 / order 0", five.held_bytes / zero.held_bytes, "ratio", at_most=1.03)
        yield Row(f"{trace.name}: added CPU, G = 5 / order 0", five.cpu_s / zero.cpu_s, "ratio", at_most=0.30)
    total = {
        label: (sum(t.outcomes[label].saved_byte_s for t in traces), sum(t.outcomes[label].cpu_s for t in traces))
        for label in (order_9, keeping(5), keeping(20))
    }
    saved_9, cpu_9 = total[order_9]
    saved_5, cpu_5 = total[keeping(5)]
    saved_20, cpu_20 = total[keeping(20)]
    each = (cpu_5 / saved_5) / (cpu_9 / saved_9)
    yield Row("all: CPU for each GiB min saved, G = 5 / order 9", each, "ratio", at_most=0.80)
    yield Row("all: saved, G = 20 / order 9", saved_20 / saved_9, "ratio", at_least=1.8)
    yield Row("all: added CPU, G = 20 / order 9", cpu_20 / cpu_9, "ratio", at_most=0.90)


def run(folder: Path, picture: Path | None, live_name: str | None = None) -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one.

    Args:
        folder: where the traces are, one a Parquet file.
        picture: where to draw what came of it, or None.
        live_name: which of the traces is replayed on real memory, too, if any.

    Raises:
        StreamError: a file is no stream, or there is none.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise StreamError(f"there is none in {folder}: a trace is a Parquet file")
    traces, listed = [], []
    for path in paths:
        stream = load_stream(path)
        replays = Replays(path.stem, stream)
        yield Row(f"{path.stem}, off: held", replays.off_bytes / GIB, "GiB")
        for policy in policies():
            outcome = replays.replay(policy)
            if policy.settings["design"] != "pool" and "pace" not in policy.settings:
                continue  # what the picture shows besides
            note = f"saved {outcome.saved_gib_min:.3f} GiB min for {outcome.cpu_s:.3f} s CPU"
            yield Row(f"{path.stem}, {policy.label}: held", outcome.held_bytes / GIB, "GiB", note=note)
        traces.append(replays.trace())
        for label, speed in operations_per_s(path.stem, stream).items():
            yield Row(f"{path.stem}, {label}: operations simulated", speed / 1e6, "M/s", at_least=1)
        listed.append(Listed.of(path.stem, stream))
        yield from listed[-1].rows()
    yield from _asked(traces)
    yield long_lists(listed)
    yield from allocator_rows.marks()
    if picture is not None:
        draw(traces, picture)
    if live_name is not None:
        yield from real_memory.run(folder / f"{live_name}.parquet")
