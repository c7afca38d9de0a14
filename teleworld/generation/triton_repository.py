"""The model repository with which a Triton Inference Server decodes for TeleWorld.

Three models: `stream_vae` and `super_resolution`, each with its own weights, instances and states, and the ensemble
`teleworld_decoder` that a decoder calls, latent by latent. A world is a sequence: its name is the correlation id, the
first latent of a segment carries the start flag, and a world that leaves carries the end flag. Nothing here needs
Triton; what runs inside the server is `triton_stages`.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from teleworld.generation.model import Model
from teleworld.generation.model_folder import DESCRIPTION
from teleworld.generation.streams import MAX_STREAMS
from teleworld.models.checkpoint import shards_of
from teleworld.world.errors import InvalidInput

ENSEMBLE = "teleworld_decoder"
DIGEST = "weights_digest"
ERROR_MARK = "teleworld:"
VERSION = "1"
# Sequences that Triton lets into an instance; one beyond them would wait for another's end. What is held is bounded by
# the instance itself, which forgets the world that rested longest.
_SEQUENCES = 65536

_MODEL_PY = '''"""Loaded by Triton's Python backend; its Python must be able to import teleworld (extra `serve`)."""

from teleworld.generation.triton_stages import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class Tensors:
    """Names of the tensors. AFTER and AT are marks (`streams.mark`) in UTF-8: where a stream must stand, and will stand."""

    LATENT = "LATENT"
    GUIDANCE = "GUIDANCE"
    PIXELS = "PIXELS"
    FRAMES = "FRAMES"
    AFTER = "AFTER"
    AT = "AT"


_SHAPES = {
    Tensors.LATENT: ("TYPE_FP32", "-1, -1, -1"),
    Tensors.GUIDANCE: ("TYPE_UINT8", "-1, -1, -1, 3"),
    Tensors.PIXELS: ("TYPE_FP32", "3, -1, -1, -1"),
    Tensors.FRAMES: ("TYPE_UINT8", "-1, -1, -1, 3"),
    Tensors.AFTER: ("TYPE_UINT8", "-1"),
    Tensors.AT: ("TYPE_UINT8", "-1"),
}


@dataclass(frozen=True)
class Stage:
    """One network in the server.

    network: its attribute of `Model`, and its file. new_state: its method that begins a stream. inputs, output: of
    `_SHAPES`. nothing, dtype: the output of a request that only ends a sequence.
    """

    name: str
    network: str
    new_state: str
    inputs: tuple[str, ...]
    output: str
    nothing: tuple[int, ...]
    dtype: torch.dtype


STAGES = {
    "vae": Stage(
        name="stream_vae",
        network="vae",
        new_state="new_decoder_state",
        inputs=(Tensors.LATENT, Tensors.GUIDANCE),
        output=Tensors.PIXELS,
        nothing=(3, 0, 0, 0),
        dtype=torch.float32,
    ),
    "super_resolution": Stage(
        name="super_resolution",
        network="super_resolution",
        new_state="new_state",
        inputs=(Tensors.PIXELS, Tensors.GUIDANCE),
        output=Tensors.FRAMES,
        nothing=(0, 0, 0, 3),
        dtype=torch.uint8,
    ),
}
_MARKS = (Tensors.AFTER, Tensors.AT)


@dataclass(frozen=True)
class ExportOptions:
    """How the exported models run.

    threads: intra-op threads of an instance; as many as the decoders of the mesh use, or bits may differ.
    instances: processes of each stage. streams: worlds whose state an instance holds. idle_seconds: silence after which
    the server frees a world's place. gpu: run the instances on GPUs instead of CPUs. python_env: a Python environment
    with teleworld for the backend's processes; by default the server's own.
    """

    threads: int = 1
    instances: int = 1
    streams: int = MAX_STREAMS
    idle_seconds: float = 600.0
    gpu: bool = False
    python_env: Path | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "instances", "streams", "idle_seconds"):
            if getattr(self, name) <= 0:
                raise InvalidInput(name.replace("_", "-"), "must be positive")


def export_repository(model: Model, out: Path, options: ExportOptions | None = None) -> list[Path]:
    """Write the model repository for `model` into `out`, new or empty; returns the folders of its models.

    Raises InvalidInput if `out` holds something, CheckpointError if a network is missing.
    """
    options = options or ExportOptions()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput("out", f"{out} must be a new or empty folder")
    for stage in STAGES.values():
        version = out / stage.name / VERSION
        version.mkdir(parents=True)
        for file in _files(model, stage.network):
            copied = version / model.spec.name / file.relative_to(model.folder.path.resolve())
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
        (version / "model.py").write_text(_MODEL_PY)
        (out / stage.name / "config.pbtxt").write_text(_stage_config(stage, model, options))
    (out / ENSEMBLE / VERSION).mkdir(parents=True)
    (out / ENSEMBLE / "config.pbtxt").write_text(_ensemble_config(model))
    return [out / name for name in (ENSEMBLE, *(stage.name for stage in STAGES.values()))]


def weights_sha256(model: Model, network: str) -> str:
    """What pins the files of one network: sha256 over the sha256 of each, as 64 hex digits."""
    digest = hashlib.sha256()
    for file in _files(model, network):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _files(model: Model, network: str) -> list[Path]:
    """All files that loading `network` reads: its weights, their shards, the folder's description."""
    file, description = model.file(network), model.folder.path.resolve() / DESCRIPTION
    return [file, *shards_of(file), *([description] if description.is_file() else [])]


def _stage_config(stage: Stage, model: Model, options: ExportOptions) -> str:
    settings = {
        "model": model.spec.name,
        "network": stage.network,
        "sha256": weights_sha256(model, stage.network),
        "threads": str(options.threads),
        "streams": str(options.streams),
    }
    if options.python_env is not None:
        settings["EXECUTION_ENV_PATH"] = str(options.python_env.resolve())
    return "\n".join(
        [
            f'name: "{stage.name}"',
            'backend: "python"',
            # No batch axis: the states of different worlds never share an operation, so that bits do not depend on company.
            "max_batch_size: 0",
            *(_tensor("input", name) for name in (*stage.inputs, *_MARKS)),
            _tensor("output", stage.output),
            "sequence_batching {",
            f"  max_sequence_idle_microseconds: {round(options.idle_seconds * 1e6)}",
            f"  oldest {{ max_candidate_sequences: {_SEQUENCES} }}",
            "}",
            f"instance_group [ {{ kind: KIND_{'GPU' if options.gpu else 'CPU'} count: {options.instances} }} ]",
            *_parameters(settings),
            "",
        ]
    )


def _ensemble_config(model: Model) -> str:
    vae, upscaler = STAGES["vae"], STAGES["super_resolution"]
    steps = []
    for stage in (vae, upscaler):
        inputs = "".join(f'    input_map {{ key: "{name}" value: "{name}" }}\n' for name in (*stage.inputs, *_MARKS))
        output = f'    output_map {{ key: "{stage.output}" value: "{stage.output}" }}\n'
        steps.append(f'  step {{\n    model_name: "{stage.name}"\n    model_version: -1\n{inputs}{output}  }}')
    return "\n".join(
        [
            f'name: "{ENSEMBLE}"',
            'platform: "ensemble"',
            "max_batch_size: 0",
            *(_tensor("input", name) for name in (*vae.inputs, *_MARKS)),
            _tensor("output", upscaler.output),
            "ensemble_scheduling {",
            *steps,
            "}",
            *_parameters({"model": model.spec.name, DIGEST: model.digest}),
            "",
        ]
    )


def _tensor(kind: str, name: str) -> str:
    dtype, dims = _SHAPES[name]
    return f'{kind} [ {{ name: "{name}" data_type: {dtype} dims: [ {dims} ] }} ]'


def _parameters(values: dict[str, str]) -> list[str]:
    return [f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in values.items()]
