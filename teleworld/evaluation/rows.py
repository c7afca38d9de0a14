"""The table: which figure is computed how, from which trials, and what it has to reach.

Every row is a mean over starts with a 95 % interval. Differences to a baseline are taken start by start, before the mean:
both walked from the same picture along the same cameras. Where a row is no mean (pixels summed over all pictures, a distance
of distributions, a ratio) the interval is that of a bootstrap over starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from teleworld.evaluation.generation import HORIZONS_S
from teleworld.evaluation.metrics import Figure, frechet
from teleworld.evaluation.table import Bar, Findings, Row, gain, mean, share
from teleworld.evaluation.trials import TEACHER, Finding

MORE, FEWER = "16", "4"
# Frames a second of the five services with the first weights, on two cores: what better weights may not cost.
FIRST_LIGHT_FPS = 23.6
# "Not worse" of two finite samples: a twentieth is within what other seeds change.
NOT_WORSE = 1.05


def table(*, teacher: bool = False) -> list[Row]:
    """All rows, in the order of the table. teacher: whether the network before distillation is there to compare with."""
    return [*_networks(), *_walks(), *_steps(teacher), *_minutes()]


def _networks() -> Iterator[Row]:
    still = frozenset({"still"})
    row = lambda name, split, unit, title, column, bar=None: Row(  # noqa: E731
        name, split, unit, title, still, mean("still", split, "", column), bar
    )
    for split, quality, depth in (("E", 29, 0.06), ("U", 28, 0.12)):
        unseen = split == "U"
        yield row("vae_psnr", split, "dB", "VAE reconstruction without guidance", "psnr", Bar(low=quality))
        yield row(
            "guided_db", split, "dB", "guided decoding of true latents over unguided, covered pixels", "covered_db",
            Bar(low=1) if unseen else None,
        )  # fmt: skip
        yield row(
            "guided_sharpness", split, "", "the same, sharpness gained", "sharper", Bar(low=0.15) if unseen else None
        )
        yield row(
            "depth_first", split, "AbsRel", "depth on real frames, one picture alone", "first_abs_rel", Bar(high=depth)
        )
        yield row("depth_first_scale", split, "", "the same, scale error", "first_scale", Bar(high=0.05))
        yield row(
            "depth", split, "AbsRel", "depth on real frames beside the memory of a walk", "abs_rel", Bar(high=depth)
        )
        yield row("depth_scale", split, "", "the same, scale error", "scale", Bar(high=0.05))
        yield Row(
            "mask_iou", split, "", "dynamic mask IoU on real frames, all pixels together", still,
            share("still", split, "", "mask_common", "mask_union"), None if unseen else Bar(low=0.6),
        )  # fmt: skip
    yield Row(
        "vae_ms", "U", "ms", "decoding a 4-frame chunk, one thread", frozenset({"time"}), mean("time", "U", "", "ms"),
        Bar(high=40),
    )  # fmt: skip


def _walks() -> Iterator[Row]:
    short = frozenset({"short"})
    for split in ("E", "U"):
        held = split == "E"
        own = lambda name, split=split: mean("short", split, "planned", name)  # noqa: E731
        yield Row(
            "depth_loop", split, "AbsRel", "depth on generated frames inside the loop", short, own("depth_abs_rel"),
            Bar(high=0.12) if held else None,
        )  # fmt: skip
        yield Row(
            "mask_iou_loop", split, "", "dynamic mask in the loop, against the engine's own monsters", short,
            share("short", split, "planned", "mask_common", "mask_union"),
        )  # fmt: skip
        for horizon in HORIZONS_S:
            at, key = f"at {horizon:g} s", f"{horizon:g}s"
            twice = ("planned", "planned")
            yield Row(f"generated_{key}", split, "dB", f"generated vs engine {at}", short, own(f"psnr_{key}"))
            yield Row(
                f"over_guidance_{key}", split, "dB", f"generated over filled guidance {at}", short,
                gain("short", split, twice, (f"psnr_{key}", f"guidance_{key}")), Bar(low=1) if held else None,
            )  # fmt: skip
            yield Row(
                f"holes_over_guidance_{key}", split, "dB", f"the same, in holes {at}", short,
                gain("short", split, twice, (f"hole_psnr_{key}", f"hole_guidance_{key}")),
                Bar(low=3) if held else None,
            )  # fmt: skip
            yield Row(
                f"over_autoregression_{key}", split, "dB",
                f"generated over the same network latent after latent {at}", short,
                gain("short", split, ("planned", "autoregressive"), (f"psnr_{key}", f"psnr_{key}")),
                Bar(low=0) if held else None,
            )  # fmt: skip
        yield Row(
            "sharpness", split, "", "gradient energy, generated / true", short, own("sharpness"),
            Bar(0.6, 1.2) if held else None,
        )  # fmt: skip
        yield Row(
            "sharpness_autoregression", split, "", "the same, latent after latent", short,
            mean("short", split, "autoregressive", "sharpness"),
        )  # fmt: skip
        yield Row(
            "seam", split, "", "picture change at a segment boundary / inside", short, own("seam"), Bar(high=1.15)
        )
        for name, limit in (("rotation", 1.5), ("direction", 10.0)):
            title = f"camera control, {name} error by features and the essential matrix"
            yield Row(f"camera_{name}", split, "degrees", title, short, own(name), Bar(high=limit))
            title = f"the estimator's own {name} error, on true frames"
            yield Row(f"camera_{name}_true", split, "degrees", title, short, own(f"true_{name}"))
    yield Row(
        "movers_return_db", "E", "dB", "monsters after a turn of 360°: their pixels against the start picture",
        frozenset({"movers"}), mean("movers", "E", "", "psnr"),
    )  # fmt: skip
    yield Row(
        "movers_return_iou", "E", "", "the same, IoU of what the network sees moving",
        frozenset({"movers"}), share("movers", "E", "", "common", "union"),
    )  # fmt: skip


def _steps(teacher: bool) -> Iterator[Row]:
    needs = frozenset({"steps"})
    title = "correlation across tokens of sample differences over the true latents', {} steps"
    for steps in ("1", FEWER, MORE):
        coherent = Bar(low=0.5) if steps == FEWER else None
        yield Row(
            f"coherence_{steps}", "E", "", title.format(steps), needs, mean("steps", "E", steps, "coherence"), coherent
        )
    for steps in ("1", FEWER, MORE):
        for name, what in _STATISTICS.items():
            yield Row(f"{name}_{steps}", "E", "", f"{what}, {steps} steps", needs, _statistic(name, steps))
    before = TEACHER if teacher else ""
    for name, what in _STATISTICS.items():
        yield Row(
            f"more_steps_{name}", "E", "", f"before distillation, {MORE} steps over {FEWER}: {what}", needs,
            _worse(name, before + MORE, before + FEWER), Bar(high=NOT_WORSE),
        )  # fmt: skip
        if teacher:
            yield Row(
                f"distilled_{name}", "E", "", f"distilled, {FEWER} steps over {MORE} before: {what}", needs,
                _worse(name, FEWER, TEACHER + MORE), Bar(high=NOT_WORSE),
            )  # fmt: skip


_STATISTICS = {
    "sharpness_error": "|ln| of the sharpness of samples",
    "variance_error": "|ln| of the variance of latents over the true one",
    "feature_distance": "Fréchet distance of latents to the true ones",
}


def _compute(name: str, found: list[Finding]) -> float:
    """A statistic of `_STATISTICS` over the samples of several starts."""
    if name == "sharpness_error":
        return abs(math.log(max(float(np.mean([f.values["sharpness"] for f in found])), 1e-3)))
    made, true = (np.stack([f.arrays[key] for f in found]) for key in ("latents", "true"))
    if name == "variance_error":
        return abs(math.log(max(float(made.var() / true.var()), 1e-6)))
    cells = lambda latents: np.moveaxis(latents, -3, -1).reshape(-1, latents.shape[-3])  # noqa: E731
    return frechet(cells(made), cells(true))


def _statistic(name: str, variant: str) -> Callable[[Findings], Figure]:
    def value(found: Findings) -> Figure:
        all_of = list(found.of("steps", "E", variant).values())
        return Figure.resampled(lambda rows: _compute(name, [all_of[row] for row in rows]), len(all_of), draws=100)

    return value


def _worse(name: str, variant: str, than: str) -> Callable[[Findings], Figure]:
    """The ratio of a statistic with one variant to that with another; the same starts are drawn for both."""

    def value(found: Findings) -> Figure:
        ones, others = found.of("steps", "E", variant), found.of("steps", "E", than)
        both = [number for number in ones if number in others]

        def ratio(rows: np.ndarray) -> float:
            one, other = ([side[both[row]] for row in rows] for side in (ones, others))
            return _compute(name, one) / max(_compute(name, other), 1e-9)

        return Figure.resampled(ratio, len(both), draws=100)

    return value


def _minutes() -> Iterator[Row]:
    needs = frozenset({"long"})
    for name in ("colour", "contrast", "sharpness"):
        what = f"slope of {'the colour mean' if name == 'colour' else name} per minute beyond the true one"
        yield Row(f"drift_{name}", "L", "", what, needs, _slope("long", "planned", name), Bar(high=0.03))
        yield Row(
            f"drift_{name}_autoregression", "L", "", "the same, latent after latent", needs,
            _slope("long", "autoregressive", name),
        )  # fmt: skip
        yield Row(f"drift_{name}_ratio", "L", "", "ours over that one's", needs, _slope_ratio(name), Bar(high=0.5))
    played, title = frozenset({"play"}), "of a minute by held keys, per minute"
    for name in ("colour", "contrast", "sharpness"):
        what = f"slope of {'the colour mean' if name == 'colour' else name} {title}"
        yield Row(f"played_{name}", "L", "", what, played, _slope("play", "", name))
    yield Row(
        "played_last", "L", "", "gradient energy of its last ten seconds / of the recorded walk", played,
        mean("play", "L", "", "last"),
    )  # fmt: skip
    for kind, what in (("turn", "a turn of 360°"), ("loop", "a loop of 20 s")):
        once = frozenset({kind})
        yield Row(
            f"revisit_{kind}", "L", "dB", f"the start picture again after {what}", once, mean(kind, "L", "on", "psnr"),
            Bar(low=22),
        )  # fmt: skip
        yield Row(
            f"revisit_{kind}_gain", "L", "dB", "over memory off (guidance from the segment's first frame alone)", once,
            gain(kind, "L", ("on", "off"), ("psnr", "psnr")), Bar(low=4),
        )  # fmt: skip

    yield Row(
        "fps", "mesh", "frames/s", "the five services at 192x320", frozenset({"mesh"}), mean("mesh", "mesh", "", "fps"),
        Bar(low=FIRST_LIGHT_FPS),
    )  # fmt: skip


def _slope(kind: str, variant: str, name: str) -> Callable[[Findings], Figure]:
    """The size of the mean slope: what walks have in common is drift, what single walks do is what they look at."""

    def value(found: Findings) -> Figure:
        common = Figure.of(found.column(kind, "L", variant, name))
        return Figure(abs(common.mean), common.interval, common.count)

    return value


def _slope_ratio(name: str) -> Callable[[Findings], Figure]:
    def value(found: Findings) -> Figure:
        ours, theirs = (
            np.array(side) for side in found.paired("long", "L", ("planned", "autoregressive"), (name,) * 2)
        )
        ratio = lambda rows: float(abs(ours[rows].mean()) / max(abs(theirs[rows].mean()), 1e-9))  # noqa: E731
        return Figure.resampled(ratio, len(ours))

    return value
