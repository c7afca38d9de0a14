"""The report of a curation: how many clips each stage saw, kept and rejected, for which reasons, and how its scores lie."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}"
)
COLUMNS = ("stage", "seen", "kept", "rejected", "pending", "seconds", "why", "scores: 5 / 50 / 95 %")


def summarise(decisions: Sequence[Mapping[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Per stage: `seen`, counts by verdict, `seconds`, `reasons` and quantiles of each score; `unreadable` sources."""
    stages = {}
    for name in order:
        lines = [line for line in decisions if line["stage"] == name]
        scores: dict[str, list[float]] = {}
        for line in lines:
            for score, value in line["scores"].items():
                scores.setdefault(score, []).append(value)
        stages[name] = {
            "seen": len(lines),
            **{verdict: sum(line["verdict"] == verdict for line in lines) for verdict in ("keep", "reject", "pending")},
            "seconds": round(sum(line["seconds"] for line in lines), 2),
            "reasons": dict(Counter(line["reason"] for line in lines if line["verdict"] == "reject")),
            "scores": {
                score: [round(float(value), 4) for value in np.quantile(values, (0.05, 0.5, 0.95))]
                for score, values in scores.items()
            },
        }
    unreadable = [f"{line['clip']}: {line['reason']}" for line in decisions if line["stage"] == "source"]
    return {"stages": stages, "unreadable": unreadable}


def write_report(out: Path, decisions: Sequence[Mapping[str, Any]], order: Sequence[str], kept: int) -> None:
    """`report.json` and `report.html` in `out`."""
    summary = {"kept": kept} | summarise(decisions, order)
    (out / "report.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    rows = "".join(_row(name, stage) for name, stage in summary["stages"].items())
    columns = "".join(f"<th>{name}</th>" for name in COLUMNS)
    unreadable = "".join(f"<li>{html.escape(line)}</li>" for line in summary["unreadable"])
    (out / "report.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>Curation</title><style>{STYLE}</style><h1>Curation: {kept} clips kept</h1>"
        f"<table><tr>{columns}</tr>{rows}</table>"
        + (f"<h2>Unreadable</h2><ul>{unreadable}</ul>" if unreadable else ""),
        encoding="utf-8",
    )


def _row(name: str, stage: Mapping[str, Any]) -> str:
    numbers = "".join(
        f"<td class=n>{stage[column]}</td>" for column in ("seen", "keep", "reject", "pending", "seconds")
    )
    reasons = ", ".join(f"{reason or 'unsaid'} ({count})" for reason, count in stage["reasons"].items())
    scores = "; ".join(f"{score} " + " / ".join(map(str, values)) for score, values in stage["scores"].items())
    return (
        f"<tr><td>{html.escape(name)}</td>{numbers}<td>{html.escape(reasons)}</td><td>{html.escape(scores)}</td></tr>"
    )
