"""The player's position, by an imagined clock."""

from __future__ import annotations

import pytest

from services.gateway.playback import Playback


def test_without_a_pace_a_chunk_is_consumed_when_it_is_acknowledged() -> None:
    playback = Playback(3, None)
    playback.sent(3, 4)
    assert playback.played(100.0) == 3
    playback.acked(4, 0.0)
    assert playback.played(0.0) == 4
    assert playback.due(0.0) is None


def test_a_client_that_acknowledges_what_arrives_plays_it_without_gaps() -> None:
    playback = Playback(0, 4.0)
    for chunk in range(3):
        playback.sent(chunk, 4 if chunk else 1)
    assert playback.played(100.0) == 0
    playback.acked(2, 10.0)
    assert playback.played(10.2) == 0
    assert playback.due(10.2) == pytest.approx(10.25)
    assert playback.played(10.3) == 1
    assert playback.due(10.3) == pytest.approx(11.25)
    playback.acked(3, 10.5)
    assert playback.played(11.3) == 2
    assert playback.played(12.24) == 2
    assert playback.played(12.25) == 3
    assert playback.due(12.25) is None


def test_a_client_that_acknowledges_what_it_begins_to_show_tells_its_own_clock() -> None:
    playback = Playback(1, 4.0)
    for chunk in (1, 2, 3):
        playback.sent(chunk, 4)
    for chunk, shown in ((1, 5.0), (2, 6.001), (3, 7.0)):
        playback.acked(chunk + 1, shown)
        assert playback.played(shown + 0.99) == chunk
        assert playback.due(shown + 0.99) == pytest.approx(shown + 1, abs=0.002)
    assert playback.played(8.01) == 4


def test_a_late_chunk_moves_all_that_follow() -> None:
    playback = Playback(0, 1.0)
    playback.sent(0, 1)
    playback.acked(1, 0.0)
    assert playback.played(5.0) == 1
    for chunk in (1, 2):
        playback.sent(chunk, 4)
    playback.acked(3, 5.0)
    assert playback.played(8.9) == 1
    assert playback.played(9.0) == 2
    assert playback.played(13.0) == 3


def test_a_pause_stops_the_clock() -> None:
    playback = Playback(0, 1.0)
    for chunk, frames in ((0, 1), (1, 4)):
        playback.sent(chunk, frames)
    playback.acked(1, 0.0)
    playback.acked(2, 0.0)
    playback.pause(0.5)
    assert playback.played(100.0) == 0
    assert playback.due(100.0) is None
    playback.sent(2, 4)
    playback.acked(3, 101.0)
    playback.resume(103.0)
    assert playback.played(103.0) == 0
    assert playback.played(103.5) == 1
    assert playback.played(107.4) == 1
    assert playback.played(107.5) == 2
    assert playback.played(111.5) == 3
