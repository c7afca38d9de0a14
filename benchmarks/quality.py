"""How good is the nano world? Every figure on recordings that no training saw, beside the baselines that it must beat.

    python benchmarks/quality.py --data data --json

`--data` is what `teleworld record` wrote; splits that are missing are recorded first (E: other episodes of the training
maps; U: maps never trained on; L: walks of a minute). Seeds are fixed. The last line of --json is one object with a key
for each figure and split; benchmarks/out/quality.html shows strips of truth, guidance and generated frames.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from teleworld.evaluation import codec, depth, generation, long_walks
from teleworld.evaluation.generation import Pair
from teleworld.evaluation.metrics import Figure
from teleworld.evaluation.report import page, plot, strip, text
from teleworld.evaluation.rollout import Roller
from teleworld.evaluation.samples import Start, full_turn, starts, there_and_back
from teleworld.generation.model import Model, load_model
from teleworld.training.dataset import load_split
from teleworld.training.recording.record import plan_dataset, record
from teleworld.world.timeline import ChainMode, Timeline

OUT = Path(__file__).resolve().parent / "out" / "quality.html"
SHORT_S, LONG_S = 4.0, 60.0
STEPS = (1, 4, 16)
Rows = Iterator[tuple[str, Figure | float]]


@dataclass(frozen=True)
class Bench:
    """What every part of the benchmark needs. long: walks of a minute; pictures: start pictures a split."""

    model: Model
    data: Path
    pictures: int
    long: int

    @property
    def fps(self) -> float:
        """Of the model."""
        return self.model.spec.fps

    def timeline(self, chain: ChainMode) -> Timeline:
        """The model's own segments."""
        return Timeline.of(self.model.spec.latents, chain)

    def starts(self, split: str, seconds: float, count: int) -> list[Start]:
        """Of whole live segments."""
        length = self.timeline(ChainMode.T_B).frames_per_segment
        return starts(load_split(self.data, split), count, length * math.ceil(seconds * self.fps / length))


def short(bench: Bench, split: str, strips: dict[str, np.ndarray]) -> Rows:
    """Walks of seconds, and the networks by themselves."""
    places = bench.starts(split, SHORT_S, bench.pictures)
    yield from _named(f"vae_{split}", codec.reconstruction(bench.model, places))
    yield from _named(f"guided_{split}", codec.guided_gain(bench.model, places))
    yield from _named(f"real_{split}", depth.real_frames(bench.model, places))
    for name, chain in (("generated", ChainMode.T_B), ("autoregressive", ChainMode.AUTOREGRESSIVE)):
        timeline = bench.timeline(chain)
        pairs = generation.generate(Roller(bench.model, timeline), places)
        step = timeline.frames_per_segment
        boundaries = range(step, len(pairs[0].walk.frames), step)
        yield from _named(f"{name}_{split}", generation.against_engine(pairs, bench.fps, boundaries))
        if chain is ChainMode.T_B:
            yield from _named(f"camera_{split}", generation.camera_control(pairs))
            for pair in pairs[:4]:
                strips[f"{split} {pair.start.name}: truth, guidance, generated"] = _strip(pair)


def steps(bench: Bench, split: str) -> Rows:
    """More sampling steps against fewer."""
    timeline = bench.timeline(ChainMode.T_B)
    places = bench.starts(split, SHORT_S, bench.pictures)
    yield from _named(f"steps_{split}", generation.sampling_steps(bench.model, timeline, places, STEPS))


def long(bench: Bench, strips: dict[str, np.ndarray], plots: list[str]) -> Rows:
    """Walks of a minute: drift, revisits, and what the memory covers on the way."""
    places = bench.starts("L", LONG_S - 1, bench.long)
    for name, chain in (("drift", ChainMode.T_B), ("drift_autoregressive", ChainMode.AUTOREGRESSIVE)):
        pairs = generation.generate(Roller(bench.model, bench.timeline(chain)), places)
        yield from _named(name, long_walks.drift_figures(pairs, bench.fps))
        if chain is ChainMode.T_B:
            series = long_walks.along_the_walk(pairs, bench.fps)
            seconds = series.pop("seconds")
            plots.append(plot("Coverage and depth residual along walks of a minute", seconds, series))
            strips |= {f"L {pair.start.name}: truth, guidance, generated": _strip(pair) for pair in pairs[:2]}
    length = bench.timeline(ChainMode.T_B).frames_per_segment
    turn = length * math.ceil(2 * math.pi / bench.model.spec.gait.turn / length)
    loops = bench.starts("L", long_walks.LOOP_S, bench.pictures)
    for kind, paths in (
        ("turn", [full_turn(place, turn) for place in loops]),
        ("loop", [there_and_back(place) for place in loops]),
    ):
        for name, remember in (("on", True), ("off", False)):
            roller = Roller(bench.model, bench.timeline(ChainMode.T_B), remember=remember)
            yield f"revisit_{kind}_memory_{name}", long_walks.revisit(roller, loops, paths)


def _strip(pair: Pair) -> np.ndarray:
    return strip([pair.truth, pair.walk.guidance, pair.walk.frames])


def _named(prefix: str, figures: Mapping[str, Figure | float]) -> Rows:
    for name, value in figures.items():
        yield f"{prefix}_{name}", value


def run(bench: Bench, parts: Sequence[str], as_json: bool) -> None:
    """Print every figure as it is known, and write the page."""
    figures: dict[str, Figure | float] = {}
    strips: dict[str, np.ndarray] = {}
    plots: list[str] = []
    rows = {
        "E": lambda: short(bench, "E", strips),
        "U": lambda: short(bench, "U", strips),
        "steps": lambda: steps(bench, "E"),
        "long": lambda: long(bench, strips, plots),
    }
    for part in parts:
        for name, value in rows[part]():
            figures[name] = value
            print(f"{name:44} {text(value)}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(page("The nano world, measured", figures, strips, plots), encoding="utf-8")
    plain = {
        name: {"mean": value.mean, "interval": value.interval, "count": value.count}
        if isinstance(value, Figure)
        else value
        for name, value in figures.items()
    }
    if as_json:
        print(json.dumps(plain))


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments.add_argument("--data", type=Path, default=Path("data"), help="recordings (default: data)")
    arguments.add_argument("--checkpoints", type=Path, default=None, help="folder of models (default: the shipped one)")
    arguments.add_argument("--pictures", type=int, default=20, help="start pictures a split (default 20)")
    arguments.add_argument("--long", type=int, default=20, help="walks of a minute (default 20)")
    arguments.add_argument("--parts", nargs="+", default=["E", "U", "steps", "long"], help="which parts to run")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    missing = [job for job in plan_dataset() if job.split != "train" and not job.folder(chosen.data).is_dir()]
    if missing:
        print(f"recording {len(missing)} walks", flush=True)
        record(chosen.data, missing)
    run(
        Bench(load_model("nano", chosen.checkpoints), chosen.data, chosen.pictures, chosen.long),
        chosen.parts,
        chosen.json,
    )


if __name__ == "__main__":
    main()
