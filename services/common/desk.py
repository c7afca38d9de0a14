"""The desk that every task of a worker passes: admission, checks, conversion, the computing thread, the answer.

It knows no service: a servicer says which reader, which method of the core and which writer belong to a call. The core is
loaded by `open` while the server already listens; until then, and from `close` on, tasks are answered Unavailable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message
from opentelemetry import metrics, trace

from teleworld.rpc.admission import Admission, Slot
from teleworld.rpc.compute import Compute
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.fencing import EpochGuard
from teleworld.world.errors import PreconditionFailed, Unavailable
from teleworld.world.identifiers import traced
from teleworld.world.work import TaskContext

_batches = metrics.get_meter("teleworld.rpc").create_histogram(
    "teleworld.worker.batch", "{task}", "Tasks of a call that carries several"
)

Core = TypeVar("Core")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")
Item = TypeVar("Item")


class Task(Protocol):
    """A request that belongs to a world's segment."""

    @property
    def context(self) -> TaskContext: ...


Job = TypeVar("Job", bound=Task)
Question = TypeVar("Question")


class Desk(Generic[Core]):
    """Admission and execution for one core. `queue` tasks may wait behind the `slots` ones that compute."""

    def __init__(self, service: str, queue: int, slots: int = 1) -> None:
        self._admission = Admission(queue, slots)
        self._compute = Compute(f"{service}-compute", slots)
        self._guard = EpochGuard()
        self._loaded: tuple[ModelDescription, Core] | None = None

    async def open(self, load: Callable[[], tuple[ModelDescription, Core]]) -> None:
        """Load the core on the computing thread, then admit. Raises what `load` raises."""
        self._loaded = await self._compute.call(load)
        self._admission.open()

    async def close(self) -> None:
        """Admit no more; what was admitted goes on."""
        self._admission.close("the worker is shutting down")

    @property
    def admitted(self) -> int:
        """Tasks admitted and not yet over."""
        return self._admission.used

    @property
    def model(self) -> ModelDescription:
        """What the core computes with. Raises Unavailable before it is loaded."""
        return self._require()[0]

    async def task(
        self,
        message: Request,
        read: Callable[[Request], Job],
        compute: Callable[[Core, Job], Result],
        write: Callable[[Result], Response],
    ) -> Response:
        """Do a task of a world: fenced by its epoch, refused if it is pinned to other weights."""

        def checked(message: Request) -> Job:
            job = read(message)
            context = job.context
            trace.get_current_span().set_attributes(
                traced(context.world)
                | {
                    "teleworld.segment": context.segment,
                    "teleworld.task": context.task,
                    "teleworld.attempt": context.attempt,
                }
            )
            self._check(context)
            return job

        return await self.answer(message, checked, compute, write)

    async def tasks(
        self,
        message: Request,
        read: Callable[[Request], Sequence[Job]],
        compute: Callable[[Core, Sequence[Job]], Sequence[Result]],
        write: Callable[[Sequence[Result]], Response],
    ) -> Response:
        """Do tasks of several worlds in one place of the queue, all of them or none. Each is checked as `task` does it."""

        def checked(message: Request) -> Sequence[Job]:
            jobs = read(message)
            named = [f"{traced(job.context.world)['teleworld.world']}/{job.context.task}" for job in jobs]
            trace.get_current_span().set_attributes({"teleworld.batch": len(jobs), "teleworld.tasks": named})
            _batches.record(len(jobs))
            for job in jobs:
                self._check(job.context)
            return jobs

        return await self.answer(message, checked, compute, write)

    async def answer(
        self,
        message: Request,
        read: Callable[[Request], Question],
        compute: Callable[[Core, Question], Result],
        write: Callable[[Result], Response],
    ) -> Response:
        """Compute an answer that belongs to no segment."""
        slot, question, core = self._admit(message, read)
        return write(await self._compute.run(slot, lambda: compute(core, question)))

    async def stream(
        self,
        message: Request,
        read: Callable[[Request], Question],
        compute: Callable[[Core, Question], Iterable[Item]],
    ) -> AsyncGenerator[Item, None]:
        """The items of an answer, each made on the computing thread, so that tasks may come in between."""
        slot, question, core = self._admit(message, read)
        async with aclosing(self._compute.iterate(slot, lambda: compute(core, question))) as items:
            async for item in items:
                yield item

    def _check(self, context: TaskContext) -> None:
        """Raise PreconditionFailed for a task that is pinned to other weights, StaleEpoch for one that comes too late."""
        self.check_weights(context.weights)
        self._guard.check(context.world, context.epoch)

    def check_weights(self, pinned: str) -> None:
        """Raise PreconditionFailed unless `pinned` is the digest of the weights that are loaded."""
        digest = self.model.weights_digest
        if pinned != digest:
            raise PreconditionFailed(f"the task is pinned to weights {pinned}; this worker has {digest}")

    def _admit(self, message: Request, read: Callable[[Request], Question]) -> tuple[Slot, Question, Core]:
        """Reserve a place before anything is converted: a full worker refuses cheaply."""
        slot = self._admission.reserve()
        try:
            return slot, read(message), self._require()[1]
        except BaseException:
            slot.release()
            raise

    def _require(self) -> tuple[ModelDescription, Core]:
        if self._loaded is None:
            raise Unavailable("the worker is warming up")
        return self._loaded
