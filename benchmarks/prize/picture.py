"""The picture of the prize: what the host held on average against what that cost, every design, a panel a trace."""

import io
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.prize.replay import Outcome, Trace
from pagetide.pages.palette import LOOKS
from pagetide.units import GIB
from pagetide.whole_file import write_whole

_PANEL_INCHES = (3.4, 3.6)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prize",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_UNNAMED = {"Date": None, "Creator": None, "Format": None, "Type": None}


def draw(traces: list[Trace], path: Path) -> None:
    """Write it as SVG; left and below is better. Orders are told by size, a large mark is order 9."""
    with mpl.rc_context(cast("Any", _STYLE)):
        figure = Figure((_PANEL_INCHES[0] * len(traces), _PANEL_INCHES[1]), layout="constrained")
        for panel, trace in zip(figure.subplots(1, len(traces), squeeze=False)[0], traces, strict=True):
            _draw_trace(panel, trace)
        figure.axes[0].set_ylabel("held by the host on average, GiB")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata=_UNNAMED)
    write_whole(path, drawn.getvalue())


def _draw_trace(panel: Axes, trace: Trace) -> None:
    bound_gib = [point.held_bytes / GIB for point in trace.bound]
    panel.plot([point.cpu_s for point in trace.bound], bound_gib, ":", color="#555555", label="the future known")
    panel.axhline(trace.off_bytes / GIB, color=LOOKS["off"].light, linewidth=0.8, label="off")
    pool = [outcome for outcome in trace.outcomes.values() if outcome.policy.settings["design"] == "pool"]
    panel.plot([point.cpu_s for point in pool], [point.held_bytes / GIB for point in pool], color=LOOKS["pool"].light)
    named: set[str] = set()
    for outcome in trace.outcomes.values():
        _draw_outcome(panel, outcome, named)
    most_s = max(outcome.cpu_s for outcome in trace.outcomes.values())
    panel.set_xlim(0, 1.05 * most_s)
    panel.set_title(trace.name)
    panel.set_xlabel("added CPU time, s")


def _draw_outcome(panel: Axes, outcome: Outcome, named: set[str]) -> None:
    settings = outcome.policy.settings
    design = settings["design"] if "pace" not in settings else "scan, Linux's pace"
    look = LOOKS[settings["design"]]
    panel.plot(
        outcome.cpu_s,
        outcome.held_bytes / GIB,
        look.mark,
        color=look.light,
        markersize=7 if settings["order"] == 9 else 4,
        fillstyle="none" if "pace" in settings else "full",
        linestyle="none",
        label=None if design in named else design,
    )
    named.add(design)
