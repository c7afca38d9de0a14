"""Which model a command means by `--model`: a known name, a name below `--checkpoint`, or a model folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from teleworld.world.errors import InvalidInput
from teleworld.world.spec import SPECS, WorldSpec, spec_of


def settle_model(options: argparse.Namespace) -> WorldSpec:
    """The world of `options.model`; a folder is split into its name, put there, and its parent, put into `options.checkpoint`.

    Raises InvalidInput or CheckpointError. Only a folder that describes itself is looked into.
    """
    path = Path(options.model)
    if options.model not in SPECS and (os.sep in options.model or path.is_dir()):
        if options.checkpoint is not None:
            raise InvalidInput("model", f"{options.model} is a folder, which leaves nothing for --checkpoint to say")
        if not path.is_dir():
            raise InvalidInput("model", f"{options.model} is not a folder")
        path = path.resolve()
        options.model, options.checkpoint = path.name, path.parent
    folder = None if options.checkpoint is None else options.checkpoint / options.model
    if folder is not None and (folder / "model.json").is_file():
        from teleworld.generation.model_folder import ModelFolder

        return ModelFolder(folder).spec
    return spec_of(options.model)
