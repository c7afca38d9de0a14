"""Draws the learning curves of the shipped nano networks from the logs of their runs.

Each run logs what it measures on recordings that it does not train on (`teleworld train`); those of the shipped weights lie
in `checkpoints/nano/runs`. Dashed lines are aims of `quality.py`, where the same thing is measured.

    PYTHONPATH=. python benchmarks/learning.py --out docs/learning.png
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

RUNS = Path("checkpoints/nano/runs")


@dataclass(frozen=True)
class Panel:
    """What is drawn of one network's log: keys and what they are called, and aims as (value, what it is)."""

    network: str
    unit: str
    lines: dict[str, str]
    aims: tuple[tuple[float, str], ...] = ()


PANELS = (
    Panel("vae", "PSNR without guidance, dB (E)", {"unguided": "decoder", "linear": "linear codec alone"}),
    Panel(
        "dit",
        "PSNR in one step, dB (E)",
        {
            "plan": "key frames",
            "first_half": "first half",
            "second_half": "second half",
            "plan_holes": "key frames, holes",
        },
    ),
    Panel(
        "geometry",
        "AbsRel",
        {
            "E_abs_rel_bare": "one picture, E",
            "U_abs_rel_bare": "one picture, U",
            "E_abs_rel_guided": "beside memory, E",
        },
        ((0.06, "aim, E"), (0.12, "aim, U")),
    ),
    Panel(
        "super_resolution",
        "gradient energy, made / true (E)",
        {"sharpness": "network", "sharpness_bicubic": "bicubic"},
    ),
)


def read(log: Path) -> list[dict[str, float]]:
    """The lines of a run's log, by step."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def draw(runs: Path) -> Figure:
    """One panel for each network whose log is there."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    for place, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        lines = read(runs / f"{panel.network}.jsonl")
        for key, name in panel.lines.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            place.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        for value, name in panel.aims:
            place.axhline(value, linestyle="--", linewidth=1, color="#888888")
            place.annotate(name, (0.01, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
        place.set(title=panel.network, xlabel="step", ylabel=panel.unit)
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    return figure


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of logs, NETWORK.jsonl")
    parser.add_argument("--out", type=Path, default=Path("docs/learning.png"), help="PNG to write")
    arguments = parser.parse_args()
    draw(arguments.runs).savefig(arguments.out, format="png", dpi=90)


if __name__ == "__main__":
    main()
