"""One worker over several ranks: a pod whose processes compute each task together (Ulysses context parallelism).

    torchrun --standalone --nproc-per-node=4 -m services.planner

Rank 0 is the worker that the mesh knows. It passes each request on to the others, which do the same work at the same
time: where a sequence is divided, they meet in the attention; elsewhere they repeat it, which costs no time and keeps
their state alike. Their answers are dropped. Requests go through the group's own key-value store as the protobuf
messages that they came as, so nothing is unpickled.

Ranks live and die together. If one is lost in the middle of a task, rank 0 answers Unavailable, so that the task is
done by another worker, and ends itself; who started the ranks (torchrun, Kubernetes) starts all of them again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from services.common.process import limit_threads, main
from services.common.settings import WorkerSettings
from teleworld.rpc import link
from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.errors import TeleWorldError, Unavailable

if TYPE_CHECKING:
    from torch.distributed import Store

Core = TypeVar("Core")
Settings = TypeVar("Settings", bound=WorkerSettings)
Request = TypeVar("Request")
Wire = TypeVar("Wire", bound=Message)

# How long a rank waits for the others in a collective. Longer than any task; a lost rank is noticed at once.
_COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_IDLE_TIMEOUT = timedelta(minutes=1)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call(Generic[Request, Wire]):
    """How a request of one method of a core travels between ranks."""

    message: type[Wire]
    write: Callable[[Request], Wire]
    read: Callable[[Wire], Request]


Calls = Mapping[str, "Call[Any, Any]"]


class Ranks:
    """This process among the ranks that `torchrun` started."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._store: Store | None = None
        self._sent = 0

    def join(self, device: str) -> None:
        """Meet the other ranks. device: where the networks compute; on CUDA each local rank has its own."""
        import torch
        import torch.distributed as dist

        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", self.rank)))
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=_COLLECTIVE_TIMEOUT)))
        self._store = dist.PrefixStore("teleworld", store)
        dist.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=_COLLECTIVE_TIMEOUT
        )

    @property
    def joined(self) -> bool:
        """Whether the ranks have met."""
        return self._store is not None

    def send(self, name: str, payload: bytes) -> None:
        """Rank 0: tell the others to do a call, or to end (the empty name)."""
        assert self._store is not None
        self._sent += 1
        self._store.set(f"call/{self._sent}", name.encode() + b"\0" + payload)  # type: ignore[arg-type] # bytes are taken

    def receive(self) -> tuple[str, bytes]:
        """The others: the next call; the empty name means the end. Waits as long as rank 0 lives."""
        from torch.distributed import DistStoreError

        assert self._store is not None
        self._sent += 1
        key = f"call/{self._sent}"
        while True:
            try:
                self._store.wait([key], _IDLE_TIMEOUT)
                break
            except DistStoreError as error:
                if "timeout" not in str(error).lower():
                    raise
        name, _, payload = bytes(self._store.get(key)).partition(b"\0")
        if self._store.add(f"read/{self._sent}", 1) == self.size - 1:
            for done in (key, f"read/{self._sent}"):
                self._store.delete_key(done)
        return name.decode(), payload


class LeadingCore(Generic[Core]):
    """Rank 0's core: each of `calls` is done by all ranks; whatever else it has is its own."""

    def __init__(self, core: Core, calls: Calls, ranks: Ranks) -> None:
        self._core, self._calls, self._ranks = core, calls, ranks

    def __getattr__(self, name: str) -> Any:
        method, call = getattr(self._core, name), self._calls.get(name)
        if call is None:
            return method

        def together(request: Any) -> Any:
            with link.over(None):  # inline: a segment of shared memory is for one reader
                payload = call.write(request).SerializeToString()
            self._ranks.send(name, payload)
            try:
                return method(request)
            except TeleWorldError:
                raise
            except RuntimeError as error:
                _log.critical("the ranks do not compute together any more: %s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                raise Unavailable("a rank of this worker was lost") from error

        return together


def serve(
    service: str,
    settings_type: type[Settings],
    load: Callable[[Settings], tuple[ModelDescription, Core]],
    register: Callable[..., None],
    calls: Calls,
) -> int:
    """`process.main`, over all ranks that there are. Returns this rank's exit status."""
    ranks = Ranks()
    if ranks.size == 1:
        return main(service, settings_type, load, register)
    if ranks.rank > 0:
        return _follow(settings_type, load, calls, ranks)

    def lead(settings: Settings) -> tuple[ModelDescription, Any]:
        description, core = _load(settings, load, ranks)
        return description, LeadingCore(core, calls, ranks)

    status = main(service, settings_type, lead, register)
    if ranks.joined:
        ranks.send("", b"")
    return status


def _follow(
    settings_type: type[Settings],
    load: Callable[[Settings], tuple[ModelDescription, Core]],
    calls: Calls,
    ranks: Ranks,
) -> int:
    """Do what rank 0 says until it says that it is over. Rank 0 alone decides when: it may still be draining."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    settings = settings_type()
    limit_threads(settings.threads)
    _, core = _load(settings, load, ranks)
    while True:
        name, payload = ranks.receive()
        if not name:
            return 0
        request = calls[name].read(calls[name].message.FromString(payload))
        try:
            getattr(core, name)(request)
        except TeleWorldError as error:
            _log.info("%s was refused: %s", name, error)  # as rank 0 found too; it is rank 0 that answers


def _load(
    settings: Settings, load: Callable[[Settings], tuple[ModelDescription, Core]], ranks: Ranks
) -> tuple[ModelDescription, Core]:
    """Meet the other ranks, then load: from then on `open_model` divides the transformer's sequences over them."""
    ranks.join(settings.device)
    return load(settings)
