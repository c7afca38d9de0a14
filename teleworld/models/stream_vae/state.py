"""The memory of a stream: what a causal network must keep from one chunk to the next, owned by the session.

A causal VAE that works chunk by chunk needs the last few inputs of each temporal layer. Here that cache is a value in
the caller's hands, never an attribute of the network: one network serves many sessions, a session can be forked,
parked, or carried to another process, and a failed chunk leaves the cache as it was before.

Two rules make this cheap and safe. A tensor in a slot is replaced, never written into, so that `clone()` may share
storage. A chunk works on a draft (`chunk()`), which takes effect only when the whole chunk has succeeded.

Not for concurrent use: one session, one chunk at a time. Bytes from elsewhere are checked for their form, not for
their origin; a caller that takes them from a peer must trust that peer's pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_document
from torch import Tensor

from teleworld.models.tensorfile import NotATensorFile, read_metadata, to_document
from teleworld.world.errors import InvalidInput

_FORMAT = "teleworld.stream_state/1"
_COUNT = re.compile(r"[0-9]{1,18}")


class StreamState:
    """Named tensors that a stream carries between chunks.

    `kind` says whose state it is, for example "wan.encoder"; a network refuses the state of another kind.
    `frames` counts the input frames (latents, for a decoder) consumed since the stream began.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.frames = 0
        self._slots: dict[str, Tensor] = {}

    @property
    def fresh(self) -> bool:
        """True until the first chunk has been consumed."""
        return self.frames == 0

    @property
    def nbytes(self) -> int:
        """Bytes held by the slots (forks that share storage count it each)."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._slots.values())

    def names(self) -> tuple[str, ...]:
        """The slots in use, sorted."""
        return tuple(sorted(self._slots))

    def past(self, slot: str, like: Tensor, *, shared: bool = False) -> Tensor | None:
        """What `slot` keeps, on the device and in the dtype of `like` [B, C, F, h, w]; None before the first `put`.

        shared: one stream's past may serve a batch that goes on from it in several ways; the answer has the batch 1 then.
        Raises InvalidInput when the stream changed its batch, channels, height or width on the way.
        """
        kept = self._slots.get(slot)
        if kept is None:
            return None
        rows = {1, len(like)} if shared else {len(like)}
        fits = kept.dim() == like.dim() and kept.shape[1:2] + kept.shape[3:] == like.shape[1:2] + like.shape[3:]
        if not fits or len(kept) not in rows:
            shapes = f"{list(kept.shape)}, which cannot precede a chunk of {list(like.shape)}"
            raise InvalidInput("state", f"{self.kind} slot {slot} is {shapes}")
        return kept.to(device=like.device, dtype=like.dtype)

    def held(self, slot: str) -> Tensor | None:
        """What `slot` keeps, as it is; None before the first `put`."""
        return self._slots.get(slot)

    def put(self, slot: str, tensor: Tensor) -> None:
        """Replace `slot`. The tensor is copied, so that a short tail does not keep the whole chunk alive.

        A dense tensor keeps its memory layout: a reorder at each chunk would cost more than the copy.
        """
        self._slots[slot] = tensor.clone(memory_format=torch.preserve_format)

    @contextmanager
    def chunk(self, kind: str, frames: int) -> Iterator[StreamState]:
        """Yield a draft for a chunk of `frames` input frames; it becomes this state when the block ends without error.

        Raises InvalidInput if this is not a state of `kind`.
        """
        if self.kind != kind:
            raise InvalidInput("state", f"expected a state of kind {kind}, got {self.kind}")
        draft = self.clone()
        yield draft
        self._slots = draft._slots
        self.frames += frames

    def clone(self) -> StreamState:
        """An independent state of the same content. Storage is shared, because slots are only ever replaced."""
        twin = StreamState(self.kind)
        twin.frames = self.frames
        twin._slots = dict(self._slots)
        return twin

    def to_bytes(self) -> bytes:
        """The state as a safetensors document (no pickle); equal states give equal bytes, on any device."""
        return to_document(self._slots, {"format": _FORMAT, "kind": self.kind, "frames": str(self.frames)})

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamState:
        """Inverse of `to_bytes`; the tensors are on the CPU. Raises InvalidInput when `data` is no such document."""
        try:
            metadata = read_metadata(io.BytesIO(data))
            slots = load_document(data)
        except (NotATensorFile, SafetensorError) as error:
            raise InvalidInput("state", str(error)) from error
        kind, frames = metadata.get("kind"), metadata.get("frames", "")
        if metadata.get("format") != _FORMAT or not kind or not _COUNT.fullmatch(frames):
            raise InvalidInput("state", f"not a stream state of the format {_FORMAT}")
        state = cls(kind)
        state.frames = int(frames)
        state._slots = slots
        return state
