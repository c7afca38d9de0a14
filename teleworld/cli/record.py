"""`teleworld record`: training data from the game engine, on as many processes as wanted."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from teleworld.cli.console import Advance, Screen
from teleworld.world.errors import InvalidInput

if TYPE_CHECKING:
    from teleworld.training.recording.record import Job

WATCH_EVERY_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld record`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset; what is there is kept")
    parser.add_argument("--maps", metavar="MAP01,MAP02", help="training maps; default: those of the shipped checkpoint")
    parser.add_argument("--episodes", type=int, default=36, metavar="N", help="a training map (default: 36)")
    parser.add_argument("--unseen", type=int, default=3, metavar="N", help="an evaluation map (default: 3)")
    parser.add_argument("--walks", type=int, default=5, metavar="N", help="minute-long walks a map (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode of each map (default: 0)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="engines side by side (default: 1)")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Record what is missing. Raises InvalidInput for maps that are kept for evaluation."""
    from teleworld.training.recording import record as recording

    for name in ("episodes", "unseen", "walks", "seed"):
        if getattr(options, name) < 0:
            raise InvalidInput(name, "must not be negative")
    if options.processes < 1:
        raise InvalidInput("processes", "at least one is needed")
    maps = recording.TRAINING_MAPS if options.maps is None else tuple(filter(None, options.maps.split(",")))
    jobs = recording.plan_dataset(maps, options.episodes, options.unseen, options.walks, options.seed)
    with screen.progress("episodes", len(jobs)) as advance, _watched(jobs, options.out, advance):
        frames = recording.record(options.out, jobs, options.processes)
    screen.say(f"{frames} new frames in {options.out}")


@contextmanager
def _watched(jobs: list[Job], root: Path, advance: Advance) -> Iterator[None]:
    """Show how many episodes are complete, while the block records them."""
    from teleworld.training.recording.manifest import MANIFEST

    done = threading.Event()

    def watch() -> None:
        while True:
            advance(sum((job.folder(root) / MANIFEST).is_file() for job in jobs))
            if done.wait(WATCH_EVERY_S):
                return

    watcher = threading.Thread(target=watch, name="watch recordings", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
