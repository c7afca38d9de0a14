"""Does the world remember? A full turn in place, with the 4D memory and without, against the start picture.

    python benchmarks/closed_loop.py --json

Memory off means guidance rendered from the newest key frame alone; poses, seeds and weights are the same. The last line
of --json is one object: psnr_memory_on, psnr_memory_off (dB, means over the pictures) and pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from pathlib import Path

import numpy as np
import torch

from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model, load_model
from teleworld.generation.planner import Planner
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.runtime.records import WorldRecord
from teleworld.video.h264 import decode_chunk
from teleworld.video.pictures import load_picture
from teleworld.world.controls import Keys, schedule
from teleworld.world.identifiers import new_world_id
from teleworld.world.timeline import ChainMode, Timeline
from teleworld.world.work import EmbedRequest

PICTURES = Path(__file__).resolve().parents[1] / "examples" / "start"


async def turn(model: Model, data: bytes, seed: int, remember: bool) -> np.ndarray:
    """The last frame, uint8 [H, W, 3], of a turn of 360 degrees to the right."""
    lens = model.spec.lens
    record = WorldRecord(
        world=new_world_id(),
        model=model.spec.name,
        weights=model.digest,
        seed=seed,
        chain=ChainMode.T_B,
        prompt=Planner(model).embed(EmbedRequest(model.digest, "")),
        picture=load_picture(data, lens.width, lens.height),
        created=0.0,
        request_id="",
    )
    frames = round(2 * np.pi / model.spec.gait.turn)
    controls = schedule([Keys.RIGHT] * frames, 4)
    chunks = 1 + frames // 4
    assert Timeline.first_frame(chunks) == frames + 1, "the turn must end with a chunk"
    async with InProcessEngine(model, Memory(LocalMemoryStore())) as engine:
        async for chunk in engine.walk(record, controls, chunks, remember=remember):
            last = chunk
    return decode_chunk(last.video)[-1]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """dB between uint8 pictures."""
    return float(10 * np.log10(255**2 / np.square(first.astype(np.float64) - second).mean()))


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments.add_argument("--pictures", type=int, default=10, help="how many start pictures (default 10)")
    arguments.add_argument("--checkpoints", type=Path, default=None, help="folder of models (default: the shipped one)")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    model = load_model("nano", chosen.checkpoints)
    width, height = model.spec.output_size
    results: dict[bool, list[float]] = {True: [], False: []}
    for number, file in enumerate(sorted(PICTURES.glob("*.png"))[: chosen.pictures]):
        data = file.read_bytes()
        start = load_picture(data, width, height)
        for remember in (True, False):
            results[remember].append(psnr(asyncio.run(turn(model, data, number, remember)), start))
        print(f"{file.stem:24} memory on {results[True][-1]:6.2f} dB   off {results[False][-1]:6.2f} dB", flush=True)
    on, off = (statistics.fmean(results[remember]) for remember in (True, False))
    print(f"mean over {len(results[True])}: memory on {on:.2f} dB, off {off:.2f} dB, difference {on - off:.2f} dB")
    if chosen.json:
        summary = {"psnr_memory_on": round(on, 3), "psnr_memory_off": round(off, 3), "pictures": len(results[True])}
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
