"""Start the decoder: `python -m services.decoder`."""

from __future__ import annotations

import atexit

from services.common import sizes
from services.common.loading import open_model
from services.common.process import main
from services.decoder.servicer import DecoderCore, register
from services.decoder.settings import DecoderSettings
from teleworld.rpc.convert.common import ModelDescription


def load(settings: DecoderSettings) -> tuple[ModelDescription, DecoderCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from services.common.rehearsal import rehearse_decoder
    from teleworld.generation.decoder import Decoder, LocalFrames

    if settings.triton_url is None:
        description, model = open_model(settings, "vae", "super_resolution")
        here = LocalFrames(model)
        sizes.caches.track(here.streams, lambda streams: {"decoder": streams.nbytes})
        core = Decoder(model, here)
        rehearse_decoder(core)
        return description, core
    from services.decoder.triton import TritonFrames

    description, model = open_model(settings)
    frames = TritonFrames(
        settings.triton_url, model, settings.triton_timeout_seconds, shared_memory=settings.triton_shared_memory
    )
    atexit.register(frames.close)
    return description, Decoder(model, frames)


if __name__ == "__main__":
    raise SystemExit(main("decoder", DecoderSettings, load, register))
