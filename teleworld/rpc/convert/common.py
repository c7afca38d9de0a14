"""The parts that requests of several services share: context, timeline, prompt, guidance, cameras."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from teleworld._proto.types.v1 import camera_pb2, model_pb2, task_pb2, tensor_pb2
from teleworld.rpc.tensors import read_mask, read_tensor, write_mask, write_tensor
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, ChainMode, Group, Timeline
from teleworld.world.work import Float, Guidance, Prompt, TaskContext

MAX_NAME = 256
MAX_PROMPT = 4096
MAX_LATENTS = 256

_CHAINS = {ChainMode.T_B: task_pb2.CHAIN_MODE_T_B, ChainMode.T_C: task_pb2.CHAIN_MODE_T_C}
_GROUPS = {
    Group.PREFIX: task_pb2.LATENT_GROUP_PREFIX,
    Group.PLAN: task_pb2.LATENT_GROUP_PLAN,
    Group.FIRST_HALF: task_pb2.LATENT_GROUP_FIRST_HALF,
    Group.SECOND_HALF: task_pb2.LATENT_GROUP_SECOND_HALF,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelDescription:
    """What a worker computes with: the name of a configuration and the digest of its weights, which worlds pin."""

    name: str
    weights_digest: str


def write_chain(chain: ChainMode) -> task_pb2.ChainMode.ValueType:
    return _CHAINS[chain]


def read_chain(number: int, field: str) -> ChainMode:
    """The chain mode; raises InvalidInput for an unspecified or unknown one."""
    for chain, known in _CHAINS.items():
        if known == number:
            return chain
    raise InvalidInput(field, "expected CHAIN_MODE_T_B or CHAIN_MODE_T_C")


def write_group(group: Group) -> task_pb2.LatentGroup.ValueType:
    return _GROUPS[group]


def read_group(number: int, field: str) -> Group:
    """The group; raises InvalidInput for an unspecified or unknown one."""
    for group, known in _GROUPS.items():
        if known == number:
            return group
    raise InvalidInput(field, "expected a group of latents")


def write_timeline(timeline: Timeline) -> task_pb2.Timeline:
    return task_pb2.Timeline(
        latents=timeline.latents,
        early=timeline.early,
        middle=timeline.middle,
        end=timeline.end,
        chain=write_chain(timeline.chain),
    )


def read_timeline(message: task_pb2.Timeline, field: str = "timeline") -> Timeline:
    """The timeline; raises InvalidInput when its indices are out of order or more than MAX_LATENTS."""
    if message.latents > MAX_LATENTS:
        raise InvalidInput(f"{field}.latents", f"at most {MAX_LATENTS}, got {message.latents}")
    chain = read_chain(message.chain, f"{field}.chain")
    return Timeline(latents=message.latents, early=message.early, middle=message.middle, end=message.end, chain=chain)


def write_context(context: TaskContext) -> task_pb2.TaskContext:
    return task_pb2.TaskContext(
        world=context.world,
        epoch=context.epoch,
        segment=context.segment,
        task=context.task,
        attempt=context.attempt,
        seed=context.seed,
        weights=context.weights,
    )


def read_context(message: task_pb2.TaskContext, field: str = "context") -> TaskContext:
    """The context; raises InvalidInput when a name is missing or too long."""
    for name in ("world", "task", "weights"):
        check_name(getattr(message, name), f"{field}.{name}")
    return TaskContext(
        world=message.world,
        epoch=message.epoch,
        segment=message.segment,
        task=message.task,
        attempt=message.attempt,
        seed=message.seed,
        weights=message.weights,
    )


def check_name(value: str, field: str) -> str:
    """`value`, if it is 1 to MAX_NAME characters."""
    if not 1 <= len(value) <= MAX_NAME:
        raise InvalidInput(field, f"expected 1 to {MAX_NAME} characters, got {len(value)}")
    return value


def check_text(value: str, field: str) -> str:
    """`value`, if it is short enough for a prompt; an empty one is allowed."""
    if len(value) > MAX_PROMPT:
        raise InvalidInput(field, f"at most {MAX_PROMPT} characters, got {len(value)}")
    return value


def check_sha256(value: str, field: str) -> str:
    """`value`, if it is empty or 64 lower-case hexadecimal digits."""
    if value and not _SHA256.fullmatch(value):
        raise InvalidInput(field, "expected 64 lower-case hexadecimal digits")
    return value


def read_indices(values: Iterable[int], field: str) -> tuple[int, ...]:
    """Latent indices: 1 to MAX_LATENTS, ascending, at least one."""
    indices = tuple(values)
    ascending = all(a < b for a, b in itertools.pairwise(indices))
    if not indices or not ascending or indices[0] < 1 or indices[-1] > MAX_LATENTS:
        raise InvalidInput(field, f"expected ascending latent indices from 1 to {MAX_LATENTS}")
    return indices


def write_prompt(prompt: Prompt) -> task_pb2.Prompt:
    return task_pb2.Prompt(text=prompt.text, embedding=write_tensor(prompt.embedding, "prompt.embedding"))


def read_prompt(message: task_pb2.Prompt, field: str = "prompt") -> Prompt:
    """The prompt with its embedding float32 [T, D]."""
    text = check_text(message.text, f"{field}.text")
    return Prompt(text, read_tensor(message.embedding, f"{field}.embedding", np.float32, (None, None)))


def write_guidance(guidance: Guidance, field: str = "guidance") -> task_pb2.Guidance:
    """The message; the mask travels as bits, so its values must be 0 or 255."""
    seen = guidance.mask == 255
    if not (seen | (guidance.mask == 0)).all():
        raise InvalidInput(f"{field}.mask", "expected 0 or 255")
    return task_pb2.Guidance(
        indices=guidance.indices,
        pixels=write_tensor(guidance.pixels, f"{field}.pixels"),
        mask=write_mask(seen, f"{field}.mask"),
        latents=write_tensor(guidance.latents, f"{field}.latents"),
        coverage=write_tensor(guidance.coverage, f"{field}.coverage"),
    )


def read_guidance(message: task_pb2.Guidance, field: str = "guidance") -> Guidance:
    """The guidance, its four arrays of one number of latents and one size."""
    indices = read_indices(message.indices, f"{field}.indices")
    count, frames = len(indices), len(indices) * PIXEL_FRAMES_PER_LATENT
    pixels = read_tensor(message.pixels, f"{field}.pixels", np.uint8, (frames, None, None, 3))
    mask = read_mask(message.mask, f"{field}.mask", pixels.shape[:3])
    latents = read_tensor(message.latents, f"{field}.latents", np.float32, (count, None, None, None))
    coverage = read_tensor(message.coverage, f"{field}.coverage", np.float32, (count, *latents.shape[2:]))
    if coverage.min() < 0 or coverage.max() > 1:
        raise InvalidInput(f"{field}.coverage", "every value must lie between 0 and 1")
    return Guidance(indices, pixels, mask.astype(np.uint8) * np.uint8(255), latents, coverage)


def write_path(path: CameraPath) -> camera_pb2.CameraPath:
    return camera_pb2.CameraPath(
        camera_to_world_opencv_metres=path.camera_to_world.reshape(-1).tolist(),
        intrinsics_pixels=path.intrinsics.reshape(-1).tolist(),
    )


def read_path(message: camera_pb2.CameraPath, field: str = "path", frames: int | None = None) -> CameraPath:
    """The cameras of `frames` frames (any number if None): finite, rigid, with positive focal lengths."""
    poses, lenses = message.camera_to_world_opencv_metres, message.intrinsics_pixels
    if len(poses) % 16:
        raise InvalidInput(f"{field}.camera_to_world_opencv_metres", f"expected 16 numbers a frame, got {len(poses)}")
    if len(lenses) * 4 != len(poses):
        raise InvalidInput(f"{field}.intrinsics_pixels", f"expected {len(poses) // 4} numbers, got {len(lenses)}")
    path = CameraPath(np.array(poses, np.float64).reshape(-1, 4, 4), np.array(lenses, np.float64).reshape(-1, 4))
    path.check(field, frames)
    return path


def write_clearance(clearance: Clearance) -> camera_pb2.Clearance:
    return camera_pb2.Clearance(
        origin_x_metres=clearance.origin[0],
        origin_z_metres=clearance.origin[1],
        cell_metres=clearance.cell,
        blocked=write_mask(clearance.blocked, "clearance.blocked"),
    )


def read_clearance(message: camera_pb2.Clearance, field: str = "clearance") -> Clearance:
    """The occupancy grid; an empty one is allowed."""
    origin = (message.origin_x_metres, message.origin_z_metres)
    if not np.isfinite(origin).all():
        raise InvalidInput(f"{field}.origin_x_metres", "the origin must be finite")
    if not (np.isfinite(message.cell_metres) and message.cell_metres > 0):
        raise InvalidInput(f"{field}.cell_metres", "must be positive")
    return Clearance(origin, message.cell_metres, read_mask(message.blocked, f"{field}.blocked", (None, None)))


def read_latent(message: tensor_pb2.Tensor, field: str) -> Float:
    """One latent, float32 [C, h, w]."""
    return read_tensor(message, field, np.float32, (None, None, None))


def read_latents(message: tensor_pb2.Tensor, field: str, count: int | None = None) -> Float:
    """Latents, float32 [n, C, h, w]; n must be `count` if that is given."""
    return read_tensor(message, field, np.float32, (count, None, None, None))


def write_model(model: ModelDescription) -> model_pb2.ModelDescription:
    return model_pb2.ModelDescription(name=model.name, weights_digest=model.weights_digest)


def read_model(message: model_pb2.ModelDescription) -> ModelDescription:
    """What a worker computes with."""
    digest = check_name(message.weights_digest, "model.weights_digest")
    return ModelDescription(check_name(message.name, "model.name"), digest)
