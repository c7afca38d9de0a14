"""Tensors that reach a Triton server on the same node without passing through gRPC: its system shared memory extension.

Two regions, one for what is sent and one for what comes back. Whether the server sees our /dev/shm is found out by
asking it to open a region; host names prove nothing in containers. For one thread at a time: a region is written again
for each request.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

# Below this a tensor goes inline: a place in the region would save nothing.
_SMALL = 4096
_ALIGN = 64
_TIMEOUT_S = 5.0


class Region:
    """One region of shared memory that the server has opened too."""

    def __init__(self, client: InferenceServerClient, size: int) -> None:
        """Raises InferenceServerException if the server cannot open it."""
        self._client = client
        self.name = f"teleworld-{uuid.uuid4().hex}"
        self.memory = SharedMemory(self.name, create=True, size=size)
        try:
            client.register_system_shared_memory(self.name, f"/{self.name}", size, client_timeout=_TIMEOUT_S)
        except InferenceServerException:
            self._discard()
            raise

    def close(self) -> None:
        """Forget the region at both ends; the server may be gone."""
        with suppress(InferenceServerException):
            self._client.unregister_system_shared_memory(self.name, client_timeout=_TIMEOUT_S)
        self._discard()

    def _discard(self) -> None:
        self.memory.close()
        self.memory.unlink()


class SharedTensors:
    """Places the tensors of one request after the other. largest: bytes of the largest output."""

    def __init__(self, client: InferenceServerClient, largest: int) -> None:
        self._client = client
        self._largest = largest
        self._sent: Region | None = None
        self._received: Region | None = None

    def works(self) -> bool:
        """Whether the server can open our regions."""
        try:
            self._received = self._received or Region(self._client, self._largest)
        except InferenceServerException:
            return False
        return True

    def place(self, arrays: list[NDArray[Any]], inputs: list[InferInput]) -> None:
        """Give each input its array, the large ones in the region. Raises InferenceServerException."""
        needed = sum(_ceil(array.nbytes) for array in arrays)
        if self._sent is not None and self._sent.memory.size < needed:
            self._sent.close()
            self._sent = None
        self._sent = self._sent or Region(self._client, max(needed, _SMALL))
        offset = 0
        for array, described in zip(arrays, inputs, strict=True):
            if array.nbytes < _SMALL:
                described.set_data_from_numpy(array)
                continue
            np.ndarray(array.shape, array.dtype, self._sent.memory.buf, offset)[...] = array
            described.set_shared_memory(self._sent.name, array.nbytes, offset)
            offset += _ceil(array.nbytes)

    def receive(self, output: InferRequestedOutput) -> None:
        """Ask for an output in the region. Raises InferenceServerException."""
        self._received = self._received or Region(self._client, self._largest)
        output.set_shared_memory(self._received.name, self._largest)

    def result(self, answer: InferResult, name: str) -> NDArray[Any]:
        """A copy of an output that was asked for by `receive`: the region is used again by the next request."""
        assert self._received is not None
        described = answer.get_output(name)
        dtype = np.dtype(triton_to_np_dtype(described.datatype))
        return np.ndarray(tuple(described.shape), dtype, self._received.memory.buf).copy()

    def close(self) -> None:
        """Let go of the regions; the next request makes new ones, for a server that was restarted knows none."""
        for region in (self._sent, self._received):
            if region is not None:
                region.close()
        self._sent = self._received = None


def _ceil(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
