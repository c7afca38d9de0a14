"""Start the decoder: `python -m services.decoder`."""

from __future__ import annotations

from services.common.loading import open_model
from services.common.process import main
from services.decoder.servicer import DecoderCore, register
from services.decoder.settings import DecoderSettings
from teleworld.rpc.convert.common import ModelDescription


def load(settings: DecoderSettings) -> tuple[ModelDescription, DecoderCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from teleworld.generation.decoder import Decoder

    description, model = open_model(settings, "vae", "super_resolution")
    return description, Decoder(model)


if __name__ == "__main__":
    raise SystemExit(main("decoder", DecoderSettings, load, register))
