"""Are the numbers those of the public libraries? The table of all comparisons.

    python benchmarks/parity.py
    python benchmarks/parity.py --json --only VAE

Small random configurations on the CPU, the same weights on both sides; max rel is the largest difference over the largest
value of the reference. Needs the extra `dev`. Exit code 1 when a row exceeds its bound; with --json the last line is
{"rows": [...], "holds": true}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from teleworld.evaluation.parity import CHECKS, Row, run_checks

HEADER = ("module", "config", "reference", "max abs", "max rel", "bound", "note")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Parity with the public implementations.")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    parser.add_argument("--only", default="", metavar="WORD", help="checks whose name holds WORD")
    parser.add_argument("--summary", action="store_true", help="the worst row of each module and configuration alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = [check for check in CHECKS if options.only.lower() in check.name.lower()]
    rows = list(run_checks(chosen))
    holds = bool(rows) and all(row.holds for row in rows)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "holds": holds}))
    else:
        _print(_worst(rows) if options.summary else rows)
        print(f"{len(rows)} comparisons, {sum(not row.holds for row in rows)} beyond their bound")
    return 0 if holds else 1


def _worst(rows: Sequence[Row]) -> list[Row]:
    worst: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row.module, row.config, row.reference
        worst[key] = max(worst.get(key, row), row, key=lambda one: one.max_rel)
    return list(worst.values())


def _print(rows: Sequence[Row]) -> None:
    cells = [HEADER] + [
        (
            row.module,
            row.config,
            row.reference,
            f"{row.max_abs:.1e}",
            f"{row.max_rel:.1e}",
            f"{row.bound:.0e}" + ("" if row.holds else " EXCEEDED"),
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
