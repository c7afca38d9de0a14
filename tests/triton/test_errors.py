"""What Triton's errors mean to a caller. The texts are the server's own."""

from __future__ import annotations

import pytest
from tritonclient.utils import InferenceServerException

from services.decoder.triton import translate
from teleworld.world.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    StateLost,
    TeleWorldError,
    Unavailable,
)

IDLE = "inference request for sequence worlds/a to model 'stream_vae' must specify the START flag on the first request"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("StatusCode.INVALID_ARGUMENT", IDLE, StateLost),
        (
            "StatusCode.INTERNAL",
            "in ensemble 'teleworld_decoder', teleworld:STATE_LOST: no state after 1/0/2",
            StateLost,
        ),
        ("StatusCode.INTERNAL", "teleworld:INVALID_INPUT: latents: wrong shape", InvalidInput),
        ("StatusCode.INTERNAL", "teleworld:INTERNAL: RuntimeError: out of memory", Internal),
        ("StatusCode.INVALID_ARGUMENT", "Unable to find shared memory region: 'teleworld-1'", StateLost),
        ("StatusCode.UNAVAILABLE", "failed to connect to all addresses", Unavailable),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
        ("StatusCode.RESOURCE_EXHAUSTED", "exceeds maximum queue size", Overloaded),
        ("StatusCode.UNKNOWN", "something else", Internal),
        (None, "no status", Internal),
    ],
)
def test_each_error_has_its_meaning(status: str | None, message: str, expected: type[TeleWorldError]):
    assert type(translate(InferenceServerException(message, status))) is expected


def test_a_field_keeps_its_name():
    error = translate(
        InferenceServerException("x: teleworld:INVALID_INPUT: latents: expected 4", "StatusCode.INTERNAL")
    )
    assert isinstance(error, InvalidInput)
    assert (error.field, error.problem) == ("latents", "expected 4")
