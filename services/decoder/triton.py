"""Pictures from a Triton Inference Server: the decoder's networks run there, in the models of `teleworld triton export`.

A world is a sequence there, latent by latent. Whatever goes wrong with its state (the server was restarted, the world
was silent for long, an answer was lost on the way) comes back as StateLost, and the segment's history is sent again by
whoever asked. What Triton must not be trusted with is to have the right weights: their digest is compared at the start.

For one thread at a time.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry import propagate
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from services.decoder.shared_memory import SharedTensors
from teleworld.generation.decoder import first_latent
from teleworld.generation.model import Model
from teleworld.generation.pixels import guidance_of
from teleworld.generation.stages import StageClock
from teleworld.generation.streams import MAX_STREAMS, mark
from teleworld.generation.triton_repository import DIGEST, ENSEMBLE, ERROR_MARK, Tensors
from teleworld.world.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    StateLost,
    TeleWorldError,
    Unavailable,
)
from teleworld.world.latents import latent_digest
from teleworld.world.work import Bytes, DecodeRequest

_log = logging.getLogger(__name__)
_OURS = re.compile(rf"{ERROR_MARK}([A-Z_]+): (.*)", re.DOTALL)
_TYPES = {"float32": "FP32", "uint8": "UINT8"}
_POLL_S = 0.1
# The most that one latent becomes.
_FRAMES = 4


class TritonFrames:
    """A `FrameMaker` over a Triton server."""

    def __init__(self, url: str, model: Model, timeout_s: float, shared_memory: bool = True) -> None:
        """Connect and wait until the models are ready. Raises Unavailable, or InvalidInput for other weights.

        model: says which weights and what size of pictures are expected; none of its networks is loaded.
        """
        self._timeout_s = timeout_s
        self._client = InferenceServerClient(url)
        self._worlds: dict[str, None] = {}
        self._wait(url)
        self._check(model.digest)
        width, height = model.spec.output_size
        shared = SharedTensors(self._client, _FRAMES * height * width * 3) if shared_memory else None
        self._shared = shared if shared is not None and shared.works() else None
        _log.info("Triton is ready", extra={"url": url, "shared_memory": self._shared is not None})

    def frames(self, request: DecodeRequest, clock: StageClock) -> Bytes:
        """See `FrameMaker.frames`. Raises also Unavailable, Overloaded and DeadlineExceeded, as the server does."""
        first, context = first_latent(request), request.context
        after = "" if first == 1 else mark(context, first - 1, request.previous)
        frames: Bytes | None = None
        with clock.stage("triton"):
            for row, index in enumerate(range(first, request.index + 1)):
                at = mark(context, index, latent_digest(request.latents[row]))
                frames = self._infer(context.world, self._tensors(request, row, index, after, at), start=index == 1)
                after = at
        assert frames is not None
        self._remember(context.world)
        return frames

    @property
    def shares_memory(self) -> bool:
        """Whether tensors pass through shared memory."""
        return self._shared is not None

    def close(self) -> None:
        """End every world's sequence, so that the server frees its place, and disconnect."""
        for world in list(self._worlds):
            self._end(world)
        if self._shared is not None:
            self._shared.close()
        self._client.close()

    def _tensors(self, request: DecodeRequest, row: int, index: int, after: str, at: str) -> dict[str, NDArray[Any]]:
        guidance = np.zeros((0, 1, 1, 3), np.uint8)
        if (known := request.guidance) is not None and index in known.indices:
            guidance = guidance_of(known, known.indices.index(index))
        return {
            Tensors.LATENT: np.ascontiguousarray(request.latents[row], np.float32),
            Tensors.GUIDANCE: guidance,
            Tensors.AFTER: np.frombuffer(after.encode(), np.uint8),
            Tensors.AT: np.frombuffer(at.encode(), np.uint8),
        }

    def _infer(
        self, world: str, tensors: Mapping[str, NDArray[Any]], *, start: bool = False, end: bool = False
    ) -> Bytes:
        """One step of the world's sequence: uint8 [F, H, W, 3]."""
        inputs = [InferInput(name, list(array.shape), _TYPES[array.dtype.name]) for name, array in tensors.items()]
        output, headers = InferRequestedOutput(Tensors.FRAMES), dict[str, str]()
        propagate.inject(headers)
        try:
            if self._shared is None:
                for described, array in zip(inputs, tensors.values(), strict=True):
                    described.set_data_from_numpy(array)
            else:
                self._shared.place(list(tensors.values()), inputs)
                self._shared.receive(output)
            answer = self._client.infer(
                ENSEMBLE,
                inputs,
                outputs=[output],
                sequence_id=world,
                sequence_start=start,
                sequence_end=end,
                client_timeout=self._timeout_s,
                headers=headers,
            )
        except InferenceServerException as error:
            if self._shared is not None:
                self._shared.close()
            raise translate(error) from error
        if self._shared is None:
            return np.array(answer.as_numpy(Tensors.FRAMES))
        return self._shared.result(answer, Tensors.FRAMES)

    def _remember(self, world: str) -> None:
        """The worlds whose sequences are open, the latest last; one that rested for long ends."""
        self._worlds.pop(world, None)
        self._worlds[world] = None
        while len(self._worlds) > MAX_STREAMS:
            self._end(next(iter(self._worlds)))

    def _end(self, world: str) -> None:
        """Tell the server that a sequence is over. If it does not hear, it finds out by the silence."""
        self._worlds.pop(world)
        nothing = np.zeros(0, np.uint8)
        tensors: dict[str, NDArray[Any]] = {
            Tensors.LATENT: np.zeros((0, 1, 1), np.float32),
            Tensors.GUIDANCE: np.zeros((0, 1, 1, 3), np.uint8),
            Tensors.AFTER: nothing,
            Tensors.AT: nothing,
        }
        try:
            self._infer(world, tensors, end=True)
        except TeleWorldError as error:
            _log.info("a sequence could not be ended", extra={"world": world, "error": error.message})

    def _wait(self, url: str) -> None:
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                if self._client.is_model_ready(ENSEMBLE, client_timeout=_POLL_S * 10):
                    return
            except InferenceServerException as error:
                _log.debug("Triton does not answer yet: %s", error)
            if time.monotonic() > until:
                self._client.close()
                raise Unavailable(f"Triton at {url} has no model {ENSEMBLE} that is ready")
            time.sleep(_POLL_S)

    def _check(self, digest: str) -> None:
        parameters = self._client.get_model_config(ENSEMBLE, client_timeout=self._timeout_s).config.parameters
        served = parameters[DIGEST].string_value if DIGEST in parameters else "none"
        if served != digest:
            self._client.close()
            raise InvalidInput("triton_url", f"Triton serves weights {served}; this decoder is to serve {digest}")


def translate(error: InferenceServerException) -> TeleWorldError:
    """The error of ours that an answer of Triton means."""
    status, message = str(error.status() or ""), str(error.message() or "")
    if ours := _OURS.search(message):
        reason, text = ours.groups()
        if reason == StateLost.reason:
            return StateLost(text)
        if reason == InvalidInput.reason:
            field, _, problem = text.partition(": ")
            return InvalidInput(field, problem)
        return Internal(text)
    if "START flag" in message or "shared memory region" in message:
        return StateLost(message)
    match status.rpartition(".")[2]:
        case "UNAVAILABLE" | "CANCELLED":
            return Unavailable("Triton is away")
        case "DEADLINE_EXCEEDED":
            return DeadlineExceeded("Triton took too long")
        case "RESOURCE_EXHAUSTED":
            return Overloaded("Triton is full")
    return Internal(message)
