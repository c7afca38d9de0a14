"""`teleworld triton export`: the model repository with which a Triton Inference Server decodes."""

from __future__ import annotations

import argparse
from pathlib import Path

from teleworld.cli.console import Screen
from teleworld.world.errors import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld triton`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write the model repository", description=__doc__)
    export.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="for example checkpoints/nano")
    export.add_argument("--out", type=Path, required=True, metavar="REPO", help="the model repository, new or empty")
    export.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of an instance, as decoders have (default: 1)"
    )
    export.add_argument("--instances", type=int, default=1, metavar="N", help="processes of each network (default: 1)")
    export.add_argument("--streams", type=int, default=64, metavar="N", help="worlds an instance holds (default: 64)")
    export.add_argument("--idle-seconds", type=float, default=600.0, metavar="S", help="until a world's place is freed")
    export.add_argument("--gpu", action="store_true", help="instances on GPUs instead of CPUs")
    export.add_argument("--python-env", type=Path, metavar="DIR", help="environment with teleworld for Triton's Python")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Write the repository and say what is in it."""
    folder: Path = options.model
    if not folder.is_dir():
        raise CheckpointError("model", f"{folder} is not a folder")
    from teleworld.generation.model import load_model
    from teleworld.generation.triton_repository import ExportOptions, export_repository

    # The folder's name is the model's: checkpoints/nano holds the model "nano".
    model = load_model(folder.resolve().name, folder.resolve().parent)
    written = export_repository(
        model,
        options.out,
        ExportOptions(
            threads=options.threads,
            instances=options.instances,
            streams=options.streams,
            idle_seconds=options.idle_seconds,
            gpu=options.gpu,
            python_env=options.python_env,
        ),
    )
    for path in written:
        screen.say(f"wrote {path}")
    screen.say(f"weights {model.digest}")
    screen.say(f"serve it with: tritonserver --model-repository={options.out}")
