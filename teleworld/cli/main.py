"""The `teleworld` command. Exit codes: 0 done, 1 a defect of ours, 2 bad input or state, 3 something is away, 130 interrupted.

An error is one line on stderr; input errors name the field, or the position in a key script. What a subcommand needs is
imported when it is chosen, so that `--help` is quick and the SDK's own dependencies suffice for it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

from teleworld import __version__
from teleworld.world.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    PreconditionFailed,
    StaleEpoch,
    TeleWorldError,
    Unavailable,
)

EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130

COMMANDS = {
    "play": "walk by keyboard through a world made from one picture, in a browser",
    "up": "run a mesh on this machine until ctrl-C",
    "generate": "walk through a world made from one picture, into a video file",
    "key": "make an API key for a tenant",
    "simulate": "how a mesh would do: the live scheduler on simulated devices",
    "record": "record training data from the game engine",
    "curate": "filter and annotate videos or recordings for training",
    "train": "train one of the networks",
    "models": "list the models, their networks and their checkpoints",
    "checkpoint": "say what a weights file is, or convert a public one",
    "plan": "what a model needs of GPU memory, and whether it fits",
    "triton": "prepare decoding by a Triton Inference Server",
}


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except TeleWorldError as error:
        _complain(error.message)
        return exit_code(error)
    except ModuleNotFoundError as error:
        _complain(f"{error.name} is not installed; it comes with one of the extras that README.md lists")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_INTERNAL
    except OSError as error:
        _complain(f"{error.filename or 'input/output'}: {error.strerror or error}")
        return EXIT_BAD_INPUT
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody at a prompt; the class and text do
        _complain(f"internal error: {type(error).__name__}: {error}")
        return EXIT_INTERNAL


def exit_code(error: TeleWorldError) -> int:
    """What the shell learns of an error."""
    match error:
        case Unavailable() | DeadlineExceeded() | Overloaded():
            return EXIT_UNAVAILABLE
        case InvalidInput() | NotFound() | Conflict() | PreconditionFailed() | StaleEpoch():
            return EXIT_BAD_INPUT
    return EXIT_INTERNAL


def _run(arguments: Sequence[str]) -> int:
    parser = _Parser(prog="teleworld", description="A world that you walk through while it is being generated.")
    parser.add_argument("--version", action="version", version=f"teleworld {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    module = importlib.import_module(f"teleworld.cli.{chosen}") if chosen in COMMANDS else None
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name == chosen and module is not None:
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    if module is None:
        parser.error(f"unknown command {chosen!r}")
    from teleworld.cli.console import Screen

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as ctrl-C does
    try:
        outcome = module.run(options, Screen())
    finally:
        signal.signal(signal.SIGTERM, before)
    if asyncio.iscoroutine(outcome):
        asyncio.run(_interruptible(outcome))
    return 0


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; SIGINT and SIGTERM cancel it, so that it cleans up, and end in KeyboardInterrupt."""
    task = asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        await task
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def _complain(text: str) -> None:
    print("teleworld:", " ".join(text.split()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
