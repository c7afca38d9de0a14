"""The checksum chain: a correct walk passes, and whatever a wrong mesh could hand over is refused where it goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from teleworld.emulation.chain import digest, read_latent, write_latent
from teleworld.emulation.film import read_film_stamp
from teleworld.emulation.generation import embed_text
from teleworld.emulation.model import EmulatedModel
from teleworld.video.h264 import decode_chunk
from teleworld.world.errors import InvalidInput, StateLost
from teleworld.world.timeline import ChainMode, Group
from tests.emulation.conftest import changed, quick_model
from tests.emulation.hands import Hands


@pytest.fixture(scope="module")
def hands() -> Hands:
    """Three segments, done properly."""
    hands = Hands(quick_model())
    hands.walk(3)
    return hands


@pytest.fixture(scope="module")
def other() -> Hands:
    """The same walk of a world with another seed."""
    hands = Hands(quick_model(), seed=8)
    hands.walk(2)
    return hands


@pytest.mark.parametrize("chain", list(ChainMode))
def test_a_correct_walk_is_accepted_and_has_the_shapes_of_its_model(model: EmulatedModel, chain: ChainMode) -> None:
    hands = Hands(model, chain)
    hands.walk(2)
    plan = hands.results["plan-1"]
    assert plan.latents.shape == (len(plan.indices), *model.spec.latent_shape)
    assert hands.results["bridge-0"].pictures.shape[1:] == (model.spec.lens.height, model.spec.lens.width, 3)
    assert hands.results["reconstruct-1"].revision == 2


def test_equal_walks_have_equal_bits_and_another_seed_prompt_or_key_has_others(hands: Hands, other: Hands) -> None:
    again = Hands(quick_model())
    again.walk(2)
    for name in ("plan-1", "populate-1-3", "guide-1"):
        mine, theirs = (read_of(h.results[name]) for h in (hands, again))
        assert np.array_equal(mine, theirs)
        assert not np.array_equal(mine, read_of(other.results[name]))
    assert again.results["decode-1-9"].video == hands.results["decode-1-9"].video
    said = changed(hands.requests["plan-1"], prompt=embed_text(quick_model(), "a forest"))
    assert not np.array_equal(hands.core("plan-1")(said).latents, hands.results["plan-1"].latents)


def read_of(result: Any) -> np.ndarray:
    return result.guidance.latents if hasattr(result, "guidance") else result.latents


def swap(array: np.ndarray, i: int, j: int) -> np.ndarray:
    rows = list(range(len(array)))
    rows[i], rows[j] = rows[j], rows[i]
    return array[rows]


def with_latent(guidance: Any, row: int, latent: np.ndarray) -> Any:
    latents = guidance.latents.copy()
    latents[row] = latent
    return dataclasses.replace(guidance, latents=latents)


def flipped(array: np.ndarray) -> np.ndarray:
    """One bit of the last number is wrong."""
    copy = np.ascontiguousarray(array).copy()
    copy.reshape(-1).view(np.uint8)[-4] ^= 1
    return copy


# What goes wrong, the task that must notice, the field it must name, and its request as a wrong mesh sends it.
WRONG: list[tuple[str, str, str, Callable[[Hands, Hands], Any]]] = [
    ("the prefix of the segment before", "plan-1", "prefix",
     lambda h, o: changed(h.requests["plan-1"], prefix=h.requests["plan-0"].prefix)),
    ("the prefix of another world", "plan-1", "prefix",
     lambda h, o: changed(h.requests["plan-1"], prefix=o.requests["plan-1"].prefix)),
    ("a damaged prefix", "plan-1", "prefix",
     lambda h, o: changed(h.requests["plan-1"], prefix=flipped(h.requests["plan-1"].prefix))),
    ("no prefix but noise", "plan-1", "prefix",
     lambda h, o: changed(h.requests["plan-1"], prefix=np.full_like(h.requests["plan-1"].prefix, 0.5))),
    ("guidance of the segment before", "plan-1", "guidance.latents[0]",
     lambda h, o: changed(h.requests["plan-1"], guidance=h.requests["plan-0"].guidance)),
    ("guidance from a stale memory", "plan-2", "guidance.latents[0]", lambda h, o: stale_plan(h)),
    ("guidance in the wrong order", "plan-1", "guidance.latents[0]",
     lambda h, o: changed(h.requests["plan-1"], guidance=dataclasses.replace(
         h.requests["plan-1"].guidance, latents=swap(h.requests["plan-1"].guidance.latents, 0, 1)))),
    ("guidance of other latents", "plan-1", "guidance.indices",
     lambda h, o: changed(h.requests["plan-1"], guidance=h.requests["populate-1-2"].guidance)),
    ("another prompt's embedding", "plan-1", "prompt.embedding",
     lambda h, o: changed(h.requests["plan-1"], prompt=dataclasses.replace(h.requests["plan-1"].prompt, text="other"))),
    ("key latents that are swapped", "populate-1-2", "clean[1]",
     lambda h, o: changed(h.requests["populate-1-2"], clean=swap(h.requests["populate-1-2"].clean, 1, 2))),
    ("a clean latent too few", "populate-1-2", "clean",
     lambda h, o: changed(h.requests["populate-1-2"], clean=h.requests["populate-1-2"].clean[:-1])),
    ("key latents of the segment before", "populate-1-2", "clean[1]",
     lambda h, o: changed(h.requests["populate-1-2"], clean=mixed(h, "populate-1-2", "populate-0-2", (1, 2)))),
    ("a plan that was made from another prefix", "populate-1-2", "clean[1]", lambda h, o: replanned(h)),
    ("the first half of another plan", "populate-1-3", "clean[4]", lambda h, o: refilled(h)),
    ("guidance of the other half", "populate-1-2", "guidance.indices",
     lambda h, o: changed(h.requests["populate-1-2"], guidance=h.requests["populate-1-3"].guidance)),
    ("keys that are swapped", "bridge-1", "keys[1]",
     lambda h, o: changed(h.requests["bridge-1"], keys=swap(h.requests["bridge-1"].keys, 0, 1))),
    ("a key latent for a populated one", "bridge-1", "keys[1]",
     lambda h, o: changed(h.requests["bridge-1"], keys=np.concatenate(
         [h.results["populate-1-2"].latents[:1], h.requests["bridge-1"].keys[1:]]))),
    ("pictures that are swapped", "reconstruct-1", "pictures[1]",
     lambda h, o: changed(h.requests["reconstruct-1"], pictures=swap(h.requests["reconstruct-1"].pictures, 0, 1))),
    ("pictures of the segment before", "reconstruct-1", "pictures[0]",
     lambda h, o: changed(h.requests["reconstruct-1"], pictures=h.requests["reconstruct-0"].pictures)),
    ("a picture too few, at the end", "reconstruct-1", "pictures[1]",
     lambda h, o: shorter(h.requests["reconstruct-1"])),
    ("a damaged picture", "reconstruct-1", "pictures[0]",
     lambda h, o: changed(h.requests["reconstruct-1"], pictures=np.concatenate(
         [flipped(h.requests["reconstruct-1"].pictures[:1]), h.requests["reconstruct-1"].pictures[1:]]))),
    ("fusing onto a memory that lacks a segment", "reconstruct-2", "base",
     lambda h, o: changed(h.requests["reconstruct-2"], base=1)),
    ("decoding another latent in its place", "decode-2-2", "latents[1]",
     lambda h, o: changed(h.requests["decode-2-2"], latents=np.stack(
         [h.requests["decode-2-2"].latents[0], h.requests["decode-2-3"].latents[0]]))),
    ("decoding the segment before", "decode-2-2", "latents[0]",
     lambda h, o: changed(h.requests["decode-2-2"], latents=h.requests["decode-1-2"].latents)),
    ("decoding without guidance", "decode-2-2", "guidance",
     lambda h, o: changed(h.requests["decode-2-2"], guidance=None)),
    ("decoding guidance", "decode-2-2", "latents[1]",
     lambda h, o: changed(h.requests["decode-2-2"], latents=np.concatenate(
         [h.requests["decode-2-2"].latents[:1], h.requests["decode-2-2"].guidance.latents]))),
]  # fmt: skip


def mixed(hands: Hands, name: str, source: str, rows: tuple[int, ...]) -> np.ndarray:
    clean = hands.requests[name].clean.copy()
    for row in rows:
        clean[row] = hands.requests[source].clean[row]
    return clean


def stale_plan(hands: Hands) -> Any:
    """The guidance of segment 2, rendered before segment 1 was fused."""
    early = hands.core("guide-2")(changed(hands.requests["guide-2"], revision=1)).guidance
    members = hands.session.timeline.members(Group.PLAN)
    return changed(hands.requests["plan-2"], guidance=early.of(members))


def replanned(hands: Hands) -> Any:
    """A populator gets a prefix of its segment that is not the one that the plan was made from."""
    clean = hands.requests["populate-1-2"].clean.copy()
    another = dataclasses.replace(read_latent(clean[0], "prefix"), content=digest("another prefix"))
    clean[0] = write_latent(another, clean[0].shape)
    return changed(hands.requests["populate-1-2"], clean=clean)


def refilled(hands: Hands) -> Any:
    """The second half is given a first half that was populated around other key latents."""
    said = changed(hands.requests["plan-1"], prompt=embed_text(quick_model(), "a forest"))
    forest = hands.core("plan-1")(said).latents
    first = hands.requests["populate-1-2"]
    around = hands.core("populate-1-2")(changed(first, clean=np.stack([first.clean[0], forest[0], forest[1]])))
    clean = hands.requests["populate-1-3"].clean.copy()
    clean[4:] = around.latents
    return changed(hands.requests["populate-1-3"], clean=clean)


def shorter(request: Any) -> Any:
    return changed(request, pictures=request.pictures[:-1], path=request.path[:-1], frames=request.frames[:-1])


@pytest.mark.parametrize(("what", "task", "field", "make"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_input_is_refused_by_the_worker_that_gets_it(
    hands: Hands, other: Hands, what: str, task: str, field: str, make: Callable[[Hands, Hands], Any]
) -> None:
    hands.core(task)(hands.requests[task])
    with pytest.raises(InvalidInput) as refused:
        hands.core(task)(make(hands, other))
    assert refused.value.field == field


def test_a_batch_gives_what_its_tasks_give_one_by_one(hands: Hands, other: Hands) -> None:
    for name in ("plan-1", "populate-1-2"):
        kind = name.split("-")[0]
        many = getattr(hands.core(name).__self__, f"{kind}_many")([hands.requests[name], other.requests[name]])
        for h, result in zip((hands, other), many, strict=True):
            assert np.array_equal(result.latents, h.results[name].latents)


def test_a_decoder_without_the_stream_asks_for_the_history_and_then_makes_the_same_chunk(hands: Hands) -> None:
    cold = Hands(quick_model())
    name = "decode-1-6"
    request = hands.requests[name]
    with pytest.raises(StateLost):
        cold.core(name)(request)
    whole = np.stack(
        [hands.requests["plan-1"].prefix, *(hands.requests[f"decode-1-{i}"].latents[-1] for i in range(2, 7))]
    )
    guidance = hands.results["guide-1"].guidance.of(tuple(range(2, 7)))
    replayed = cold.core(name)(changed(request, latents=whole, guidance=guidance))
    assert replayed.video == hands.results[name].video


def test_a_chunk_is_playable_and_says_what_it_shows(hands: Hands) -> None:
    spec = quick_model().spec
    for name, frames in (("decode-0-1", 1), ("decode-1-5", 4)):
        result = hands.results[name]
        pictures = decode_chunk(result.video)
        assert pictures.shape == (frames, spec.lens.height, spec.lens.width, 3) and result.frames == frames
    stamp = read_film_stamp(hands.results["decode-1-5"].video)
    assert (stamp.seed, stamp.segment, stamp.latent) == (7, 1, 5)
    assert stamp.stream != read_film_stamp(hands.results["decode-1-6"].video).stream
    with pytest.raises(InvalidInput):
        read_film_stamp(b"\0\0\0\1\x65 no stamp here")


@pytest.mark.parametrize("name", ["emulated-18b", "emulated-14b-n21"])
def test_the_tensors_of_a_large_model_have_its_sizes(name: str) -> None:
    model = quick_model(name, factor=0.001)
    hands = Hands(model, ChainMode.T_B)
    hands.walk(1)
    shape = {"emulated-18b": (16, 120, 220), "emulated-14b-n21": (16, 60, 104)}[name]
    size = {"emulated-18b": (960, 1760, 3), "emulated-14b-n21": (480, 832, 3)}[name]
    assert hands.results["plan-0"].latents.shape == (3, *shape)
    assert hands.results["bridge-0"].pictures.shape == (2, *size)
    result = hands.results["decode-0-3"]
    assert (result.height, result.width, 3) == size
