"""What it costs to hand the decoder's networks to a Triton server on the same machine.

    teleworld triton export --model checkpoints/nano --out repository
    tritonserver --model-repository=repository &
    python benchmarks/decoding.py --triton 127.0.0.1:8001 --json

Decodes the same random latents with guidance in this process, by Triton with tensors in shared memory, and by Triton with
tensors inside its messages, segment after segment, and compares the pictures. The last line is {"local_ms", "shared_ms",
"inline_ms": median milliseconds for a latent of four frames without H.264, "equal": whether all pictures are the same}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from services.decoder.triton import TritonFrames
from teleworld.generation.decoder import FrameMaker, LocalFrames
from teleworld.generation.model import Model, load_model
from teleworld.generation.stages import StageClock
from teleworld.world.latents import latent_digest
from teleworld.world.work import Bytes, DecodeRequest, Guidance, TaskContext

TIMEOUT_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Decoding here and by Triton.")
    parser.add_argument("--triton", required=True, metavar="HOST:PORT", help="gRPC endpoint of the server")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="default: the shipped nano")
    parser.add_argument("--segments", type=int, default=6, metavar="N", help="default: 6")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = options.model.resolve() if options.model else None
    model = load_model(folder.name, folder.parent) if folder else load_model("nano")
    here, pictures = _run(LocalFrames(model), model, options.segments)
    result: dict[str, float | bool] = {"local_ms": here, "equal": True}
    for name, shared in (("shared_ms", True), ("inline_ms", False)):
        frames = TritonFrames(options.triton, model, TIMEOUT_S, shared_memory=shared)
        result[name], found = _run(frames, model, options.segments)
        result["equal"] &= all(np.array_equal(a, b) for a, b in zip(pictures, found, strict=True))
        frames.close()
    if not options.json:
        for name, value in result.items():
            print(f"{name:10} {value:.1f}" if isinstance(value, float) else f"{name:10} {value}")
    print(json.dumps(result))
    return 0 if result["equal"] else 1


def _run(frames: FrameMaker, model: Model, segments: int) -> tuple[float, list[Bytes]]:
    """Median milliseconds for a latent of four frames, and all pictures; the first segment warms up."""
    took, pictures = [], []
    for segment in range(segments):
        for request in _segment(model, segment):
            clock = StageClock()
            pictures.append(frames.frames(request, clock))
            if segment and request.index > 1:
                took.append(sum(clock.milliseconds.values()))
    return statistics.median(took), pictures


def _segment(model: Model, segment: int) -> list[DecodeRequest]:
    noise = np.random.default_rng(segment)
    count, lens = model.spec.latents, model.spec.lens
    latents = noise.standard_normal((count, *model.spec.latent_shape)).astype(np.float32)
    context = TaskContext("worlds/benchmark", 1, segment, "decode", 0, 1, model.digest)
    requests = []
    for index in range(1, count + 1):
        guidance = None
        if index > 1:
            pixels = noise.integers(0, 256, (4, lens.height, lens.width, 3), np.uint8)
            known = latents[index - 1 : index]
            guidance = Guidance((index,), pixels, pixels[..., 0], latents=known, coverage=known[:, 0])
        previous = latent_digest(latents[index - 2]) if index > 1 else ""
        requests.append(DecodeRequest(context, index - 1, index, latents[index - 1 : index], previous, guidance))
    return requests


if __name__ == "__main__":
    sys.exit(main())
