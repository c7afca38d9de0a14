"""Trials are made once, kept whole, and add up to the table; nothing in it is typed by hand."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from teleworld.evaluation import ledger as ledgers
from teleworld.evaluation.cards import refresh
from teleworld.evaluation.ledger import Ledger, data_digest
from teleworld.evaluation.metrics import Figure
from teleworld.evaluation.rows import table
from teleworld.evaluation.samples import starts, with_movers
from teleworld.evaluation.table import Bar, Findings
from teleworld.evaluation.trials import Finding, Laboratory, Trial, plan
from teleworld.generation.model import Model, load_model
from teleworld.training.dataset import load_split
from teleworld.training.recording.manifest import Manifest, arrays_digest, mean_speed, write_episode
from teleworld.world.errors import InvalidInput
from tests.tiny_model import write_tiny_model
from tests.training.test_dataset import make_episode

STARTS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording a split, long enough for what is walked here."""
    root = tmp_path_factory.mktemp("data")
    for seed, split in enumerate(("E", "U", "L")):
        # Four plain fields: no features, since searching them is most of the time and tested elsewhere.
        fields = np.random.default_rng(seed).integers(0, 256, (90, 2, 2, 3), np.uint8)
        arrays = replace(
            make_episode(90, seed),
            rgb96=fields.repeat(48, axis=1).repeat(80, axis=2),
            rgb192=fields.repeat(96, axis=1).repeat(160, axis=2),
        )
        manifest = Manifest(
            "MAP01", seed, split, 90, "e", "0", arrays_digest(arrays), mean_speed(arrays), 45, arrays.captions
        )
        write_episode(root / split / f"MAP01_{seed}", arrays, manifest)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model("nano", write_tiny_model(tmp_path_factory.mktemp("models")))


def made_up(trials: list[Trial]) -> dict[Trial, Finding]:
    """A finding for each trial with a value under every name that any row reads."""
    random = np.random.default_rng(4)
    names = [
        "psnr",
        "covered_db",
        "sharper",
        "ms",
        "fps",
        "first_abs_rel",
        "first_scale",
        "abs_rel",
        "scale",
        "coherence",
    ]
    names += [
        "mask_common",
        "mask_union",
        "common",
        "union",
        "depth_abs_rel",
        "sharpness",
        "seam",
        "colour",
        "contrast",
        "last",
    ]
    names += ["rotation", "direction", "true_rotation", "true_direction"]
    names += [
        f"{what}_{at}s" for what in ("psnr", "guidance", "hole_psnr", "hole_guidance") for at in ("0.5", "1", "2")
    ]
    found = {}
    for trial in trials:
        arrays = {name: random.standard_normal((3, 4, 6, 8)) for name in ("latents", "true")}
        found[trial] = Finding({name: float(random.uniform(0.1, 1)) for name in names}, arrays=arrays)
    return found


@pytest.mark.parametrize("teacher", [False, True])
def test_every_row_is_computed_from_the_trials_of_the_plan(teacher: bool) -> None:
    trials = [Trial("mesh", "mesh", "", 0), *plan(STARTS, 60.0, teacher=teacher)]
    assert len({trial.name for trial in trials}) == len(trials)
    rows, findings = table(teacher=teacher), Findings(made_up(trials))
    assert len({row.key for row in rows}) == len(rows)
    needed = {(kind, row.split) for row in rows for kind in row.kinds}
    assert needed == {(trial.kind, trial.split) for trial in trials}, "no walk is made for nothing, and none is missing"
    for row in rows:
        figure = row.value(findings)
        assert math.isfinite(figure.mean), row.key
        assert figure.count == (1 if row.kinds & {"time", "mesh"} else STARTS), row.key
    assert any(row.name.startswith("distilled") for row in rows) == teacher


def test_a_gain_is_taken_start_by_start() -> None:
    found = {
        Trial("turn", "L", variant, number): Finding({"psnr": 20.0 + 10 * number + gain})
        for variant, gain in (("on", 5.0), ("off", 0.0))
        for number in range(STARTS)
    }
    rows = {row.key: row for row in table()}
    gain = rows["revisit_turn_gain.L"].value(Findings(found))
    assert gain == Figure(5.0, 0.0, STARTS), "starts differ by 10 dB, the gain by nothing"
    assert rows["revisit_turn.L"].value(Findings(found)).interval > 5
    assert rows["revisit_loop.L"].value(Findings(found)).count == 0


def test_pixels_are_summed_before_they_are_divided() -> None:
    found = {
        Trial("still", "E", "", number): Finding({"mask_common": common, "mask_union": union})
        for number, (common, union) in enumerate([(0, 10), (90, 100), (0, 0)])
    }
    figure = next(row for row in table() if row.key == "mask_iou.E").value(Findings(found))
    assert figure.mean == pytest.approx(90 / 110) and figure.interval > 0


def test_drift_is_what_walks_have_in_common() -> None:
    found = {
        Trial("long", "L", variant, number, 60.0): Finding({"colour": slope * scale})
        for variant, scale in (("planned", 1.0), ("autoregressive", 4.0))
        for number, slope in enumerate((-0.2, -0.1, 0.2))
    }
    rows = {row.key: row for row in table()}
    assert rows["drift_colour.L"].value(Findings(found)).mean == pytest.approx(0.1 / 3)
    assert rows["drift_colour_ratio.L"].value(Findings(found)).mean == pytest.approx(0.25)


def test_bars() -> None:
    assert Bar(low=1).met(1.0) and not Bar(low=1).met(0.99) and not Bar(0.6, 1.2).met(1.3)
    assert not Bar(high=2).met(float("nan"))
    assert [str(Bar(low=22)), str(Bar(high=1.15)), str(Bar(0.6, 1.2))] == [">= 22", "<= 1.15", "0.6 to 1.2"]


def test_more_starts_only_add_to_fewer(data: Path) -> None:
    episodes = load_split(data, "E")
    few, many = starts(episodes, 2, 40), starts(episodes, 5, 40)
    assert [place.name for place in many[:2]] == [place.name for place in few]
    moving = with_movers(episodes, 2, (100, 200))
    assert len(moving) == 2 and len({place.frame for place in moving}) == 2
    with pytest.raises(InvalidInput, match="nothing moves"):
        with_movers(episodes, 2, (9000, 9001))


def test_trials_measure_and_are_kept_whole(data: Path, model: Model, tmp_path: Path) -> None:
    laboratory = Laboratory(model, data)
    ledger = Ledger(tmp_path, (model.digest, data_digest(data)))
    trials = [
        Trial("still", "E", "", 0),
        Trial("short", "U", "planned", 0),
        Trial("short", "U", "autoregressive", 0),
        Trial("steps", "E", "4", 1),
        Trial("long", "L", "planned", 0, 3.0),
        Trial("time", "U", "", 0),
        Trial("play", "L", "", 0, 3.0),
    ]
    found = {}
    for trial in trials:
        assert ledger.load(trial) is None
        ledger.keep(trial, laboratory.perform(trial))
        again = ledger.load(trial)
        assert again is not None
        found[trial] = again
    known = {row.key: row.value(Findings(found)) for row in table()}
    for key in (
        "vae_psnr.E",
        "depth.E",
        "seam.U",
        "over_autoregression_1s.U",
        "coherence_4.E",
        "drift_contrast.L",
        "vae_ms.U",
        "played_colour.L",
        "played_last.L",
    ):
        assert math.isfinite(known[key].mean), key
    assert known["vae_psnr.U"].count == 0
    strip = found[trials[1]].strip
    assert strip is not None and strip.shape == (3 * 96, 8 * 160, 3)
    assert len(found[trials[4]].series["coverage"]) == 1
    assert Laboratory(model, data).start(trials[1]).name == Laboratory(model, data).start(trials[2]).name


def test_findings_of_other_code_are_not_taken_unless_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial("turn", "L", "on", 0)
    Ledger(tmp_path, ("w",)).keep(trial, Finding({"psnr": 21.0, "other": float("nan")}))
    monkeypatch.setattr(ledgers, "code_digest", lambda: "another")
    assert Ledger(tmp_path, ("w",)).load(trial) is None
    trusted = Ledger(tmp_path, ("w",), trust=True).load(trial)
    assert trusted is not None and trusted.values["psnr"] == 21.0 and math.isnan(trusted.values["other"])
    assert Ledger(tmp_path, ("other weights",), trust=True).load(trial) is None


def test_a_card_gets_its_figures_between_its_marks(tmp_path: Path) -> None:
    row = {"mean": 29.123, "interval": 0.456, "count": 20, "unit": "dB", "title": "VAE", "bar": ">= 29", "met": True}
    result = {
        "vae_psnr.E": row,
        "vae_ms.U": row | {"mean": None, "interval": None, "bar": None, "met": None, "title": "time"},
        "run": {"starts": 20, "seconds": 60.0, "weights": "f" * 64},
    }
    folder = write_tiny_model(tmp_path) / "nano"
    card = tmp_path / "card.md"
    card.write_text("Before.\n<!-- figures: vae -->\nold\n<!-- end -->\n\n<!-- facts: dit -->\n<!-- end -->\nAfter.\n")
    assert refresh(card, json.loads(json.dumps(result)), folder) == 2
    text = card.read_text()
    assert (
        "| VAE | E | 29.12 ± 0.46 dB | 20 | >= 29 | met |" in text and "| time | U | not measured | 20 |  |  |" in text
    )
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "old" not in text
    assert "`dit.safetensors`: 0.1" in text and "Long walks of 60 s" in text
    assert refresh(card, result, folder) == 2 and card.read_text() == text, "a second time changes nothing"
    card.write_text("no marks")
    with pytest.raises(InvalidInput, match="no marks"):
        refresh(card, result, folder)


def test_the_benchmark_prints_one_object_and_goes_on_where_it_was(
    data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("quality_benchmark", file)
    assert spec is not None and spec.loader is not None
    quality = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quality)
    monkeypatch.setattr(quality, "plan_dataset", lambda: [])
    card = tmp_path / "card.md"
    card.write_text("<!-- figures: seam -->\n<!-- end -->\n")
    command = [
        "quality.py",
        "--json",
        "--data",
        str(data),
        "--checkpoints",
        str(model.folder.path.parent),
        "--jobs",
        "1",
    ]
    command += ["--starts", "1", "--out", str(tmp_path), "--rows", "seam.U", "vae_psnr.U", "--write", str(card)]
    seen = []
    for more in ([], ["--strip", str(tmp_path / "strip.png")]):
        monkeypatch.setattr("sys.argv", [*command, *more])
        quality.main()
        said = capsys.readouterr()
        seen.append((json.loads(said.out.splitlines()[-1]), said.err.count("min left")))
    (first, made), (second, again) = seen
    assert first == second and (made, again) == (3, 0), "the second run makes no walk"
    assert set(first) == {"seam.U", "vae_psnr.U", "run"}
    row = first["seam.U"]
    assert set(row) == {"mean", "interval", "count", "unit", "title", "bar", "met"}
    assert (
        row["bar"] == "<= 1.15"
        and row["met"] == (row["mean"] <= 1.15)
        and row["interval"] is None
        and row["count"] == 1
    )
    assert "inside | U |" in card.read_text()
    page = (tmp_path / "quality.html").read_text()
    assert page.count("<img") == 1 and page.count("<tr>") == 1 + len(first) - 1
    assert (tmp_path / "strip.png").stat().st_size > 1000
    assert json.loads((tmp_path / "quality.json").read_text()) == first
