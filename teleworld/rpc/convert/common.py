"""The parts that requests of several services share: context, timeline, prompt, guidance, cameras."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import Message

from teleworld._proto.types.v1 import camera_pb2, model_pb2, task_pb2, tensor_pb2
from teleworld.rpc.convert.model import ModelDescription, read_spec, write_spec
from teleworld.rpc.tensors import read_mask, read_tensor, write_mask, write_tensor
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, ChainMode, Group, Stage, Timeline
from teleworld.world.work import Float, Guidance, Prompt, TaskContext

MAX_NAME = 256
MAX_PROMPT = 4096
MAX_LATENTS = 256
MAX_SLOTS = 65_536
MAX_BATCH = 64
"""Tasks of one call."""

_CHAINS = {
    ChainMode.T_B: task_pb2.CHAIN_MODE_T_B,
    ChainMode.T_C: task_pb2.CHAIN_MODE_T_C,
    ChainMode.AUTOREGRESSIVE: task_pb2.CHAIN_MODE_AUTOREGRESSIVE,
}
_GROUPS = {
    Group.PREFIX: task_pb2.LATENT_GROUP_PREFIX,
    Group.PLAN: task_pb2.LATENT_GROUP_PLAN,
    Group.FIRST_HALF: task_pb2.LATENT_GROUP_FIRST_HALF,
    Group.SECOND_HALF: task_pb2.LATENT_GROUP_SECOND_HALF,
}
Wire = TypeVar("Wire", bound=Message)
Task = TypeVar("Task")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_batch(
    messages: Sequence[Wire], read: Callable[[Wire], Task], shape: Callable[[Task], object]
) -> tuple[Task, ...]:
    """The tasks of one call, 1 to MAX_BATCH, all of one `shape`.

    Raises InvalidInput whose field names the one that is wrong: `requests[3].prefix`.
    """
    if not 1 <= len(messages) <= MAX_BATCH:
        raise InvalidInput("requests", f"expected 1 to {MAX_BATCH}, got {len(messages)}")
    tasks = []
    for row, message in enumerate(messages):
        try:
            tasks.append(read(message))
        except InvalidInput as error:
            raise InvalidInput(f"requests[{row}].{error.field}", error.problem) from error
        if shape(tasks[row]) != shape(tasks[0]):
            raise InvalidInput(f"requests[{row}]", "is not of the shape of requests[0]")
    return tuple(tasks)


def write_chain(chain: ChainMode) -> task_pb2.ChainMode.ValueType:
    return _CHAINS[chain]


def read_chain(number: int, field: str) -> ChainMode:
    """The chain mode; raises InvalidInput for an unspecified or unknown one."""
    for chain, known in _CHAINS.items():
        if known == number:
            return chain
    raise InvalidInput(field, "expected CHAIN_MODE_T_B, CHAIN_MODE_T_C or CHAIN_MODE_AUTOREGRESSIVE")


def write_group(group: int) -> task_pb2.LatentGroup.ValueType:
    """The name of a group of the paper's layout."""
    return _GROUPS[Group(group)]


def read_group(number: int, field: str) -> Group:
    """The group; raises InvalidInput for an unspecified or unknown one."""
    for group, known in _GROUPS.items():
        if known == number:
            return group
    raise InvalidInput(field, "expected a group of latents")


def write_timeline(timeline: Timeline) -> task_pb2.Timeline:
    """The paper's layout by its landmarks, any other one in full."""
    if (chain := timeline.planned_chain) is not None:
        early, middle, end = timeline.members(Group.PLAN)
        return task_pb2.Timeline(
            latents=timeline.latents, early=early, middle=middle, end=end, chain=write_chain(chain)
        )
    stages = [task_pb2.TimelineStage(members=stage.members, sees=stage.sees) for stage in timeline.stages]
    return task_pb2.Timeline(latents=timeline.latents, stages=stages, key_frames=timeline.key_frames)


def read_timeline(message: task_pb2.Timeline, field: str = "timeline") -> Timeline:
    """The timeline; raises InvalidInput when its indices are out of order or more than MAX_LATENTS."""
    if message.latents > MAX_LATENTS:
        raise InvalidInput(f"{field}.latents", f"at most {MAX_LATENTS}, got {message.latents}")
    if not message.stages:
        chain = read_chain(message.chain, f"{field}.chain")
        return Timeline.planned(message.latents, message.early, message.middle, message.end, chain)
    if len(message.stages) >= MAX_LATENTS or sum(len(stage.sees) for stage in message.stages) > MAX_LATENTS**2:
        raise InvalidInput(f"{field}.stages", "too many")
    stages = tuple(Stage(tuple(stage.members), tuple(stage.sees)) for stage in message.stages)
    keys = tuple(message.key_frames)
    return Timeline(message.latents, stages, keys, keys[-1] if keys else 0)


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
    """The message, without pictures if there are none; the mask travels as bits, so its values must be 0 or 255."""
    seen = guidance.mask == 255
    if np.count_nonzero(guidance.mask) != np.count_nonzero(seen):
        raise InvalidInput(f"{field}.mask", "expected 0 or 255")
    shown = len(guidance.pixels) > 0
    return task_pb2.Guidance(
        indices=guidance.indices,
        pixels=write_tensor(guidance.pixels, f"{field}.pixels") if shown else None,
        mask=write_mask(seen, f"{field}.mask") if shown else None,
        latents=write_tensor(guidance.latents, f"{field}.latents"),
        coverage=write_tensor(guidance.coverage, f"{field}.coverage"),
    )


def read_guidance(
    message: task_pb2.Guidance,
    field: str = "guidance",
    *,
    pictures: bool = True,
    of: Sequence[int] | None = None,
    held: bool = False,
) -> Guidance:
    """The guidance, its four arrays of one number of latents and one size. Without `pictures` those may be left out.

    of: the latents that it must be for, if they are known. held: pixels and latents may stay in shared memory.
    """
    indices = read_indices(message.indices, f"{field}.indices")
    if of is not None and indices != tuple(of):
        raise InvalidInput(f"{field}.indices", f"expected {list(of)}, got {list(indices)}")
    count, frames = len(indices), len(indices) * PIXEL_FRAMES_PER_LATENT
    if pictures or message.HasField("pixels"):
        pixels = read_tensor(message.pixels, f"{field}.pixels", np.uint8, (frames, None, None, 3), held=held)
        mask = read_mask(message.mask, f"{field}.mask", pixels.shape[:3])
    else:
        pixels, mask = np.zeros((0, 0, 0, 3), np.uint8), np.zeros((0, 0, 0), np.bool_)
    latents = read_tensor(message.latents, f"{field}.latents", np.float32, (count, None, None, None), held=held)
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


def read_latents(message: tensor_pb2.Tensor, field: str, count: int | None = None, *, held: bool = False) -> Float:
    """Latents, float32 [n, C, h, w]; n must be `count` if that is given. held: they may stay in shared memory."""
    return read_tensor(message, field, np.float32, (count, None, None, None), held=held)


def write_model(model: ModelDescription) -> model_pb2.ModelDescription:
    spec = None if model.spec is None else write_spec(model.spec)
    return model_pb2.ModelDescription(
        name=model.name, weights_digest=model.weights_digest, spec=spec, slots=model.slots, batches=model.batches
    )


def read_model(message: model_pb2.ModelDescription) -> ModelDescription:
    """What a worker computes with."""
    digest = check_name(message.weights_digest, "model.weights_digest")
    name = check_name(message.name, "model.name")
    if message.slots > MAX_SLOTS:
        raise InvalidInput("model.slots", f"at most {MAX_SLOTS}, got {message.slots}")
    for kind, size in message.batches.items():
        if not 1 <= size <= MAX_BATCH:
            raise InvalidInput(f"model.batches[{kind}]", f"must lie between 1 and {MAX_BATCH}, got {size}")
    spec = read_spec(message.spec, name) if message.HasField("spec") else None
    return ModelDescription(name, digest, spec, message.slots or 1, dict(message.batches))
