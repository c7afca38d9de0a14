"""Geometry network: what it promises whatever its weights are; how good trained weights are is for the evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from teleworld.models.geometry import NANO_GEOMETRY, VGGT_GEOMETRY, GeometryConfig, GeometryNetwork, SaliencyGroups
from teleworld.models.geometry.blocks import AttentionBlock, Rotary2D
from teleworld.models.geometry.heads import DepthHead, normalised_log, stem_inputs
from teleworld.models.geometry.mirrored import infer_mirrored
from teleworld.models.geometry.network import pixel_rays, rebase, within_tolerance
from teleworld.models.geometry.saliency import dynamic_tokens, gram_maps, layer_statistics
from teleworld.world.camera import Lens, PitchModel, pose, unproject
from teleworld.world.errors import InvalidInput

SMALL = replace(
    NANO_GEOMETRY,
    depth_bins=8,
    stem_channels=(4, 8, 8),
    width=16,
    heads=2,
    head_channels=(8, 8, 8, 4),
    saliency_width=4,
)
HEIGHT, WIDTH = 32, 48
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def network() -> GeometryNetwork:
    torch.manual_seed(0)
    return GeometryNetwork(SMALL).eval()


def inputs(frames: int, seed: int = 1) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(frames, 3, HEIGHT, WIDTH, generator=generator) * 2 - 1
    lens = Lens(WIDTH, HEIGHT, 20.0, 24.0, PitchModel.SHIFT)
    lenses = torch.from_numpy(np.array([lens.at_pitch(0.05 * frame) for frame in range(frames)]))
    poses = torch.from_numpy(np.array([pose(0.2 * frame, 1.0, 0.5 * frame, 0.1 * frame) for frame in range(frames)]))
    guidance = torch.rand(frames, HEIGHT, WIDTH, generator=generator) * 8
    guidance[guidance < 2] = 0
    return pictures, lenses, poses, guidance


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_every_window_length_gives_metric_depth_and_probabilities(network: GeometryNetwork, frames: int):
    answer = network.infer(*inputs(frames))
    for values in (answer.depth, answer.confidence, answer.dynamic):
        assert values.shape == (frames, HEIGHT, WIDTH) and values.dtype == torch.float32
        assert torch.isfinite(values).all() and (values > 0).all()
    assert (answer.confidence < 1).all() and (answer.dynamic < 1).all()
    assert answer.pose_correction.shape == (frames, 6)


def test_numpy_arrays_and_tensors_are_the_same_input(network: GeometryNetwork):
    given = inputs(2)
    first, second = network.infer(*given), network.infer(*(part.numpy() for part in given))
    assert torch.equal(first.depth, second.depth) and torch.equal(first.dynamic, second.dynamic)


def test_the_world_frame_does_not_matter(network: GeometryNetwork):
    pictures, lenses, poses, guidance = inputs(3)
    elsewhere = torch.from_numpy(pose(-900.0, 3.0, 4000.0, 2.3)) @ poses
    first = network.infer(pictures, lenses, poses, guidance)
    second = network.infer(pictures, lenses, elsewhere, guidance)
    torch.testing.assert_close(first.depth, second.depth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("pictures", lambda p, k, c, g: (p[0], k, c, g)),
        ("pictures", lambda p, k, c, g: (p[:, :, :-1], k, c, g)),
        ("intrinsics", lambda p, k, c, g: (p, k[:1], c, g)),
        ("camera_to_world", lambda p, k, c, g: (p, k, c[:, :3], g)),
        ("guidance_depth", lambda p, k, c, g: (p, k, c, g[:, :-1])),
    ],
)
def test_a_wrong_shape_is_refused_by_name(network: GeometryNetwork, field: str, change):
    with pytest.raises(InvalidInput) as refused:
        network.infer(*change(*inputs(2)))
    assert refused.value.field == field


@pytest.mark.parametrize("frames", [1, 3])
def test_measured_in_the_mirror_too_a_mirrored_world_gives_the_mirrored_answer(network: GeometryNetwork, frames: int):
    pictures, lenses, poses, guidance = inputs(frames)
    answer = infer_mirrored(network, pictures, lenses, poses, guidance)
    opposite = lenses.clone()
    opposite[:, 2] = WIDTH - lenses[:, 2]
    turned = torch.from_numpy(np.array([pose(-0.2 * at, 1.0, 0.5 * at, -0.1 * at) for at in range(frames)]))
    again = infer_mirrored(network, pictures.flip(-1), opposite, turned, guidance.flip(-1))
    for name in ("depth", "confidence", "dynamic"):
        torch.testing.assert_close(getattr(again, name).flip(-1), getattr(answer, name), rtol=1e-4, atol=1e-5)
    signs = torch.tensor([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    torch.testing.assert_close(signs * again.pose_correction, answer.pose_correction, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.infer(pictures, lenses, poses, guidance).depth, answer.depth, rtol=1e-3)


def test_suppressed_tokens_lend_no_keys_but_keep_their_queries():
    torch.manual_seed(0)
    block = AttentionBlock(SMALL).eval()
    tables = Rotary2D(SMALL.width // SMALL.heads, 100.0).tables(1, 2, 3)
    x = torch.randn(1, 14, SMALL.width)
    keep = torch.ones(1, 14, dtype=torch.bool)
    keep[0, [3, 10]] = False
    changed = x.clone()
    changed[0, [3, 10]] += 1.0
    before, after = block(x, tables, keep, 2)[0], block(changed, tables, keep, 2)[0]
    assert torch.equal(before[keep], after[keep])
    assert not torch.equal(before[~keep], after[~keep])
    assert not torch.equal(block(x, tables, None, 2)[0][keep], block(changed, tables, None, 2)[0][keep])


def test_second_pass_equals_a_pass_that_is_told_the_dynamic_tokens(network: GeometryNetwork):
    pictures, lenses, poses, guidance = inputs(3)
    with torch.no_grad():
        weight, bias = network.saliency_head.logits.weight, network.saliency_head.logits.bias
        bias.zero_()
        middle = network(
            pictures[None], lenses[None].float(), rebase(poses[None]).float(), guidance[None]
        ).dynamic_logits
        weight.mul_(10_000)
        bias.fill_(-10_000 * middle.median())
    answer = network.infer(pictures, lenses, poses, guidance)
    suppressed = dynamic_tokens(answer.dynamic[None], SMALL.patch, SMALL.suppress_above)
    assert suppressed.any() and not suppressed.all()
    batch = pictures[None], lenses[None].float(), rebase(poses[None]).float(), guidance[None]
    with torch.no_grad():
        told, plain = network(*batch, suppressed), network(*batch)
    torch.testing.assert_close(answer.depth, told.log_depth[0].exp())
    assert (answer.depth - plain.log_depth[0].exp()).abs().max() > 1e-5


def test_a_frame_that_is_wholly_dynamic_still_answers(network: GeometryNetwork):
    with torch.no_grad():
        network.saliency_head.logits.bias.fill_(50.0)
    assert torch.isfinite(network.infer(*inputs(2)).depth).all()


def test_gram_statistics_are_those_of_all_products_with_the_other_frames():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 3, 2, 5, 4, dtype=torch.float64)
    found = layer_statistics(q, k)
    for frame in range(3):
        others = [other for other in range(3) if other != frame]
        rows = []
        for source, window in ((q, q), (q, k), (k, k)):
            tokens = torch.cat([window[0, other] for other in others], dim=1)
            products = source[0, frame] @ tokens.transpose(1, 2)
            rows += [products.mean(-1).mean(0), products.std(-1, correction=0).mean(0)]
        torch.testing.assert_close(found[0, frame], torch.stack(rows))


def test_saliency_maps_are_scaled_per_frame():
    torch.manual_seed(0)
    states = [torch.randn(2, 3, 2, 6, 4) for _ in range(3)]
    maps = gram_maps(states, [state.flip(3) for state in states], SaliencyGroups((0,), (0, 1), (2,)))
    assert maps.shape == (2, 3, 18, 6)
    torch.testing.assert_close(maps.amin(-1), torch.zeros(2, 3, 18))
    torch.testing.assert_close(maps.amax(-1), torch.ones(2, 3, 18))


def test_a_token_counts_as_dynamic_by_the_share_of_its_patch():
    probability = torch.zeros(1, 1, 16, 16)
    probability[0, 0, :8, 8:12] = 1.0
    assert dynamic_tokens(probability, 8, 0.4).tolist() == [[[[False, True], [False, False]]]]
    assert not dynamic_tokens(probability, 8, 0.6).any()


def test_rays_agree_with_the_camera_model():
    lens = Lens(WIDTH, HEIGHT, 20.0, 24.0, PitchModel.SHIFT).at_pitch(-0.2)
    depth = np.full((HEIGHT, WIDTH), 3.0)
    rays = pixel_rays(torch.from_numpy(lens)[None].float(), HEIGHT, WIDTH)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(rays * 3.0, unproject(depth, lens, np.eye(4))[..., :2], rtol=1e-5, atol=1e-5)


def test_the_reference_frame_is_level_and_has_the_heading_of_the_last_camera():
    poses = torch.from_numpy(np.array([pose(1.0, 2.0, 3.0, 0.4), pose(5.0, 1.0, -2.0, 1.1, 0.3)]))[None]
    found = rebase(poses)[0]
    np.testing.assert_allclose(found[1].numpy(), pose(0, 0, 0, 0, 0.3), atol=1e-12)
    between = torch.linalg.inv(poses[0, 1]) @ poses[0, 0]
    torch.testing.assert_close(torch.linalg.inv(found[1]) @ found[0], between)


def test_floor_depth_is_linear_in_the_level_channel():
    camera, lens = pose(0, 0, 0, 0, -0.3), Lens(WIDTH, HEIGHT, 20.0, 24.0).at_pitch(0.0)
    points = unproject(np.ones((HEIGHT, WIDTH)), lens, camera)
    fall = torch.from_numpy(points[..., 1])[None]
    blank = torch.zeros(1, HEIGHT, WIDTH)
    level = stem_inputs(torch.zeros(1, 3, HEIGHT, WIDTH), blank, torch.zeros(1, 2, HEIGHT, WIDTH), fall)[0, 5]
    floor = fall[0] > 0.02
    depth_of_floor = normalised_log(1.3 / fall[0][floor])
    torch.testing.assert_close(depth_of_floor - level[floor], torch.full_like(depth_of_floor, np.log(1.3)))


def test_trusted_guidance_passes_through_the_depth_head_unchanged():
    head = DepthHead(SMALL)
    torch.nn.init.zeros_(head.answer.weight)
    with torch.no_grad():
        head.answer.bias.copy_(torch.tensor([0.7, 60.0, 0.0]))
        head.bins.weight.zero_()
        head.bins.bias.copy_(-100 * (head.centres - head.centres[3]).square())
    skips = [torch.randn(1, c, HEIGHT >> i, WIDTH >> i) for i, c in enumerate(SMALL.stem_channels)]
    taps = [torch.randn(1, (HEIGHT // 8) * (WIDTH // 8), SMALL.width) for _ in range(SMALL.pairs)]
    guidance = inputs(1)[3]
    log_depth, _, _ = head(taps, skips, guidance, (HEIGHT // 8, WIDTH // 8))
    known = guidance > 0
    torch.testing.assert_close(log_depth[known].exp(), guidance[known])
    torch.testing.assert_close(
        normalised_log(log_depth[~known].exp()), torch.full_like(log_depth[~known], float(head.centres[3]) + 0.7)
    )


def test_confidence_is_the_laplace_probability_of_a_small_error():
    errors = torch.distributions.Laplace(0.0, 1 / 12.0).sample((200_000,))
    share = (errors.abs() < 0.1).float().mean()
    assert within_tolerance(torch.tensor(12.0), 0.1) == pytest.approx(float(share), abs=0.01)


def test_nano_is_small_and_vggt_has_its_published_shape():
    with torch.device("meta"):
        nano, large = GeometryNetwork(NANO_GEOMETRY), GeometryNetwork(VGGT_GEOMETRY)
    assert sum(p.numel() for p in nano.parameters()) < 3e6
    assert len(large.pairs) == 24 and large.pairs[0].glob.q_norm.normalized_shape == (64,)
    # 48 blocks of 12.6 M: the alternating-attention trunk of VGGT.
    assert 0.59e9 < sum(p.numel() for p in large.pairs.parameters()) < 0.62e9


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 3}, {"head_channels": (8, 8)}, {"pairs": 2}, {"suppressed_pairs": (5,)}],
    ids=["heads", "head_channels", "groups", "suppressed"],
)
def test_an_impossible_configuration_is_refused(wrong: dict[str, object]):
    with pytest.raises(InvalidInput):
        GeometryConfig(**wrong)  # type: ignore[arg-type]
