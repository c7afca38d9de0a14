"""How good is the nano world? Every figure on recordings that no training saw, beside what it has to reach.

    PYTHONPATH=. python benchmarks/quality.py --data data --json

`--data` is what `teleworld record` wrote; episodes of the three splits that are missing are recorded first (E: other episodes
of the training maps; U: maps never trained on; L: walks of a minute). Seeds are fixed. Each walk's findings are kept under
`--out`, so that a run which was stopped goes on where it was, and a second run with more `--starts` only adds to the first;
times are always taken anew (leave the machine alone, or leave out the rows vae_ms and fps).

The table says of each figure its mean over the starts, the 95 % interval, the bar, and whether the mean meets it. The last
line of --json is one object with a key for each row and split; quality.json holds the same, quality.html the table with
strips of truth, guidance and generated frames.

    ... --rows vae depth drift_colour.L      only rows whose keys begin so, and only the walks that they need
    ... --starts 5 --seconds 20              fewer and shorter walks
    ... --write checkpoints/nano/*.md        figures into model cards, between their marks (no run: with --from quality.json)
    ... --strip docs/quality.jpg             one picture: truth, guidance and generated frames of each split
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from teleworld.evaluation.cards import refresh, value_text
from teleworld.evaluation.ledger import Ledger, data_digest
from teleworld.evaluation.report import page, plot
from teleworld.evaluation.rows import table
from teleworld.evaluation.table import Findings, Row
from teleworld.evaluation.trials import SHORT_S, Finding, Laboratory, Trial, plan
from teleworld.generation.model import SHIPPED, load_model
from teleworld.training.recording.record import plan_dataset, record

OUT = Path(__file__).resolve().parent / "out"
SPEED = Trial("mesh", "mesh", "", 0)
# A figure of time is taken while nothing else of this run computes, and not kept: it belongs to the machine's mood.
ALONE = ("time", "mesh")
# Of this process; trials are made in several.
LABORATORY: Laboratory | None = None


def prepare(checkpoints: Path | None, data: Path, teacher: Path | None) -> Laboratory:
    """What a process needs to make trials; one thread each, since trials run side by side."""
    global LABORATORY
    torch.set_num_threads(1)
    LABORATORY = Laboratory(
        load_model("nano", checkpoints), data, load_model("nano", teacher) if teacher is not None else None
    )
    return LABORATORY


def perform(trial: Trial) -> tuple[Trial, Finding, float]:
    """A trial, its finding and the seconds that it took."""
    assert LABORATORY is not None
    begun = time.monotonic()
    return trial, LABORATORY.perform(trial), time.monotonic() - begun


def mesh_speed(checkpoints: Path | None) -> Finding:
    """Frames a second of the five services, by the benchmark that is there for it."""
    command = [sys.executable, str(Path(__file__).parent / "walk.py"), "--json"]
    command += ["--checkpoint", str(checkpoints)] if checkpoints is not None else []
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
    return Finding({"fps": json.loads(answer.stdout.splitlines()[-1])["mesh_fps"]})


def explore(
    laboratory: Laboratory, chosen: argparse.Namespace, missing: Sequence[Trial]
) -> Iterator[tuple[Trial, Finding]]:
    """Make trials, `--jobs` at a time; a trial that measures time is made alone, before the others."""
    setup = (chosen.checkpoints, chosen.data, chosen.teacher)
    together = [trial for trial in missing if trial.kind not in ALONE]
    for trial in missing:
        if trial.kind == SPEED.kind:
            yield trial, mesh_speed(chosen.checkpoints)
        elif trial.kind in ALONE:
            yield trial, laboratory.perform(trial)
    if not together:
        return
    if chosen.jobs == 1:
        done: Iterator[tuple[Trial, Finding, float]] = map(perform, together)
        yield from _told(done, len(together))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, context, prepare, setup) as pool:
        futures = [pool.submit(perform, trial) for trial in together]
        try:
            yield from _told((future.result() for future in as_completed(futures)), len(together))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _told(done: Iterator[tuple[Trial, Finding, float]], count: int) -> Iterator[tuple[Trial, Finding]]:
    begun = time.monotonic()
    for number, (trial, finding, seconds) in enumerate(done, start=1):
        left = (time.monotonic() - begun) / number * (count - number)
        print(
            f"{number:4} of {count}  {trial.name:36} {seconds:6.1f} s   about {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
        yield trial, finding


def chosen_rows(prefixes: Sequence[str], teacher: bool) -> list[Row]:
    """The rows whose keys begin with one of the prefixes; all if there is none."""
    rows = [row for row in table(teacher=teacher) if not prefixes or row.key.startswith(tuple(prefixes))]
    if not rows:
        raise SystemExit(f"no row begins with {' or '.join(prefixes)}")
    return rows


def result_of(
    rows: Sequence[Row], found: Mapping[Trial, Finding], chosen: argparse.Namespace, weights: str
) -> dict[str, Any]:
    """The JSON object: by row and split `mean`, `interval` (null where there is none), `count`, `unit`, `title`, `bar` and
    `met` (null where nothing is to be met), and under `run` what was run."""
    findings, result = Findings(found), {}
    for row in rows:
        figure = row.value(findings)
        number = lambda value: round(value, 5) if math.isfinite(value) else None  # noqa: E731
        result[row.key] = {
            "mean": number(figure.mean),
            "interval": number(figure.interval),
            "count": figure.count,
            "unit": row.unit,
            "title": row.title,
            "bar": str(row.bar) if row.bar is not None else None,
            "met": row.bar.met(figure.mean) if row.bar is not None and figure.count else None,
        }
    result["run"] = {"starts": chosen.starts, "seconds": chosen.seconds, "weights": weights}
    return result


def pictured(found: Mapping[Trial, Finding]) -> list[tuple[Trial, Finding, np.ndarray]]:
    """The planned walks that a strip is kept of, split by split."""
    order = sorted(found.items(), key=lambda item: ("EUL".find(item[0].split), item[0]))
    return [(t, f, f.strip) for t, f in order if f.strip is not None and t.variant == "planned"]


def strips_of(found: Mapping[Trial, Finding]) -> dict[str, np.ndarray]:
    """Pictures of walks, by caption."""
    return {
        f"{trial.split}, {finding.caption}, {trial.seconds or SHORT_S:g} s: truth, guidance, generated": strip
        for trial, finding, strip in pictured(found)
    }


def plots_of(found: Mapping[Trial, Finding]) -> list[str]:
    """Coverage and depth residual along the long walks, means over the walks."""
    plots = []
    for variant in ("planned", "autoregressive"):
        series = [
            finding.series for trial, finding in found.items() if (trial.kind, trial.variant) == ("long", variant)
        ]
        if series:
            length = min(len(one["seconds"]) for one in series)
            lines = {
                name: np.mean([one[key][:length] for one in series], axis=0).tolist()
                for name, key in (
                    ("share of pixels that the memory knows", "coverage"),
                    ("AbsRel of depth", "residual"),
                )
            }
            plots.append(plot(f"Along {len(series)} long walks, {variant}", series[0]["seconds"][:length], lines))
    return plots


def write_strip(file: Path, found: Mapping[Trial, Finding]) -> None:
    """One picture: the first strip of each split, below each other."""
    first: dict[str, np.ndarray] = {}
    for trial, _, strip in pictured(found):
        first.setdefault(trial.split, strip)
    if not first:
        raise SystemExit("no strip is known: run the rows of walks (generated, drift) first")
    gap = np.full((8, next(iter(first.values())).shape[1], 3), 255, np.uint8)
    parts = [part for strip in first.values() for part in (strip, gap)][:-1]
    Image.fromarray(np.concatenate(parts)).save(file, quality=85)


def options() -> argparse.Namespace:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    add("--json", action="store_true", help="print one JSON object as the last line")
    add("--data", type=Path, default=Path("data"), help="recordings (default: data)")
    add("--checkpoints", type=Path, help="folder of models (default: the shipped one)")
    add("--teacher", type=Path, help="folder of models before distillation, to compare a distilled one with")
    add("--starts", type=int, default=20, metavar="N", help="start pictures a split (default 20)")
    add("--seconds", type=float, default=60.0, metavar="S", help="of the long walks (default 60)")
    add("--rows", nargs="+", default=[], metavar="PREFIX", help="rows whose keys begin so (default: all)")
    add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trials at a time (default: one a core)")
    add("--trust", action="store_true", help="take findings of the same weights and data that other code made")
    add("--out", type=Path, default=OUT, metavar="FOLDER", help="findings, quality.json and quality.html")
    add("--from", type=Path, dest="source", metavar="FILE", help="run nothing, take the figures from this JSON file")
    add("--write", type=Path, nargs="+", default=[], metavar="FILE", help="documents whose marked figures to renew")
    add("--strip", type=Path, metavar="FILE", help="write a picture of the first strip of each split")
    return arguments.parse_args()


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, print the table, write the JSON file and the page."""
    jobs = [job for job in plan_dataset() if job.split != "train" and not job.folder(chosen.data).is_dir()]
    if jobs:
        print(f"recording {len(jobs)} walks", file=sys.stderr, flush=True)
        record(chosen.data, jobs, chosen.jobs)
    laboratory = prepare(chosen.checkpoints, chosen.data, chosen.teacher)
    models = [model.digest for model in (laboratory.model, laboratory.teacher) if model is not None]
    ledger = Ledger(chosen.out / "findings", (*models, data_digest(chosen.data)), trust=chosen.trust)
    rows = chosen_rows(chosen.rows, chosen.teacher is not None)
    needed = {(kind, row.split) for row in rows for kind in row.kinds}
    everything = [SPEED, *plan(chosen.starts, chosen.seconds, teacher=chosen.teacher is not None)]
    trials = [trial for trial in everything if (trial.kind, trial.split) in needed]
    lasting = [trial for trial in trials if trial.kind not in ALONE]
    found = {trial: finding for trial in lasting if (finding := ledger.load(trial)) is not None}
    for trial, finding in explore(laboratory, chosen, [trial for trial in trials if trial not in found]):
        if trial.kind not in ALONE:
            ledger.keep(trial, finding)
        found[trial] = finding
    result = result_of(rows, found, chosen, models[0])
    for key, row in result.items():
        if key != "run":
            met = {None: "", True: "met", False: "NOT MET"}[row["met"]]
            print(f"{key:34} {value_text(row):26} {row['bar'] or '':12} {met}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "quality.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    shown = {key: row for key, row in result.items() if key != "run"}
    (chosen.out / "quality.html").write_text(
        page("The nano world, measured", shown, strips_of(found), plots_of(found)), encoding="utf-8"
    )
    if chosen.strip is not None:
        write_strip(chosen.strip, found)
    return result


def main() -> None:
    """Run the benchmark."""
    chosen = options()
    result = json.loads(chosen.source.read_text(encoding="utf-8")) if chosen.source is not None else run(chosen)
    for file in chosen.write:
        print(f"{file}: {refresh(file, result, (chosen.checkpoints or SHIPPED) / 'nano')} blocks", file=sys.stderr)
    if chosen.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
