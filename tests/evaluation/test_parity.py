"""Every row of the parity table holds; and the table would notice if one did not."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.parity import main as benchmark
from teleworld.evaluation.parity import CHECKS, Check, Row, run_checks
from teleworld.evaluation.parity import dit as dit_parity
from teleworld.evaluation.parity.table import compare


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_row_holds(check: Check):
    rows = list(run_checks([check]))
    assert rows
    assert [row for row in rows if not row.holds] == []


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["blocks.1.norm3.weight", "blocks.2.cross_attn.norm_k_img.weight", "head.modulation", "img_emb.proj.4.bias"]
)
def test_a_single_wrong_weight_is_noticed(name: str):
    ours, theirs = dit_parity.twins(dit_parity.PICTURED)
    latents, text, picture = dit_parity.inputs(dit_parity.PICTURED)
    timestep = torch.tensor([937.5, 250.0])
    expected = theirs(latents, timestep, text, encoder_hidden_states_image=picture).sample
    ours.get_parameter(name).flatten()[0] += 0.5
    found = dit_parity.predict(ours, latents, timestep[:, None].expand(-1, dit_parity.FRAMES), text, picture)
    assert not compare("DiT", name, "diffusers", found, expected).holds


def test_what_is_no_number_never_holds():
    assert not Row("m", "c", "r", float("nan"), float("nan"), 1.0).holds
    with pytest.raises(ValueError, match=r"\[2\] beside \[3\]"):
        compare("m", "c", "r", torch.zeros(2), torch.zeros(3))


def test_the_benchmark_prints_the_table(capsys: pytest.CaptureFixture[str]):
    assert benchmark(["--json", "--only", "tiny"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["holds"] and {row["module"] for row in answer["rows"]} == {"Stream-VAE encode", "Stream-VAE decode"}
    assert benchmark(["--only", "no such check"]) == 1, "nothing compared is nothing shown"
