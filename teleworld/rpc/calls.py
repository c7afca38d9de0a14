"""One outgoing call: a client span, the trace context in its metadata, a deadline, and our own exceptions back.

These are plain functions around a stub's method and not grpc.aio client interceptors: an interceptor puts a task between
the caller and the call, through which cancellation and early ends of streams do not pass reliably.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry import propagate, trace

from teleworld.rpc import deadline, status
from teleworld.rpc.link import Link
from teleworld.world.errors import Internal, InvalidInput, TeleWorldError, Unavailable

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")

_tracer = trace.get_tracer("teleworld.rpc")


async def unary(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    name: str,
    message: Request,
    timeout: float,
    read: Callable[[Response], Result],
    link: Link | None = None,
) -> Result:
    """What `read` makes of the answer of `method`, known to traces as `name` (`package.Service/Method`).

    `timeout` is in seconds. Raises the error of `teleworld.world.errors` that the server raised, or Unavailable,
    DeadlineExceeded, InvalidInput (a message over the limit) for what gRPC itself reports. An answer that `read` refuses is
    the peer's defect, so it becomes an Internal and never looks like the caller's own bad input. `link`, if given, learns
    how large tensors may travel.
    """
    with _client_span(name, current=True) as span:
        seconds = deadline.cap(timeout)
        with _our_errors(span):
            call = method(message, timeout=seconds, metadata=(*_metadata(span), *(link.metadata if link else ())))
            response = await call
            if link is not None and link.undecided:
                link.learn(await call.trailing_metadata() or ())
        try:
            return read(response)
        except InvalidInput as error:
            raise Internal(f"{name} gave a bad answer: {error.message}") from error


async def server_stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], name: str, message: Request, timeout: float | None
) -> AsyncGenerator[Response, None]:
    """The messages of a server stream; None as timeout for one that has no end. Closing the iterator ends the call."""
    # The span is never made current: an abandoned generator is finalised in another context, where detaching fails.
    with _client_span(name, current=False) as span:
        seconds = None if timeout is None else deadline.cap(timeout)
        with _our_errors(span):
            call = method(message, timeout=seconds, metadata=_metadata(span))
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()


async def bidirectional_stream(
    method: grpc.aio.StreamStreamMultiCallable[Request, Response], name: str, messages: AsyncIterator[Request]
) -> AsyncGenerator[Response, None]:
    """The answers to a stream of messages that has no deadline: an open connection is its purpose.

    Our side closes when `messages` ends; closing the returned iterator ends the call. Raises as `unary` does.
    """
    with _client_span(name, current=False) as span, _our_errors(span):
        call = method(messages, metadata=_metadata(span))
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()


@contextmanager
def _client_span(name: str, *, current: bool) -> Iterator[trace.Span]:
    above = trace.get_current_span()
    if above.get_span_context().is_valid and not above.is_recording():
        yield above  # nobody will read this trace; its ids travel on
        return
    service, _, method = name.partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    span = _tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes)
    try:
        if current:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        else:
            yield span
    finally:
        span.end()


@contextmanager
def _our_errors(span: trace.Span) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        ours = status.from_rpc_error(error)
        _mark(span, ours, error.code().name)
        raise ours from error
    except grpc.aio.UsageError as error:
        closed = Unavailable("the channel is closed")
        _mark(span, closed, "UNAVAILABLE")
        raise closed from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        span.set_attribute("rpc.grpc.status_code", "CANCELLED")
        if task is not None and task.cancelling():
            raise
        # gRPC reports a channel that is closed under a call as a cancellation, though nobody cancelled this task.
        raise Unavailable("the channel was closed") from error


def _mark(span: trace.Span, error: TeleWorldError, code: str) -> None:
    span.set_attribute("rpc.grpc.status_code", code)
    span.set_status(trace.StatusCode.ERROR, f"{error.reason}: {error.message}")


def _metadata(span: trace.Span) -> tuple[tuple[str, str], ...]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    return tuple(carrier.items())
