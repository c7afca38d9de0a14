"""`teleworld generate`: one picture and a key script to a video file and a report."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teleworld.cli import walks
from teleworld.cli.console import Advance, Screen
from teleworld.cli.located import settle_model
from teleworld.cli.player import MARGIN
from teleworld.cli.reach import add_gateway, add_private_mesh, over_mesh
from teleworld.cli.report import Leg, Shot, Subject, check_target, make_report, summary, write_report
from teleworld.client import Pace, WorldClient
from teleworld.video.mp4 import Mp4Writer
from teleworld.world.controls import Control, Hold, Keys, keys_per_frame, parse_script, schedule
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import WorldSpec
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, ChainMode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld generate`."""
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="start picture, PNG or JPEG")
    parser.add_argument(
        "--keys", required=True, metavar="SCRIPT", help='keys and how long they are held: "W*2s W+RIGHT*1.5s .*1s"'
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.mp4", help="the video")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="figures of the walk")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of the walk; default: that of the script")
    parser.add_argument("--prompt", default="", help="what the world should be like")
    parser.add_argument("--seed", type=int, help="of the noise, 0 or more; default: drawn at random")
    parser.add_argument("--model", default="nano", help="name of the model, or its folder (default: nano)")
    parser.add_argument("--chain", choices=[mode.value for mode in ChainMode], help="how segments chain (default: t_b)")
    parser.add_argument(
        "--pace", choices=[pace.value for pace in Pace], default=Pace.MAX.value, help="as a player would, or flat out"
    )
    parser.add_argument("--live-keys", metavar="SCRIPT", help="a last leg whose keys are pressed while it plays")
    where = parser.add_mutually_exclusive_group()
    add_gateway(where)
    where.add_argument("--in-process", action="store_true", help="no services: the engine inside this process")
    add_private_mesh(parser)


async def run(options: argparse.Namespace, screen: Screen) -> None:
    """Make the video and the report. Raises InvalidInput before anything is started where it can."""
    spec = settle_model(options)
    image = _read(options.image)
    controls, chunks = script_to_controls(options.keys, spec, options.seconds)
    live = parse_live(options.live_keys)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if not 0 <= seed < 2**63:
        raise InvalidInput("seed", "must be 0 or more, and below 2^63")
    if options.in_process and (live or options.pace == Pace.REALTIME.value):
        raise InvalidInput("in-process", "live keys and real time need a mesh; leave out --in-process")
    check_target("out", options.out)
    check_target("report", options.report)
    chain = ChainMode(options.chain) if options.chain else ChainMode.T_B
    job = _Job(screen, spec, image, options.prompt, seed, chain, controls, chunks, live, Pace(options.pace))
    with Mp4Writer(options.out, *spec.output_size, spec.fps) as video:
        job.video = video
        if options.in_process:
            await job.in_process(options.checkpoint, options.populators, options.threads)
        else:
            await over_mesh(options, spec.name, screen, job.walk)
    report = job.report()
    if options.report is not None:
        write_report(report, options.report)
    screen.table("", summary(report))
    screen.say(f"wrote {options.out}" + (f" and {options.report}" if options.report else ""))


def script_to_controls(script: str, spec: WorldSpec, seconds: float | None = None) -> tuple[tuple[Control, ...], int]:
    """The scheduled controls of a key script, and how many chunks the walk has.

    `seconds` cuts the walk, or lengthens it by holding nothing. Chunk 0 is the start picture, so the first key held is
    that of chunk 1. Raises InvalidInput(`keys`) with the position of the fault, or InvalidInput(`seconds`).
    """
    frames = keys_per_frame(parse_script(script), spec.fps)
    if seconds is not None:
        if not 0 < seconds <= 3600:
            raise InvalidInput("seconds", "must be more than 0 and at most 3600")
        wanted = max(1, round(seconds * spec.fps))
        frames = frames[:wanted] + (Keys.NONE,) * (wanted - len(frames))
    if not frames:
        raise InvalidInput("keys", "position 1: the script is shorter than one frame")
    return schedule(frames, PIXEL_FRAMES_PER_LATENT), 1 + -(-len(frames) // PIXEL_FRAMES_PER_LATENT)


def parse_live(script: str | None) -> tuple[Hold, ...]:
    """The holds of a live leg; raises InvalidInput(`live-keys`) with the position of the fault."""
    if script is None:
        return ()
    try:
        return parse_script(script)
    except InvalidInput as error:
        raise InvalidInput("live-keys", error.problem) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("image", f"{path} cannot be read: {error.strerror}") from error


class _Job:
    """One walk, and what is known of it so far."""

    video: Mp4Writer

    def __init__(
        self,
        screen: Screen,
        spec: WorldSpec,
        image: bytes,
        prompt: str,
        seed: int,
        chain: ChainMode,
        controls: Sequence[Control],
        chunks: int,
        live: Sequence[Hold],
        pace: Pace,
    ) -> None:
        self.screen = screen
        self.spec = spec
        self.image = image
        self.prompt = prompt
        self.seed = seed
        self.chain = chain
        self.controls = controls
        self.chunks = chunks
        self.live_keys = live
        self.pace = pace
        self.subject: Subject | None = None
        self.scheduled = Leg(time.monotonic())
        self.live: Leg | None = None

    def report(self) -> dict[str, Any]:
        assert self.subject is not None
        return make_report(self.subject, self.scheduled, self.live)

    async def in_process(self, checkpoint: Path | None, populators: int, threads: int) -> None:
        with walks.numeric_threads(threads):
            with self.screen.progress("loading the model") as advance:
                advance(0)
                model, engine = walks.open_engine(self.spec.name, checkpoint, populators)
            async with engine:
                self.scheduled.started = time.monotonic()
                record = walks.make_record(model, self.image, self.prompt, self.seed, self.chain)
                self.subject = walks.subject_of(record)
                with self.screen.progress("walking, chunk", self.chunks) as advance:
                    take = self._taker(self.scheduled, advance)
                    await walks.in_process_walk(engine, record, self.controls, self.chunks, self.scheduled, take)

    async def walk(self, client: WorldClient) -> None:
        """Walk a new world by the script and then by the live keys."""
        self.scheduled.started = time.monotonic()
        world = await client.create_world(
            self.image, prompt=self.prompt, seed=self.seed, model=self.spec.name, chain=self.chain
        )
        self.subject = subject = Subject(
            world.name, world.model, world.seed, world.chain.value, world.fps, world.width, world.height
        )
        with self.screen.progress("walking, chunk", self.chunks) as advance:
            take = self._taker(self.scheduled, advance)
            await walks.scheduled_walk(client, subject, self.controls, self.chunks, self.pace, self.scheduled, take)
        if self.live_keys:
            await self._walk_live(client, subject)

    async def _walk_live(self, client: WorldClient, subject: Subject) -> None:
        sustained = self.scheduled.sustained_fps() or subject.fps
        fps = subject.fps
        if MARGIN * sustained < subject.fps:
            fps = MARGIN * sustained
            self.screen.say(
                f"this machine makes {sustained:.1f} of the native {subject.fps:g} frames a second: "
                f"the live leg plays at {fps:.1f}"
            )
        self.live = Leg(time.monotonic())
        with self.screen.progress("walking live, chunk") as advance:
            take = self._taker(self.live, advance)
            await walks.live_walk(
                client, subject, self.live_keys, self.chunks - 1, len(self.controls), fps, self.live, take
            )

    def _taker(self, leg: Leg, advance: Advance) -> walks.Took:
        def take(shot: Shot) -> None:
            self.video.write(shot.video)
            rate = leg.sustained_fps()
            advance(shot.index + 1, f"{rate:.1f} frames/s" if rate else "")

        return take
