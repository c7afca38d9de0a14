"""Every object of `teleworld.world.work` survives the wire unchanged, and what is malformed is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from teleworld.rpc.convert import common, decoder, gateway, planner, populator, reconstructor
from teleworld.world.controls import ALL_KEYS, Control, Keys
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Group, Timeline
from tests.rpc import samples

PAIRS: list[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (samples.EMBED, planner.write_embed_request, planner.read_embed_request),
    (samples.PROMPT, planner.write_embed_response, planner.read_embed_response),
    (samples.ENCODE, planner.write_encode_request, planner.read_encode_request),
    (samples.ENCODED, planner.write_encode_response, planner.read_encode_response),
    (samples.PLAN, planner.write_plan_request, planner.read_plan_request),
    (samples.PLANNED, planner.write_plan_response, planner.read_plan_response),
    ((samples.PLAN, samples.PLAN), planner.write_plan_many_request, planner.read_plan_many_request),
    ((samples.PLANNED, samples.PLANNED), planner.write_plan_many_response, planner.read_plan_many_response),
    (samples.BRIDGE, planner.write_bridge_request, planner.read_bridge_request),
    (samples.BRIDGED, planner.write_bridge_response, planner.read_bridge_response),
    (samples.POPULATE, populator.write_populate_request, populator.read_populate_request),
    (samples.POPULATE_ALONE, populator.write_populate_request, populator.read_populate_request),
    (samples.POPULATED, populator.write_populate_response, populator.read_populate_response),
    ((samples.POPULATE,) * 3, populator.write_populate_many_request, populator.read_populate_many_request),
    ((samples.POPULATED,) * 3, populator.write_populate_many_response, populator.read_populate_many_response),
    (samples.GUIDE, reconstructor.write_guide_request, reconstructor.read_guide_request),
    (samples.GUIDED, reconstructor.write_guide_response, reconstructor.read_guide_response),
    (samples.RECONSTRUCT, reconstructor.write_reconstruct_request, reconstructor.read_reconstruct_request),
    (samples.RECONSTRUCTED, reconstructor.write_reconstruct_response, reconstructor.read_reconstruct_response),
    (samples.DECODE, decoder.write_decode_request, decoder.read_decode_request),
    (samples.DECODE_FIRST, decoder.write_decode_request, decoder.read_decode_request),
    (samples.DECODED, decoder.write_decode_response, decoder.read_decode_response),
    (Control(3, Keys.W | Keys.LEFT), gateway.write_control, gateway.read_control),
    (Control(4, ALL_KEYS, chunk=0), gateway.write_control, gateway.read_control),
    (common.ModelDescription("nano", samples.DIGEST), common.write_model, common.read_model),
]


@pytest.mark.parametrize(("sent", "write", "read"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_sent_arrives_bit_for_bit(sent: Any, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
    message = write(sent)
    assert samples.equal(sent, read(type(message).FromString(message.SerializeToString())))


@pytest.mark.parametrize("chain", ChainMode)
@pytest.mark.parametrize("latents", [4, 6, 10])
def test_timelines_and_groups_arrive(chain: ChainMode, latents: int) -> None:
    timeline = Timeline.of(latents, chain)
    assert common.read_timeline(common.write_timeline(timeline)) == timeline
    assert common.read_timeline(common.write_timeline(timeline.cut(3))) == timeline.cut(3)
    assert all(common.read_group(common.write_group(group), "group") is group for group in Group)


def refused(read: Callable[[Any], Any], message: Any) -> str:
    """The field that the reader names."""
    with pytest.raises(InvalidInput) as caught:
        read(message)
    return caught.value.field


def spoiled(message: Any, where: str, value: Any) -> Any:
    """A copy of `message` with one scalar field, given by its path, replaced."""
    copy = type(message)()
    copy.CopyFrom(message)
    *folders, leaf = where.split(".")
    part = copy
    for folder in folders:
        part = getattr(part, folder)
    if isinstance(value, list):
        del getattr(part, leaf)[:]
        getattr(part, leaf).extend(value)
    else:
        setattr(part, leaf, value)
    return copy


PLAN = planner.write_plan_request(samples.PLAN)


@pytest.mark.parametrize(
    ("where", "value", "field"),
    [
        ("context.world", "", "context.world"),
        ("context.task", "x" * 300, "context.task"),
        ("context.weights", "", "context.weights"),
        ("timeline.chain", 0, "timeline.chain"),
        ("timeline.middle", 1, "timeline"),
        ("timeline.latents", 100_000, "timeline.latents"),
        ("prefix.shape", [3, 2], "prefix.shape"),
        ("prompt.text", "x" * 5000, "prompt.text"),
        ("guidance.indices", [2, 4], "guidance.indices"),
        ("guidance.indices", [4, 2, 6], "guidance.indices"),
        ("guidance.indices", [0, 2, 4], "guidance.indices"),
        ("guidance.indices", [], "guidance.indices"),
        ("guidance.mask.shape", [12, 16, 23], "guidance.mask.shape"),
        ("guidance.mask.packed", b"\xff", "guidance.mask.packed"),
        ("guidance.coverage.shape", [3, 3, 2], "guidance.coverage.shape"),
    ],
)
def test_a_malformed_plan_is_refused_by_name(where: str, value: Any, field: str) -> None:
    assert refused(planner.read_plan_request, spoiled(PLAN, where, value)) == field


def test_coverage_outside_0_to_1_is_refused() -> None:
    message = planner.write_plan_request(samples.PLAN)
    shape = tuple(message.guidance.coverage.shape)
    message.guidance.coverage.inline = np.full(shape, 1.5, np.float32).tobytes()
    assert refused(planner.read_plan_request, message) == "guidance.coverage"


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_a_pose_that_is_no_pose_is_refused_by_its_frame(value: float) -> None:
    message = reconstructor.write_guide_request(samples.GUIDE)
    message.path.camera_to_world_opencv_metres[16 * 3 + 3] = value
    assert refused(reconstructor.read_guide_request, message) == "path.camera_to_world[3]"


def test_cameras_that_do_not_fit_the_latents_are_refused() -> None:
    message = reconstructor.write_guide_request(samples.GUIDE)
    del message.path.intrinsics_pixels[-1]
    assert refused(reconstructor.read_guide_request, message) == "path.intrinsics_pixels"
    message = reconstructor.write_guide_request(samples.GUIDE)
    message.indices.append(5)
    assert refused(reconstructor.read_guide_request, message) == "path"


def test_key_frames_need_a_camera_and_a_number_each() -> None:
    message = reconstructor.write_reconstruct_request(samples.RECONSTRUCT)
    del message.frames[-1]
    assert refused(reconstructor.read_reconstruct_request, message) == "frames"
    assert (
        refused(
            reconstructor.read_reconstruct_request,
            spoiled(reconstructor.write_reconstruct_request(samples.RECONSTRUCT), "base_revision", -2),
        )
        == "base_revision"
    )


@pytest.mark.parametrize(
    ("where", "value", "field"),
    [("group", 2, "group"), ("group", 99, "group"), ("group", 3, "clean.shape")],
)
def test_a_half_that_does_not_fit_is_refused(where: str, value: Any, field: str) -> None:
    message = populator.write_populate_request(samples.POPULATE)
    assert refused(populator.read_populate_request, spoiled(message, where, value)) == field


@pytest.mark.parametrize(
    ("where", "value", "field"),
    [
        ("index", 0, "index"),
        ("index", 2, "latents.shape"),
        ("previous_sha256", "../../etc/passwd", "previous_sha256"),
    ],
)
def test_a_malformed_decode_is_refused_by_name(where: str, value: Any, field: str) -> None:
    assert (
        refused(decoder.read_decode_request, spoiled(decoder.write_decode_request(samples.DECODE), where, value))
        == field
    )


def test_controls_are_checked() -> None:
    message = gateway.write_control(Control(3, Keys.W))
    assert refused(gateway.read_control, spoiled(message, "keys", [1, 77])) == "control.keys[1]"
    assert refused(gateway.read_control, spoiled(message, "sequence", 0)) == "control.sequence"


def test_a_fork_onto_itself_is_refused() -> None:
    message = reconstructor.pb.ForkMemoryRequest(source="a", revision=1, target="a")
    assert refused(reconstructor.read_fork_request, message) == "target"


def test_a_mask_with_other_values_is_not_sent() -> None:
    guidance = samples.guidance(2)
    guidance.mask[0, 0, 0] = 128
    with pytest.raises(InvalidInput, match=r"guidance\.mask"):
        common.write_guidance(guidance)
