"""`teleworld checkpoint`: what a weights file is, which model serves it, and public files turned into safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from teleworld.cli.console import Screen
from teleworld.cli.report import check_target
from teleworld.world.errors import InvalidInput

if TYPE_CHECKING:
    from teleworld.models.conversion import Identity

_SERVED_BY = {
    "Wan2.1 T2V 1.3B": "wan-1.3b",
    "Wan2.1 T2V 14B": "wan-14b",
    "Wan2.1 I2V 14B": "wan-14b",
    "TeleWorld 18B": "wan-18b",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld checkpoint`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="what a file is and which model serves it")
    inspect.add_argument("file", type=Path, metavar="FILE", help="safetensors, a sharded one's index, or .pt/.pth")
    convert = actions.add_parser("convert", help="write one network of a file as safetensors")
    convert.add_argument("file", type=Path, metavar="FILE", help="safetensors, a sharded one's index, or .pt/.pth")
    convert.add_argument("--out", type=Path, metavar="FILE", help="default: beside the source, as .safetensors")
    convert.add_argument(
        "--branch", choices=("generator_ema", "generator", "critic"), help="of a file that holds several networks"
    )
    convert.add_argument(
        "--naming", choices=("keep", "wan", "diffusers"), default="keep", help="of tensors (default: keep)"
    )
    convert.add_argument(
        "--dtype", choices=("keep", "float32", "bfloat16", "float16"), default="keep", help="of numbers (default: keep)"
    )
    prompt = actions.add_parser(
        "prompt", help="embed a model folder's negative prompt, so that populators need no text"
    )
    prompt.add_argument("folder", type=Path, metavar="FOLDER", help="a model folder")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Do it. Raises CheckpointError or InvalidInput that names what is wrong."""
    {"inspect": _inspect, "convert": _convert, "prompt": _prompt}[options.action](options, screen)


def _inspect(options: argparse.Namespace, screen: Screen) -> None:
    from teleworld.models.conversion import PICKLES, identify, look

    content = look(options.file)
    pickled = options.file.suffix.lower() in PICKLES
    rows = [
        ("container", "PyTorch (pickle): convert it before it can be served" if pickled else "safetensors"),
        (
            "tensors",
            f"{len(content.tensors)}, {content.parameters / 1e6:,.1f} M numbers, {content.nbytes / 2**30:.2f} GiB",
        ),
        ("dtypes", content.dtypes),
    ]
    if content.others:
        rows.append(("beside tensors", ", ".join(content.others[:8]) + (", ..." if len(content.others) > 8 else "")))
    for key, value in sorted(content.metadata.items()):
        rows.append((key, value if len(value) <= 200 else f"{value[:200]}..."))
    screen.table(str(options.file), rows)
    for identity in identify(content):
        screen.say("")
        screen.table(f"network {identity.branch}" if identity.branch else "network", _described(identity))


def _described(identity: Identity) -> list[tuple[str, str]]:
    rows = [("parameters", f"{identity.parameters:,}")]
    if identity.found is None or identity.architecture is None:
        return [*rows, ("is", "unknown: no architecture here has tensors of these names and shapes")]
    found, network = identity.found, _network_of(identity.architecture)
    rows += [
        ("is", found.title + (f"; its shapes do not tell {found.doubt}" if found.doubt else "")),
        ("names", found.naming),
        ("architecture", identity.architecture),
        ("config", str(found.config)),
        (
            "serves as",
            f"{network} of a model folder, for example {_SERVED_BY.get(found.title, 'wan')}/{network}.safetensors",
        ),
    ]
    return rows


def _network_of(architecture: str) -> str:
    from teleworld.models.architectures import ARCHITECTURES

    return ARCHITECTURES[architecture].network


def _convert(options: argparse.Namespace, screen: Screen) -> None:
    from teleworld.models.conversion import convert_checkpoint, default_target

    target = options.out or default_target(options.file)
    check_target("out", target)
    if target.exists():
        raise InvalidInput("out", f"{target} exists already")
    with screen.progress(f"converting {options.file.name}"):
        identity = convert_checkpoint(
            options.file,
            target,
            branch=options.branch,
            naming=None if options.naming == "keep" else options.naming,
            dtype=options.dtype,
        )
    screen.table(str(target), _described(identity))


def _prompt(options: argparse.Namespace, screen: Screen) -> None:
    from teleworld.generation.model import load_model
    from teleworld.generation.model_folder import NEGATIVE_PROMPT
    from teleworld.models.checkpoint import save_safetensors

    folder = options.folder.resolve()
    model = load_model(folder.name, folder.parent)
    text = model.sampling.negative_prompt
    embedding = model.text.embed(text)
    save_safetensors(folder / NEGATIVE_PROMPT, {"embedding": embedding}, {"text": text})
    screen.say(f"{folder / NEGATIVE_PROMPT}: {len(embedding)} tokens; the model's digest has changed with it")
