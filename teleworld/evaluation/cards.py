"""Figures in documents: what stands between two marks in a Markdown file is written from the result of a run.

    <!-- figures: vae guided -->     the rows whose names begin so, as a table
    <!-- facts: vae -->              size, steps and digest of that network's file
    <!-- end -->

So no figure in a model card is typed, and none is older than the run that the card names.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleworld.models.checkpoint import load_metadata, load_safetensors
from teleworld.world.errors import InvalidInput

_BLOCK = re.compile(r"<!-- (?P<kind>figures|facts): (?P<words>[\w. ]+) -->\n.*?<!-- end -->", re.DOTALL)


def refresh(file: Path, result: Mapping[str, Any], folder: Path) -> int:
    """Rewrite every block of a document; returns how many there are.

    result: the JSON object of a run. folder: of the model's files.

    Raises:
        InvalidInput: the document has no marks, or a block names rows or files that are not there.
    """
    before = file.read_text(encoding="utf-8")

    def block(match: re.Match[str]) -> str:
        words = match["words"].split()
        body = _figures(result, words) if match["kind"] == "figures" else facts(folder / f"{words[0]}.safetensors")
        return f"<!-- {match['kind']}: {match['words']} -->\n{body}\n<!-- end -->"

    after, count = _BLOCK.subn(block, before)
    if not count:
        raise InvalidInput("write", f"{file.name} has no marks")
    file.write_text(after, encoding="utf-8")
    return count


def _figures(result: Mapping[str, Any], prefixes: list[str]) -> str:
    rows = {
        key: row for key, row in result.items() if key != "run" and any(key.startswith(prefix) for prefix in prefixes)
    }
    if not rows:
        raise InvalidInput("write", f"no row begins with {' or '.join(prefixes)}")
    lines = ["| figure | split | mean ± 95 % | starts | bar | |", "|---|---|---|---|---|---|"]
    for key, row in rows.items():
        mark = "" if row["met"] is None else "met" if row["met"] else "not met"
        cells = row["title"], key.rsplit(".", 1)[1], value_text(row), row["count"], row["bar"] or "", mark
        lines.append(f"| {' | '.join(map(str, cells))} |")
    run = result["run"]
    note = f"Long walks of {run['seconds']:g} s; weights `{run['weights'][:12]}`."
    return "\n".join([*lines, "", note])


def value_text(row: Mapping[str, Any]) -> str:
    """A row's figure with its interval and unit."""
    if row["mean"] is None:
        return "not measured"
    places = 1 if abs(row["mean"]) >= 100 else 2 if abs(row["mean"]) >= 10 or row["unit"] == "dB" else 3
    interval = "" if row["interval"] is None else f" ± {row['interval']:.{places}f}"
    return f"{row['mean']:.{places}f}{interval} {row['unit']}".rstrip()


def facts(file: Path) -> str:
    """A sentence on a network's file. Raises InvalidInput if it is not there."""
    if not file.is_file():
        raise InvalidInput("write", f"{file.name} is not in the model's folder")
    metadata, tensors = load_metadata(file), load_safetensors(file)[0]
    count = sum(math.prod(tensor.shape) for tensor in tensors.values())
    steps = f", {int(metadata['step']):,} steps in its last run" if "step" in metadata else ""
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size / 1e6
    return f"`{file.name}`: {count / 1e6:.2f} M values, {size:.1f} MB{steps}; sha256 `{digest[:16]}`."
