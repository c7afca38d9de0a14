"""`teleworld train`: one network of a model, from recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from teleworld.cli.console import Screen
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import spec_of

NETWORKS = ("vae", "dit", "dmd", "geometry", "vsr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld train`."""
    parser.add_argument(
        "network",
        choices=NETWORKS,
        help="dmd distils dit to few steps; vsr is the video super-resolution",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what `teleworld record` wrote")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="resumable state (default: runs)"
    )
    parser.add_argument(
        "--export",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="where the weights go: a folder for each model (default: checkpoints)",
    )
    parser.add_argument("--minutes", type=float, default=90.0, metavar="M", help="over all resumptions (default: 90)")
    parser.add_argument("--model", default="nano", help="name of the model (default: nano)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws and the first weights (default: 0)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of an operation (default: 1)")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Train until the minutes are spent; figures are printed as JSON lines and kept in the run's folder."""
    spec_of(options.model)
    for name in ("minutes", "threads"):
        if getattr(options, name) <= 0:
            raise InvalidInput(name, "must be more than 0")
    from teleworld.cli.walks import numeric_threads

    with numeric_threads(options.threads):
        from teleworld.training import recipes

        job = recipes.Job(
            model=options.model,
            recordings=options.data,
            run=options.runs / options.model / options.network,
            export=options.export / options.model,
            minutes=options.minutes,
            seed=options.seed,
        )
        screen.say(f"training {options.network} for {options.minutes:g} minutes; its state is in {job.run}")
        recipes.train(options.network, job, screen.say)
    screen.say(f"wrote {job.export}")
