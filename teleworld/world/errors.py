"""Every error that crosses a layer of TeleWorld, in one tree.

    TeleWorldError
     +-- InvalidInput          the caller's value is wrong; `field` names it
     |    +-- CheckpointError  a weights file is not what it must be
     +-- NotFound              the named world, chunk or revision does not exist
     +-- Unauthenticated       who calls is not known: no credential, or one that does not hold
     +-- PermissionDenied      the caller is known and may not do this
     +-- Conflict              it exists already, or another write came first
     +-- StaleEpoch            the caller lost the world's lease; a newer epoch is at work
     +-- PreconditionFailed    the state does not allow it (beyond the retention horizon, memory revision missing)
     |    +-- StateLost        a worker no longer holds the cached state that the task builds on; send the history
     +-- Overloaded            admission refused; `retry_after_s` says when to come back
     +-- Unavailable           a peer is away; an idempotent task may be tried elsewhere
     +-- DeadlineExceeded      the time given to the task is over
     +-- Internal              a defect of ours

Code below the transport raises these; `teleworld.rpc.status` alone maps them to gRPC status codes and back. The text of
an `InvalidInput` may be shown to a client; that of an `Internal` never is.
"""

from __future__ import annotations


class TeleWorldError(Exception):
    """Base of all errors. `reason` is UPPER_SNAKE_CASE for `google.rpc.ErrorInfo`; `retryable` means: elsewhere or later."""

    reason = "UNKNOWN"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(TeleWorldError):
    """A value is wrong. `field` is its path as the caller wrote it, for example `poses[3]`."""

    reason = "INVALID_INPUT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class CheckpointError(InvalidInput):
    """A weights file is missing, unsafe or does not fit the module."""

    reason = "CHECKPOINT"


class NotFound(TeleWorldError):
    """Nothing has that name."""

    reason = "NOT_FOUND"

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} does not exist")
        self.resource = resource


class Unauthenticated(TeleWorldError):
    """The credential is missing, unknown, expired or forged; which of these is not said."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(TeleWorldError):
    """The credential holds, but not for this."""

    reason = "PERMISSION_DENIED"


class Conflict(TeleWorldError):
    """It exists already with other content, or another write came first."""

    reason = "CONFLICT"


class StaleEpoch(TeleWorldError):
    """Fencing: the task carries an epoch older than one already seen for its world."""

    reason = "STALE_EPOCH"

    def __init__(self, world: str, epoch: int, current: int) -> None:
        super().__init__(f"{world}: epoch {epoch} is older than {current}")
        self.world = world
        self.epoch = epoch
        self.current = current


class PreconditionFailed(TeleWorldError):
    """The state of the world does not allow the call."""

    reason = "PRECONDITION_FAILED"


class StateLost(PreconditionFailed):
    """The worker does not hold the state that an incremental task builds on; the full history must be sent."""

    reason = "STATE_LOST"


class Overloaded(TeleWorldError):
    """Admission refused. Come back after `retry_after_s` seconds."""

    reason = "OVERLOADED"
    retryable = True

    def __init__(self, message: str, retry_after_s: float = 0.5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(TeleWorldError):
    """A peer is away or going away."""

    reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(TeleWorldError):
    """The time given to the call is over."""

    reason = "DEADLINE_EXCEEDED"


class Internal(TeleWorldError):
    """A defect of ours."""

    reason = "INTERNAL"
