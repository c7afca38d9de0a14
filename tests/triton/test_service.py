"""The decoder service with TELEWORLD_TRITON_URL: real processes on both sides, and the same video."""

from __future__ import annotations

import pytest

from teleworld.generation.decoder import Decoder
from teleworld.generation.model import Model
from teleworld.rpc.workers import DecoderClient
from teleworld.world.errors import StateLost
from tests.services.processes import process
from tests.triton.server import Triton
from tests.triton.test_decoding import request

SECONDS = 30.0


async def test_the_service_answers_what_it_computes_itself_otherwise(model: Model, triton: Triton) -> None:
    root, here = model.folder.path.parent, Decoder(model)
    async with process("services.decoder", checkpoint=root, triton_url=triton.url) as service:
        await service.heard("serving")
        async with DecoderClient(service.address) as decoder:
            for index in (1, 2, 3):
                found = await decoder.decode(request(model, index), SECONDS)
                assert found.video == here.decode(request(model, index)).video
                assert "triton" in found.stage_ms
            with pytest.raises(StateLost):
                await decoder.decode(request(model, 3), SECONDS)
        service.child.terminate()
        assert await service.ended() == 0


async def test_a_server_that_is_not_there_ends_the_service_with_a_word(model: Model) -> None:
    root = model.folder.path.parent
    settings = {"checkpoint": root, "triton_url": "127.0.0.1:1", "triton_timeout_seconds": 0.3}
    async with process("services.decoder", **settings) as service:
        assert await service.ended() != 0
        assert "Triton at 127.0.0.1:1 has no model" in await service.log()
