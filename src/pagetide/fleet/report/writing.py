"""Writes the report of a fleet: one HTML file that needs nothing else."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from pagetide.fleet.hosts.cluster import HEAT_SPAN_S
from pagetide.fleet.hosts.host import PLANNED_SHARE
from pagetide.fleet.learning.check import MEAN_OFF_MAX, OFF_MAX
from pagetide.fleet.report.classes import CLASSES, classes
from pagetide.fleet.report.findings import findings
from pagetide.fleet.report.pictures import LEVELS, draw_density, draw_held, heat
from pagetide.fleet.report.told import Told
from pagetide.fleet.runs.jobs import cluster_vms
from pagetide.fleet.runs.summary import LOW_HIGH, MONTH_H, SettingSummary, held_by_step
from pagetide.fleet.usage.oddities import sentences
from pagetide.pages.whole import Section, made, page
from pagetide.templates import templates_of
from pagetide.units import GIB, format_size
from pagetide.whole_file import write_whole

REPORT = "report.html"
"""The report's name in its folder."""

_HOSTS_SHOWN = 40


def write_report(told: Told) -> Path:
    """Make the report beside the results; its path.

    Raises:
        OSError: it cannot be written.
    """
    path = told.results.folder / REPORT
    write_whole(path, report_html(told).encode())
    return path


def report_html(told: Told) -> str:
    """The report's text."""
    sections = [
        Section("findings", "What the figures say", _html("findings.html", found=findings(told)), (), "Findings"),
        Section("held", "What hosts hold, against what is used", _held(told), (), "Memory over time"),
        Section("density", "How many VMs fit, and how often hosts are short", _density(told), (), "Density and risk"),
        Section("classes", "What each class of VMs gains", _classes(told), (), "Classes of VMs"),
        Section("hosts", "Hosts over time", _hosts(told), (), "Hosts"),
        Section("assumptions", "What the assumptions are worth", _assumptions(told), (), "Assumptions"),
    ]
    found, grid = told.found, told.grid
    head = (
        f"{told.about}: {found.vms:,} VMs over {grid.days:,.4g} days in steps of {grid.step_s} s, "
        f"{found.vm_days:,.0f} VM-days known; {format_size(found.provisioned_bytes)} provisioned on average."
    )
    return page("pagetide fleet", sections, head)


def _held(told: Told) -> Markup:
    settings = told.found.settings
    curves = [held_by_step(told.results, number) for number in range(len(settings))]
    top_bytes = max(float(curve.max()) for curve in curves)
    panels = [
        (one, made(draw_held(curves[-1], curve, told.grid, one.name, top_bytes, f"held-{number}")))
        for number, (one, curve) in enumerate(zip(settings[:-1], curves, strict=False))
    ]
    return _html("held.html", panels=panels, settings=settings, low_high=LOW_HIGH)


def _density(told: Told) -> Markup:
    settings, risk_h = told.found.settings, told.found.risk_h
    panels = [
        (one, made(draw_density(settings, number, risk_h, f"density-{number}"))) for number, one in enumerate(settings)
    ]
    return _html(
        "density.html", panels=panels, settings=settings, risk_h=risk_h, host=told.question.host,
        answer=told.question.answer, step_h=told.grid.step_s / 3600, month_h=MONTH_H,
    )  # fmt: skip


def _classes(told: Told) -> Markup:
    settings = told.found.settings
    kinds = {kind: classes(told.results, kind, len(settings), told.grid.steps) for kind in CLASSES}
    return _html("classes.html", kinds=kinds, settings=settings)


def _hosts(told: Told) -> Markup:
    """Where nothing returns, and under the setting that is the densest within the risk, each by its densest plan."""
    ranked = sorted(told.learned, key=lambda one: -(one.density.value if one.density else 0.0))
    maps = []
    for one in [told.found.settings[0], *ranked[:1]]:
        plan = one.densest or one.plans[-1].plan
        found = told.results.columns(
            "SELECT host, span, share FROM heat JOIN jobs USING (job) WHERE setting = ? AND plan = ? AND host < ? "
            "ORDER BY host, span",
            [told.found.settings.index(one), plan, _HOSTS_SHOWN],
        )
        if len(found["host"]):
            shares = np.asarray(found["share"], np.float32).reshape(int(found["host"].max()) + 1, -1)
            maps.append((one.name, plan, heat(shares), shares))
    begins_day = told.grid.days * PLANNED_SHARE
    return _html(
        "hosts.html", maps=maps, levels=LEVELS, span_h=HEAT_SPAN_S / 3600, begins_day=begins_day,
        ends_day=told.grid.days, cluster_vms=cluster_vms(told.grid), shown=_HOSTS_SHOWN,
    )  # fmt: skip


def _assumptions(told: Told) -> Markup:
    used = told.found.settings[-1]
    return _html(
        "assumptions.html", oddities=sentences(told.oddities), question=told.question,
        cluster_vms=cluster_vms(told.grid), planned=PLANNED_SHARE, low_high=LOW_HIGH, used=used,
        versions=told.versions, found=told.found, costs=told.costs,
        checked=told.checked, mean_off_max=MEAN_OFF_MAX, off_max=OFF_MAX,
    )  # fmt: skip


def _html(template: str, **values: Any) -> Markup:
    return made(_environment().get_template(template).render(values))


@functools.cache
def _environment() -> Environment:
    environment = templates_of("pagetide.fleet.report")
    environment.filters.update(
        size=format_size, gib=_gib, tib=_tib, figures=_figures, cpu=_cpu, percent="{:.2%}".format, between=_between
    )
    return environment


def _gib(size_bytes: float) -> str:
    return _figures(size_bytes / GIB)


def _tib(size_bytes: float) -> str:
    return _figures(size_bytes / (GIB << 10))


def _figures(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _between(low_high: tuple[float, float] | None) -> Markup:
    """What stands below a figure; nothing without draws."""
    return made("" if low_high is None else f"<small>{_figures(low_high[0])} to {_figures(low_high[1])}</small>")


def _cpu(one: SettingSummary) -> str:
    return "" if one.reports_cpu_s is None else f"{_figures(one.reports_cpu_s)} + {_figures(one.refaults_cpu_s or 0.0)}"
