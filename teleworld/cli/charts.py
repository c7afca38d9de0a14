"""Pictures of a simulation: who did what in the first seconds, how busy each set was, and how long keys took.

One figure serves for the PNG and, as vector graphics, for the page, which holds everything it needs.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from teleworld.cli.simulation_report import Rows, figures, sets, tenants
from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.results import Result, summarise
from teleworld.scheduling.tasks import Kind, Pool

MOST_ROWS = 32
COLOURS = {
    Kind.ENCODE: "#999999",
    Kind.BOOTSTRAP: "#666666",
    Kind.GUIDE: "#e8a33d",
    Kind.PLAN: "#3b6fb6",
    Kind.BRIDGE: "#7a5fb5",
    Kind.RECONSTRUCT: "#c2554f",
    Kind.POPULATE: "#4f9d69",
    Kind.DECODE: "#5bb0c4",
}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { text-align: left; padding: .2em 1.2em .2em 0; border-bottom: 1px solid #ddd }
svg { max-width: 100%; height: auto }
"""


def png(run: Simulation, path: Path) -> None:
    """Draw a run into a PNG file."""
    _figure(run, summarise(run)).savefig(path, format="png", dpi=120)


def page(run: Simulation, path: Path) -> None:
    """Write a run as one HTML page without anything outside of it."""
    result = summarise(run)
    drawing = io.StringIO()
    _figure(run, result).savefig(drawing, format="svg", metadata={"Date": None})
    picture = drawing.getvalue()
    title = html.escape(f"{run.spec.name}: {run.spec.model}, {result.ordering}")
    tables = _table(figures(result, run.spec.slo)) + _table(*sets(result))
    if len(run.spec.tenants) > 1:
        tables += _table(*tenants(result))
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{picture[picture.index('<svg') :]}{tables}</html>\n"
    )


def _table(rows: Rows, header: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _figure(run: Simulation, result: Result) -> Figure:
    rows = _rows(run)
    figure = Figure(figsize=(11, 5.2 + 0.22 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[1 + 0.22 * len(rows), 3])
    _gantt(figure.add_subplot(grid[0, :]), run, rows)
    _load(figure.add_subplot(grid[1, 0]), run, result)
    _waits(figure.add_subplot(grid[1, 1]), run)
    return figure


def _rows(run: Simulation) -> list[str]:
    """The workers that are drawn, pool by pool, the first ones of each."""
    seen = {bar.worker for bar in run.bars}
    rows = []
    for pool in Pool:
        mine = [name for name in seen if name.rpartition("-")[0] == pool.value]
        rows += sorted(mine, key=lambda name: int(name.rpartition("-")[2]))[: max(2, MOST_ROWS // len(Pool))]
    return rows


def _gantt(axes: Axes, run: Simulation, rows: Sequence[str]) -> None:
    place = {worker: number for number, worker in enumerate(rows)}
    for bar in run.bars:
        if bar.worker in place:
            strength = (0.95 if bar.task.segment % 2 == 0 else 0.6) if bar.done else 0.2
            span = [(bar.begin, bar.end - bar.begin)]
            axes.broken_barh(
                span, (place[bar.worker] - 0.4, 0.8), color=COLOURS[bar.task.kind], alpha=strength, linewidth=0
            )
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, run.spec.gantt_s)
    axes.set_xlabel("seconds; every other segment is paler")
    axes.legend(
        handles=[Patch(color=colour, label=kind.value) for kind, colour in COLOURS.items()],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(COLOURS),
        fontsize=7,
        frameon=False,
    )


def _load(axes: Axes, run: Simulation, result: Result) -> None:
    for each in result.sets:
        step = run.spec.seconds / len(run.fleet.load[each.name])
        axes.plot([(number + 0.5) * step for number in range(len(each.load))], each.load, label=each.name, linewidth=1)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("seconds")
    axes.set_ylabel("utilisation")
    axes.legend(fontsize=7)


def _waits(axes: Axes, run: Simulation) -> None:
    viewers = [viewer for _, viewer in run.crowd.past]
    samples = {
        "key to frame": [time for viewer in viewers for time in viewer.key_to_frame],
        "first frame": [viewer.first_frame - viewer.came for viewer in viewers if viewer.first_frame is not None],
    }
    for name, values in samples.items():
        if values:
            ordered = sorted(values)
            axes.step(
                ordered, [(number + 1) / len(ordered) for number in range(len(ordered))], label=name, where="post"
            )
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of all, not slower")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
