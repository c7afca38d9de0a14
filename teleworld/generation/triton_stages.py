"""The decoder's networks inside a Triton Inference Server: what the `model.py` of an exported repository runs.

Triton's sequence batcher brings all requests of a world to the same instance, in order, and frees the place of a world
that is silent for long. The state itself lives here, in the instance: bounded, and checked against the mark that each
request names, so that an instance that was restarted, or has seen the request already, answers STATE_LOST and the
caller sends the segment's history again. An error carries its reason and text of TeleWorld's error tree.

`triton_python_backend_utils` exists only inside Triton's Python backend, so it is imported when a model is initialised.
Tensors pass as DLPack: this backend reads the arrays of numpy 2 as empty.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teleworld.generation.model import Model, load_model
from teleworld.generation.pixels import frames_tensor, hint_from
from teleworld.generation.streams import StreamTable
from teleworld.generation.triton_repository import ERROR_MARK, STAGES, Tensors, weights_sha256
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.models.stream_vae.state import StreamState
from teleworld.world.errors import CheckpointError, Internal, TeleWorldError

Step = Callable[[Mapping[str, Tensor], StreamState], Tensor]


def vae_step(model: Model) -> Step:
    """LATENT float32 [C, h, w], GUIDANCE uint8 [4 or 0, H, W, 3] -> PIXELS float32 [3, F, H, W]."""

    def step(tensors: Mapping[str, Tensor], state: StreamState) -> Tensor:
        latent = model.place(tensors[Tensors.LATENT][None, :, None])
        return model.vae.decode_chunk(latent, state, _hint(model, tensors))[0].float()

    return step


def super_resolution_step(model: Model) -> Step:
    """PIXELS float32 [3, F, H, W], GUIDANCE as for `vae_step` -> FRAMES uint8 [F, H', W', 3]."""

    def step(tensors: Mapping[str, Tensor], state: StreamState) -> Tensor:
        pixels = model.place(tensors[Tensors.PIXELS][None])
        return frames_tensor(model.super_resolution.upscale_chunk(pixels, state, _hint(model, tensors)))

    return step


def _hint(model: Model, tensors: Mapping[str, Tensor]) -> DecoderGuidance | None:
    pictures = tensors[Tensors.GUIDANCE]
    return model.place_hint(hint_from(pictures)) if len(pictures) else None


class TritonPythonModel:
    """The interface of Triton's Python backend. Which network this is stands in the parameters of its config.pbtxt."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the network that lies beside `model.py`. Raises what loading raises: Triton then refuses the model."""
        self._triton = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        settings = {name: entry["string_value"] for name, entry in config["parameters"].items()}
        torch.set_num_threads(int(settings["threads"]))
        self._stage = STAGES[settings["network"]]
        model = load_model(settings["model"], Path(args["model_repository"]) / args["model_version"])
        if weights_sha256(model, self._stage.network) != settings["sha256"]:
            raise CheckpointError(self._stage.network, "the weights are not those that were exported")
        # Looked up now, so that the weights are in memory before Triton says that it is ready.
        network = getattr(model, self._stage.network)
        self._new_state: Callable[[], StreamState] = getattr(network, self._stage.new_state)
        self._step = {"vae": vae_step, "super_resolution": super_resolution_step}[self._stage.network](model)
        self._streams = StreamTable(int(settings["streams"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            output = self._advance(request)
        except TeleWorldError as error:
            text = f"{ERROR_MARK}{error.reason}: {error.message}"
            return self._triton.InferenceResponse(error=self._triton.TritonError(text))
        except Exception as error:  # noqa: BLE001 - it must reach the caller as an answer to this request alone
            text = f"{ERROR_MARK}{Internal.reason}: {type(error).__name__}: {error}"
            return self._triton.InferenceResponse(error=self._triton.TritonError(text))
        tensor = self._triton.Tensor.from_dlpack(self._stage.output, output.contiguous())
        return self._triton.InferenceResponse(output_tensors=[tensor])

    @torch.inference_mode()
    def _advance(self, request: Any) -> Tensor:
        """Do the request's step on its world's state. A request that ends a sequence does nothing else."""
        world, flags = str(request.correlation_id()), request.flags()
        if flags & self._triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            self._streams.forget(world)
            return torch.zeros(self._stage.nothing, dtype=self._stage.dtype)
        tensors = {name: self._tensor(request, name) for name in self._stage.inputs}
        after, at = (bytes(self._tensor(request, name).tolist()).decode() for name in (Tensors.AFTER, Tensors.AT))
        if flags & self._triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            state = self._new_state()
        else:
            (state,) = self._streams.resume(world, after)
        output = self._step(tensors, state)
        self._streams.keep(world, at, (state,))
        return output

    def _tensor(self, request: Any, name: str) -> Tensor:
        return torch.from_dlpack(self._triton.get_input_tensor_by_name(request, name))
