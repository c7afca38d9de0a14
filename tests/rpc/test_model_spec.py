"""The world that a worker tells of arrives as it was, and nonsense is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from teleworld._proto.types.v1 import model_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.convert.model import ModelDescription, read_spec, write_spec
from teleworld.world.camera import PitchModel
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import NANO, WAN, WorldSpec
from tests.rpc.samples import DIGEST


@pytest.mark.parametrize(
    "spec", [NANO, *WAN, replace(NANO, spatial_stride=16, name="wide")], ids=lambda spec: spec.name
)
def test_a_world_arrives_as_it_was(spec: WorldSpec):
    sent = ModelDescription(spec.name, DIGEST, spec)
    message = pb.ModelDescription.FromString(common.write_model(sent).SerializeToString())
    assert common.read_model(message) == sent


def test_batches_arrive_and_none_that_is_too_large():
    sent = ModelDescription("nano", DIGEST, slots=3, batches={"plan": 4})
    message = pb.ModelDescription.FromString(common.write_model(sent).SerializeToString())
    assert common.read_model(message) == sent
    message.batches["plan"] = common.MAX_BATCH + 1
    with pytest.raises(InvalidInput, match=r"^model\.batches\[plan\]: "):
        common.read_model(message)


def test_a_worker_that_tells_of_none_stands_for_a_built_in_one():
    message = common.write_model(ModelDescription("nano", DIGEST))
    assert not message.HasField("spec") and common.read_model(message).spec is None


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda m: setattr(m, "latents", 0), r"model\.spec\.latents"),
        (lambda m: setattr(m, "upscale", 2**31), r"model\.spec\.upscale"),
        (lambda m: setattr(m, "frames_per_second", float("nan")), r"model\.spec\.frames_per_second"),
        (lambda m: setattr(m.lens, "width_pixels", 0), r"model\.spec\.lens\.width_pixels"),
        (lambda m: setattr(m.lens, "focal_y_pixels", -1.0), r"model\.spec\.lens\.focal_y_pixels"),
        (lambda m: setattr(m.lens, "pitch_model", 0), r"model\.spec\.lens\.pitch_model"),
        (lambda m: setattr(m.gait, "turn_radians", float("inf")), r"model\.spec\.gait"),
        (lambda m: setattr(m.lens, "height_pixels", 97), r"spec\.lens"),
    ],
)
def test_nonsense_is_refused_by_name(damage: Callable[[pb.WorldSpec], None], field: str):
    message = write_spec(NANO)
    assert message.lens.pitch_model == pb.PITCH_MODEL_SHIFT and NANO.lens.pitch_model is PitchModel.SHIFT
    damage(message)
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        read_spec(message, "nano")
