"""Segments that are cut, and their replay from the log: the same chunks, bit by bit, wherever the gateway died."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import codec
from teleworld.runtime.records import Binding, Chunk, Plan
from teleworld.scheduling.tasks import Kind
from teleworld.world.controls import Keys
from teleworld.world.timeline import ChainMode
from tests.services.gateway.cores import Field
from tests.services.gateway.hand import Died, Entry, Hand, essence, record_of

CHAINS = (ChainMode.T_B, ChainMode.T_C)
PLACES = [(chain, last) for chain in CHAINS for last in range(2, record_of(chain).timeline.last_shown)]


@pytest.mark.parametrize("chain, last", PLACES)
def test_a_cut_at_any_latent_is_replayed_from_the_log(chain: ChainMode, last: int) -> None:
    log: list[Entry] = []
    hand = Hand(chain, log, Field())
    hand.walk(4, cuts={1: last}, keys={0: Keys.W, 2: Keys.RIGHT})
    chunks = [entry for entry in log if isinstance(entry, Chunk)]
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.latent for chunk in chunks if chunk.segment == 1] == list(range(2, last + 1))
    first = next(chunk for chunk in chunks if chunk.segment == 2)
    assert (first.keys, first.control_sequence, first.latent) == (Keys.RIGHT, 3, 2)

    again: list[Entry] = [entry for entry in log if isinstance(entry, Binding)]
    Hand(chain, again, Field()).walk(4)
    assert essence(again) == essence(log)


@pytest.mark.parametrize("chain, last", PLACES)
def test_the_memory_holds_key_frames_that_were_shown_and_no_others(chain: ChainMode, last: int) -> None:
    log: list[Entry] = []
    hand = Hand(chain, log, Field())
    hand.walk(4, cuts={1: last}, keys={0: Keys.W})
    shown = {chunk.first_frame + chunk.frames - 1 for chunk in log if isinstance(chunk, Chunk)}
    fused = [frame for task, request in hand.requests if task.kind is Kind.RECONSTRUCT for frame in request.frames]
    assert len(fused) == len(set(fused))
    assert set(fused) <= shown
    assert [request.base for task, request in hand.requests if task.kind is Kind.RECONSTRUCT] == [0, 1, 2, 3]
    guided = [request.revision for task, request in hand.requests if task.kind is Kind.GUIDE]
    assert guided == [0, 1, 1, 3, 4], "the segment behind the cut is guided by what was known when it began"


@pytest.mark.parametrize("chain", CHAINS)
def test_without_a_cut_nothing_depends_on_the_bridges_that_were_made_for_one(chain: ChainMode) -> None:
    log: list[Entry] = []
    hand = Hand(chain, log, Field())
    hand.walk(3, keys={1: Keys.W})
    timeline = record_of(chain).timeline
    for chunk in log:
        if isinstance(chunk, Chunk):
            assert (chunk.segment, chunk.latent) == timeline.locate(chunk.index)
    assert [entry.first_chunk for entry in log if isinstance(entry, Binding)] == [
        timeline.chunk(s, 2) for s in range(4)
    ]


@given(
    st.sampled_from(CHAINS),
    st.dictionaries(st.integers(0, 5), st.integers(0, 2), max_size=4),
    st.dictionaries(st.integers(0, 5), st.sampled_from([Keys.W, Keys.LEFT, Keys.S | Keys.D]), max_size=4),
    st.lists(st.integers(1, 40), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_cut_and_wherever_gateways_die_the_log_tells_the_same_walk(
    chain: ChainMode, draws: dict[int, int], keys: dict[int, Keys], deaths: list[int]
) -> None:
    cuts = {segment: 2 + draw % (record_of(chain).timeline.last_shown - 2) for segment, draw in draws.items()}
    log: list[Entry] = []
    field = Field()
    for life in deaths:
        with contextlib.suppress(Died):
            Hand(chain, log, field, life).walk(6, cuts, keys)
    Hand(chain, log, field).walk(6, cuts, keys)
    chunks = essence(log)
    assert [chunk[0] for chunk in chunks] == list(range(len(chunks))), "lost, repeated or out of order"

    bindings: dict[int, Entry] = {entry.segment: entry for entry in log if isinstance(entry, Binding)}
    again = list(bindings.values())
    Hand(chain, again, Field()).walk(6)
    assert essence(again) == chunks


def test_a_cut_survives_the_store_and_older_logs_have_none() -> None:
    log: list[Entry] = []
    Hand(ChainMode.T_B, log, Field()).walk(2, cuts={0: 2})
    binding = next(entry for entry in log if isinstance(entry, Binding) and entry.segment == 1)
    plan = next(entry for entry in log if isinstance(entry, Plan) and entry.last == 2)
    stored = codec.read_binding(codec.write_binding(binding, "p"), {"p": binding.prompt})
    assert (stored.first_chunk, codec.read_plan(codec.write_plan(plan)).last) == (2, 2)
    old = dataclasses.replace(binding, first_chunk=None)
    assert codec.read_binding(codec.write_binding(old, "p"), {"p": binding.prompt}).first_chunk is None
    assert codec.read_record(codec.write_record(record_of(ChainMode.T_B))).reanchor
