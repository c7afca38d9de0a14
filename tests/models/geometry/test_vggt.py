"""VGGT in its public naming, and VGGT4D's saliency, masks and suppression against their literal form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from teleworld.models.architectures import ARCHITECTURES, recognise
from teleworld.models.geometry.metric import rotation_vectors
from teleworld.models.geometry.vggt import VGGT, VGGT_1B, SaliencyLayers, VGGTConfig, load_vggt
from teleworld.models.geometry.vggt.backend import VGGTGeometry
from teleworld.models.geometry.vggt.blocks import Rotary
from teleworld.models.geometry.vggt.model import camera_matrices
from teleworld.models.geometry.vggt.refine import adaptive_threshold, clusters, confirmed, multi_otsu
from teleworld.models.geometry.vggt.saliency import dynamic_map, sources_of
from teleworld.world.errors import CheckpointError, InvalidInput
from tests.models.geometry import literal
from tests.models.geometry.small import SMALL


@pytest.fixture(scope="module")
def network() -> VGGTGeometry:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = VGGTGeometry(SMALL)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval().requires_grad_(False)


def test_the_published_configuration_has_the_published_names_and_size():
    """1,256.5 M parameters are published, of which the point head has 32.7 M and the track head 65.9 M."""
    with torch.device("meta"):
        state = VGGT(VGGT_1B).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["aggregator.patch_embed.pos_embed"] == (1, 1370, 1024)
    assert shapes["aggregator.patch_embed.patch_embed.proj.weight"] == (1024, 3, 14, 14)
    assert shapes["aggregator.patch_embed.blocks.23.ls2.gamma"] == (1024,)
    assert shapes["aggregator.camera_token"] == (1, 2, 1, 1024)
    assert shapes["aggregator.register_token"] == (1, 2, 4, 1024)
    assert shapes["aggregator.frame_blocks.23.attn.q_norm.weight"] == (64,)
    assert shapes["aggregator.global_blocks.0.attn.qkv.weight"] == (3072, 1024)
    assert shapes["camera_head.poseLN_modulation.1.weight"] == (6144, 2048)
    assert shapes["camera_head.trunk.3.mlp.fc1.weight"] == (8192, 2048)
    assert shapes["camera_head.pose_branch.fc2.weight"] == (9, 1024)
    assert shapes["depth_head.resize_layers.0.weight"] == (256, 256, 4, 4)
    assert shapes["depth_head.scratch.refinenet4.resConfUnit2.conv1.weight"] == (256, 256, 3, 3)
    assert shapes["depth_head.scratch.output_conv2.2.weight"] == (2, 32, 1, 1)
    assert not any(name.startswith("depth_head.scratch.refinenet4.resConfUnit1") for name in shapes)
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_157_941_492


def test_a_checkpoint_in_the_public_naming_loads_strictly(network: VGGTGeometry):
    public = {**network.state_dict(), "point_head.norm.weight": torch.ones(3), "track_head.any.thing": torch.ones(2)}
    loaded = load_vggt(public, SMALL)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
    lacking = {name: value for name, value in public.items() if name != "camera_head.token_norm.bias"}
    with pytest.raises(CheckpointError, match=r"missing camera_head\.token_norm\.bias"):
        load_vggt(lacking, SMALL)
    with pytest.raises(CheckpointError, match=r"unexpected depth_head\.extra"):
        load_vggt({**public, "depth_head.extra": torch.ones(1)}, SMALL)


def test_saliency_is_the_literal_one():
    torch.manual_seed(1)
    layers, window = SaliencyLayers((1, 2), (2, 3), (1, 3), (0,)), (-6, -4, -2, 2, 4, 6)
    q, k = ({layer: torch.randn(5, 2, 12, 8, dtype=torch.float64) for layer in range(4)} for _ in range(2))
    found = dynamic_map(q, k, layers, window)
    torch.testing.assert_close(found, literal.dynamic_map(q, k, layers, window), rtol=1e-9, atol=1e-12)
    assert float(found.min()) == 0
    assert float(found.amax(1).min()) > 0.99


def test_a_short_sequence_is_compared_with_what_there_is():
    window = VGGT_1B.window
    assert sources_of(5, 12, window) == [1, 3, 7, 9, 11]
    assert sources_of(0, 3, window) == [2]
    assert sources_of(1, 3, window) == [0, 2]
    assert sources_of(0, 1, window) == [0]


@pytest.mark.parametrize("classes", [2, 3])
def test_multi_otsu_finds_the_best_of_all_thresholds(classes: int):
    draw = np.random.default_rng(classes)
    values = np.concatenate([draw.normal(mean, 0.05, 200) for mean in (0.1, 0.4, 0.9)])
    found = multi_otsu(values, classes, bins=64)
    assert found is not None
    assert literal.between(values, tuple(found), 64) == pytest.approx(literal.otsu(values, classes, 64), rel=1e-12)


def test_the_threshold_parts_what_moves_from_the_rest():
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(0.1, 0.03, 900), draw.normal(0.8, 0.03, 100)])
    above = values > adaptive_threshold(values)
    assert above[900:].all() and above[:900].mean() < 0.01
    assert multi_otsu(np.zeros(10), 2) is None


def test_clusters_are_the_groups_that_there_are():
    draw = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    truth = draw.integers(0, 3, 300)
    labels = clusters(centres[truth] + draw.normal(0, 0.1, (300, 2)), 3)
    assert {tuple(sorted(set(labels[truth == group]))) for group in range(3)} == {(0,), (1,), (2,)}
    assert len(set(clusters(np.zeros((5, 2)), 3))) == 1


def test_suppression_really_drops_keys_and_values_and_keeps_queries(network: VGGTGeometry):
    """Within frames and across them, in the named pairs only; specials are never dropped."""
    torch.manual_seed(2)
    grid, frames = (2, 3), 3
    features = torch.randn(1, frames, 6, SMALL.width)
    suppressed = torch.rand(1, frames, 6) < 0.4
    found = network.aggregator(features, grid, suppressed)
    aggregator, specials = network.aggregator, 5
    rotary = Rotary(SMALL.width // SMALL.heads, SMALL.rope_base, specials, *grid, features.device)
    first = [0] + [1] * (frames - 1)
    special = torch.cat([aggregator.camera_token, aggregator.register_token], dim=2)[0, first]
    tokens = torch.cat([special, features[0]], dim=1)
    count = tokens.shape[1]

    def through(block: torch.nn.Module, x: Tensor, dropped: list[int]) -> Tensor:
        x = x + block.ls1(literal.attention_without(block.norm1(x), block.attn, rotary, dropped))
        return x + block.ls2(block.mlp(block.norm2(x)))

    for pair in range(SMALL.depth):
        hidden = suppressed[0] if pair in SMALL.suppressed else torch.zeros_like(suppressed[0])
        gone = [[specials + i for i in range(6) if hidden[frame, i]] for frame in range(frames)]
        local = torch.stack([through(aggregator.frame_blocks[pair], tokens[f], gone[f]) for f in range(frames)])
        everywhere = [frame * count + token for frame in range(frames) for token in gone[frame]]
        tokens = through(aggregator.global_blocks[pair], local.flatten(0, 1), everywhere).view(frames, count, -1)
        expected = torch.cat([local, tokens], dim=-1)
        torch.testing.assert_close(found.taps[pair][0], expected, rtol=1e-4, atol=1e-5)
    plain = network.aggregator(features, grid)
    assert torch.equal(plain.taps[0], found.taps[0])
    assert not torch.allclose(plain.taps[1], found.taps[1])


def test_a_cluster_that_stands_still_elsewhere_is_dropped_and_one_that_moved_stays():
    """A wall 4 m away, seen from two places; a patch that both show alike, and one that is gone in the other frame."""
    height, width, focal = 24, 40, 30.0
    depth = torch.full((2, height, width), 4.0)
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.4  # three pixels to the right
    lens = torch.tensor([[focal, focal, width / 2, height / 2]] * 2)
    columns = torch.arange(width).float()
    pictures = torch.stack([(columns + 3 * frame).sin().expand(3, height, width) / 2 + 0.5 for frame in range(2)])
    pictures[0, :, 2:6, 20:26] = 0.0
    depth[0, 2:6, 20:26] = 2.0
    dynamic = torch.zeros(2, height, width, dtype=torch.bool)
    dynamic[0, 2:6, 20:26] = True
    dynamic[0, 15:20, 20:26] = True
    kept = confirmed(dynamic, depth, pictures, poses, lens)
    assert bool(kept[0, 2:6, 20:26].all())
    assert not bool(kept[0, 15:20].any())
    assert not bool(kept[1].any())


def test_poses_are_rotations_and_the_field_of_view_gives_the_lens():
    poses = torch.tensor([[0.1, -0.2, 0.3, 0.1, 0.2, -0.1, 0.9, math.radians(60), math.radians(90)]])
    matrix, lens = camera_matrices(poses, 60, 100)
    rotation = matrix[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.inv(matrix)[0, :3, 3], poses[0, :3])
    torch.testing.assert_close(lens[0], torch.tensor([50.0, 30 / math.tan(math.radians(30)), 50.0, 30.0]))
    axis = torch.nn.functional.normalize(poses[0, 3:7], dim=0)[:3]
    angle = 2 * math.atan2(float(axis.norm()), float(torch.nn.functional.normalize(poses[0, 3:7], dim=0)[3]))
    torch.testing.assert_close(rotation_vectors(rotation.T[None])[0], axis / axis.norm() * angle)


def inputs(frames: int, height: int = 40, width: int = 60) -> tuple[Tensor, ...]:
    torch.manual_seed(frames)
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, 2, 3] = 0.1 * torch.arange(frames)
    lens = torch.tensor([[50.0, 50.0, width / 2, height / 2]]).repeat(frames, 1)
    return torch.rand(frames, 3, height, width) * 2 - 1, lens, poses, torch.zeros(frames, height, width)


@pytest.mark.parametrize("frames", [1, 3])
def test_the_backend_answers_in_metres_for_pictures_of_any_size(network: VGGTGeometry, frames: int):
    pictures, lens, poses, guidance = inputs(frames)
    plain = network.infer(pictures, lens, poses, guidance)
    assert plain.depth.shape == plain.confidence.shape == plain.dynamic.shape == (frames, 40, 60)
    assert plain.pose_correction.shape == (frames, 6)
    torch.testing.assert_close(plain.pose_correction[-1], torch.zeros(6), rtol=0, atol=1e-5)
    guided = network.infer(pictures, lens, poses, guidance + 3.0)
    assert float(guided.depth.median()) == pytest.approx(3.0, rel=0.05)
    again = network.infer(pictures, lens, poses, guidance + 3.0)
    assert torch.equal(again.depth, guided.depth) and torch.equal(again.dynamic, guided.dynamic)


def test_a_checkpoint_is_recognised_by_its_shapes():
    with torch.device("meta"):
        state = VGGT(VGGT_1B).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()} | {"track_head.any.thing": (3,)}
    found = recognise(shapes)
    assert found is not None
    assert (found[0], found[1].config, found[1].title) == ("vggt", VGGT_1B, "VGGT-1B")
    assert ARCHITECTURES["vggt"].rename({"aggregator.a": torch.ones(1), "point_head.b": torch.ones(1)}).keys() == {
        "aggregator.a"
    }


def test_wrong_shapes_are_named(network: VGGTGeometry):
    pictures, lens, poses, guidance = inputs(2)
    with pytest.raises(InvalidInput, match="guidance_depth"):
        network.infer(pictures, lens, poses, guidance[:1])
    with pytest.raises(InvalidInput, match=r"vggt\.depth"):
        VGGTConfig(depth=8)
