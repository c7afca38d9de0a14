"""The report page: figures in a table, learning to see in strips. One HTML file that carries its pictures."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from teleworld.evaluation.cards import value_text
from teleworld.evaluation.metrics import Pictures

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%;image-rendering:pixelated}"
    "figure{margin:1rem 0}figcaption{color:#555}td.met{color:#083}td.missed{color:#b20}"
)


def strip(rows: Sequence[Pictures], columns: int = 8) -> np.ndarray:
    """One picture uint8 [rows * H, columns * W, 3]: `columns` evenly spaced frames of each row of frames."""
    picked = [row[np.linspace(0, len(row) - 1, columns).astype(int)] for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in picked], axis=0)


def page(
    title: str, rows: Mapping[str, Mapping[str, Any]], strips: Mapping[str, np.ndarray], plots: Sequence[str]
) -> str:
    """HTML. rows: of a run's result, by key. strips: uint8 [H, W, 3] by caption. plots: SVG elements."""
    cells = "".join(
        f"<tr><td>{html.escape(row['title'])}</td><td>{html.escape(key.rsplit('.', 1)[1])}</td>"
        f"<td class=n>{html.escape(value_text(row))}</td><td>{html.escape(row['bar'] or '')}</td>{_mark(row['met'])}</tr>"
        for key, row in rows.items()
    )
    pictures = "".join(
        f'<figure><img src="data:image/png;base64,{_png(picture)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, picture in strips.items()
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(plots)}{pictures}"
        f"<table><tr><th>figure</th><th>split</th><th>mean ± 95 %</th><th>bar</th><th></th></tr>{cells}</table>"
    )


def _mark(met: bool | None) -> str:
    return "<td></td>" if met is None else "<td class=met>met</td>" if met else "<td class=missed>not met</td>"


def plot(caption: str, seconds: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """An SVG of lines over seconds, from 0 to the largest value."""
    width, height, left = 720, 220, 50
    top = max((value for line in lines.values() for value in line if math.isfinite(value)), default=1.0) or 1.0
    right = max(seconds, default=1.0)
    shapes = []
    for colour, (name, line) in zip(("#06c", "#c30", "#083", "#909"), lines.items(), strict=False):
        points = " ".join(
            f"{left + (width - left) * x / right:.1f},{height - (height - 20) * y / top:.1f}"
            for x, y in zip(seconds, line, strict=True)
        )
        shapes.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        shapes.append(
            f'<text x="{left + 8}" y="{30 + 16 * len(shapes) // 2}" fill="{colour}">{html.escape(name)}</text>'
        )
    return (
        f'<figure><svg viewBox="0 0 {width} {height + 20}" width="{width}" font-size="12">'
        f'<text x="0" y="24">{top:.2f}</text><text x="0" y="{height}">0</text>{"".join(shapes)}'
        f'<text x="{width - 60}" y="{height + 16}">{right:.0f} s</text></svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _png(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
