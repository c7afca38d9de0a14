"""`teleworld plan`: what each service of a model needs of GPU memory, and whether it fits on the GPUs at hand."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from teleworld.cli.console import Screen
from teleworld.world.errors import InvalidInput, PreconditionFailed
from teleworld.world.timeline import ChainMode

if TYPE_CHECKING:
    from teleworld.generation.sizing import Family, Need

_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES = ("1.3b", "14b", "14b-i2v", "18b")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld plan`."""
    parser.add_argument("--model", choices=SIZES, default="18b", help="which transformer (default: 18b)")
    parser.add_argument("--gpus", type=int, default=4, metavar="N", help="how many there are (default: 4)")
    parser.add_argument("--gpu-memory", default="80GiB", metavar="SIZE", help="of each, for example 80GiB (default)")
    parser.add_argument(
        "--populators",
        type=int,
        metavar="N",
        help="how many; default: a GPU each, once the other services have one, at least one",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float8"),
        default="bfloat16",
        help="of the weights (default: bfloat16)",
    )
    parser.add_argument(
        "--chain",
        choices=tuple(mode.value for mode in ChainMode),
        default=ChainMode.T_B.value,
        help="how segments chain (default: t_b)",
    )
    parser.add_argument("--latents", type=int, metavar="N", help="of a segment; default: the model's")
    parser.add_argument("--size", metavar="WxH", help="pixels at generation; default: the model's")
    parser.add_argument("--guided", action="store_true", help="classifier-free guidance: two contexts")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Print the plan. Raises PreconditionFailed, after printing, if it does not fit."""
    from teleworld.generation.sizing import FAMILIES, assign, needs_of
    from teleworld.models.placement import Precision

    memory = parse_size(options.gpu_memory)
    family = _adapted(FAMILIES[options.model], options)
    with screen.progress("measuring the networks without their weights"):
        planner, populator, reconstructor, decoder = needs_of(
            family, precision=Precision(options.precision), chain=ChainMode(options.chain), guided=options.guided
        )
    count = max(options.gpus - 3, 1) if options.populators is None else options.populators
    if count < 1:
        raise InvalidInput("populators", "at least one is needed")
    needs = [planner, *[populator] * count, reconstructor, decoder]
    places = assign(needs, options.gpus)
    fits = all(sum(need.total for need in held) <= memory for held in places)
    if options.json:
        services = [{**asdict(need), "total": need.total} for need in (planner, populator, reconstructor, decoder)]
        gpus = [{"services": [need.service for need in held], "bytes": sum(n.total for n in held)} for held in places]
        screen.say(json.dumps({"model": options.model, "services": services, "gpus": gpus, "fits": fits}))
    else:
        _print(screen, (planner, populator, reconstructor, decoder), places, memory)
    if not fits:
        raise PreconditionFailed(f"{options.model} does not fit on {options.gpus} GPUs of {options.gpu_memory}")


def parse_size(text: str) -> int:
    """Bytes of "80GiB" or "80 GB". Raises InvalidInput(`gpu-memory`)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise InvalidInput("gpu-memory", f"{text!r} is no size such as 80GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _adapted(family: Family, options: argparse.Namespace) -> Family:
    """The family with the segment and picture size that were asked for."""
    spec = family.spec
    if options.latents is not None:
        spec = replace(spec, latents=options.latents)
    if options.size is not None:
        match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", options.size)
        if match is None or int(match[1]) % 16 or int(match[2]) % 16:
            raise InvalidInput("size", f"{options.size!r} is no WIDTHxHEIGHT of multiples of 16")
        spec = replace(spec, lens=replace(spec.lens, width=int(match[1]), height=int(match[2])))
    return replace(family, spec=spec)


def _print(screen: Screen, needs: tuple[Need, ...], places: list[list[Need]], memory: int) -> None:
    shown = lambda size: f"{size / 2**30:.2f} GiB"  # noqa: E731
    screen.table(
        "needs of one process of each service",
        [
            (
                need.service,
                f"{need.parameters:,}",
                shown(need.weights),
                shown(need.kv_cache),
                shown(need.activations),
                f"{need.latents / 2**20:.1f} MiB",
                shown(need.total),
            )
            for need in needs
        ],
        ("service", "parameters", "weights", "KV cache", "activations", "latents", "with 2 GiB reserve"),
    )
    screen.say("")
    rows = []
    for number, held in enumerate(places):
        used = sum(need.total for need in held)
        verdict = "fits" if used <= memory else f"lacks {shown(used - memory)}"
        rows.append(
            (str(number), " + ".join(need.service for need in held) or "-", shown(used), shown(memory), verdict)
        )
    screen.table("placement", rows, ("GPU", "services", "needed", "there is", ""))
