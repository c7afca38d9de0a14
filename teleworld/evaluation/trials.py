"""One trial: one start, walked once and measured. The whole evaluation is a list of them.

A trial depends on the weights, the recordings and the code alone, so what it found can be kept: an evaluation that was
stopped goes on where it was, figures that share a walk share its trial, and trials run in any order on any core.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from teleworld.evaluation import codec, depth, generation, long_walks
from teleworld.evaluation.report import strip
from teleworld.evaluation.rollout import Roller
from teleworld.evaluation.samples import Start, full_turn, starts, there_and_back, with_movers
from teleworld.generation.model import Model
from teleworld.training.dataset import load_split
from teleworld.world.timeline import ChainMode, Timeline

SHORT_S = 4.0
STEPS = (1, 4, 16)
STRIPS = 4
TEACHER = "teacher"


@dataclass(frozen=True, order=True)
class Trial:
    """kind: what is done. split: of the recordings. variant: which way. number: of the start. seconds: of a long walk.

    still: the networks on true frames. time: the decoder's speed. short: seconds along a recording; long: a minute (both:
    `planned`, or `autoregressive`, the same network latent after latent). steps: samples of a segment with so many
    steps, `teacher16` those of the network before distillation. turn, loop: coming back, with the memory `on` or `off`.
    movers: a turn away from a monster and back. play: a minute by held keys.
    """

    kind: str
    split: str
    variant: str
    number: int
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Unique; a file name."""
        length = f"-{self.seconds:g}s" if self.seconds else ""
        return "-".join(filter(None, (self.kind, self.split, self.variant))) + f"{length}-{self.number:02d}"


@dataclass(frozen=True, eq=False)
class Finding:
    """What a trial measured. values: by name, NaN where nothing could be measured. series: by name, over time. arrays: for
    statistics over all starts. strip: uint8 [H, W, 3] pictures to look at, or None; caption: whose they are."""

    values: dict[str, float]
    series: dict[str, list[float]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    strip: np.ndarray | None = None
    caption: str = ""


class Laboratory:
    """Where trials are made: the model, its teacher if there is one, and the recordings."""

    def __init__(self, model: Model, data: Path, teacher: Model | None = None) -> None:
        self.model = model
        self.data = data
        self.teacher = teacher

    @cached_property
    def _planned(self) -> Timeline:
        return self.model.spec.timeline(ChainMode.T_B)

    def start(self, trial: Trial) -> Start:
        """Where a trial starts; the same for every variant. Raises as `starts`."""
        episodes, fps = load_split(self.data, trial.split), self.model.spec.fps
        count, length = trial.number + 1, self._planned.frames_per_segment
        if trial.kind == "movers":
            return with_movers(episodes, count)[trial.number]
        if trial.kind in ("long", "play"):
            longest = max(map(len, episodes)) - 1
            frames = length * math.floor(min(trial.seconds * fps, longest) / length)
        else:
            seconds = long_walks.LOOP_S if trial.kind in ("turn", "loop") else SHORT_S
            frames = length * math.ceil(seconds * fps / length)
        return starts(episodes, count, frames)[trial.number]

    def perform(self, trial: Trial) -> Finding:
        """Make a trial."""
        start = self.start(trial)
        match trial.kind:
            case "still":
                values = codec.reconstruction(self.model, start) | codec.guided_gain(self.model, start, trial.number)
                return Finding(values | depth.real_frames(self.model, start))
            case "time":
                return Finding(codec.chunk_time(self.model, start))
            case "steps":
                return self._sample(trial, start)
            case "short":
                return self._short(trial, start)
            case "long":
                return self._long(trial, start)
            case "play":
                values, walk = long_walks.play(Roller(self.model, self._planned, upscale=False), start, trial.number)
                return Finding(values, strip=_strip(trial, [walk.guidance, walk.frames]), caption=start.name)
            case "turn" | "loop":
                path = there_and_back(start) if trial.kind == "loop" else full_turn(start, self._turn_frames)
                roller = Roller(self.model, self._planned, remember=trial.variant == "on", upscale=False)
                return Finding(long_walks.revisit(roller, start, path, trial.number))
            case "movers":
                roller = Roller(self.model, self._planned, upscale=False)
                return Finding(long_walks.movers_return(roller, start, self._turn_frames, trial.number))
        raise ValueError(f"no trial is of kind {trial.kind!r}")

    @property
    def _turn_frames(self) -> int:
        """Frames of a full turn at the pace of a held key, in whole segments."""
        length = self._planned.frames_per_segment
        return length * math.ceil(2 * math.pi / self.model.spec.gait.turn / length)

    def _pair(self, trial: Trial, start: Start) -> tuple[generation.Pair, Timeline]:
        chain = ChainMode.T_B if trial.variant == "planned" else ChainMode.AUTOREGRESSIVE
        timeline = self.model.spec.timeline(chain)
        # Only the estimator of the camera looks at enlarged frames.
        roller = Roller(self.model, timeline, upscale=(trial.kind, trial.variant) == ("short", "planned"))
        return generation.generate(roller, start, trial.number), timeline

    def _short(self, trial: Trial, start: Start) -> Finding:
        pair, timeline = self._pair(trial, start)
        values = generation.against_engine(pair, timeline, self.model.spec.fps)
        if trial.variant == "planned":
            values |= generation.camera_control(pair)
        return Finding(values, strip=_strip(trial, _beside(pair)), caption=start.name)

    def _long(self, trial: Trial, start: Start) -> Finding:
        pair, _ = self._pair(trial, start)
        fps = self.model.spec.fps
        values, series = long_walks.drift_figures(pair, fps), long_walks.along_the_walk(pair, fps)
        return Finding(values, series, strip=_strip(trial, _beside(pair)), caption=start.name)

    def _sample(self, trial: Trial, start: Start) -> Finding:
        model = self.teacher if trial.variant.startswith(TEACHER) else self.model
        if model is None:
            raise ValueError("a teacher's trial needs the teacher")
        steps = int(trial.variant.removeprefix(TEACHER))
        values, arrays = generation.sampled_segment(model, self._planned, start, steps)
        return Finding(values, arrays=arrays)


def plan(starts: int, seconds: float, *, teacher: bool = False) -> list[Trial]:
    """Every trial of an evaluation with `starts` starts a split and long walks of `seconds`; those of a start together."""
    samples = [f"{who}{steps}" for who in (["", TEACHER] if teacher else [""]) for steps in STEPS]
    return list(_plan(range(starts), seconds, samples))


def _plan(numbers: Iterable[int], seconds: float, steps: list[str]) -> Iterator[Trial]:
    yield Trial("time", "U", "", 0)
    for number in numbers:
        for split in ("E", "U"):
            yield Trial("still", split, "", number)
            for variant in ("planned", "autoregressive"):
                yield Trial("short", split, variant, number)
        for variant in steps:
            yield Trial("steps", "E", variant, number)
        yield Trial("movers", "E", "", number)
        for kind in ("turn", "loop"):
            for variant in ("on", "off"):
                yield Trial(kind, "L", variant, number)
        for variant in ("planned", "autoregressive"):
            yield Trial("long", "L", variant, number, seconds)
        yield Trial("play", "L", "", number, seconds)


def _strip(trial: Trial, rows: list[np.ndarray]) -> np.ndarray | None:
    return strip(rows) if trial.number < STRIPS else None


def _beside(pair: generation.Pair) -> list[np.ndarray]:
    return [pair.truth, pair.walk.guidance, pair.walk.frames]
