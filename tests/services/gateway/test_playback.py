"""The player's position, by an imagined clock."""

from __future__ import annotations

import pytest

from services.gateway.playback import Playback


def test_without_a_pace_a_chunk_is_consumed_when_it_is_acknowledged() -> None:
    playback = Playback(3, None)
    playback.sent(3, 4, 0.0)
    assert playback.played(100.0) == 3
    playback.acked(4)
    assert playback.played(0.0) == 4
    assert playback.due(0.0) is None


def test_with_a_pace_it_is_consumed_when_its_time_is_over_and_it_is_acknowledged() -> None:
    playback = Playback(0, 4.0)
    playback.sent(0, 1, 10.0)
    playback.sent(1, 4, 10.0)
    playback.sent(2, 4, 10.0)
    playback.acked(2)
    assert playback.played(10.2) == 0
    assert playback.due(10.2) == pytest.approx(10.25)
    assert playback.played(10.3) == 1
    assert playback.played(11.3) == 2
    assert playback.due(11.3) is None
    assert playback.played(20.0) == 2
    playback.acked(3)
    assert playback.played(20.0) == 3


def test_a_late_chunk_moves_all_that_follow() -> None:
    playback = Playback(0, 1.0)
    playback.acked(9)
    playback.sent(0, 1, 0.0)
    assert playback.played(5.0) == 1
    playback.sent(1, 4, 5.0)
    playback.sent(2, 4, 5.0)
    assert playback.played(8.9) == 1
    assert playback.played(9.0) == 2
    assert playback.played(13.0) == 3


def test_a_pause_stops_the_clock() -> None:
    playback = Playback(0, 1.0)
    playback.acked(9)
    playback.sent(0, 1, 0.0)
    playback.sent(1, 4, 0.0)
    playback.pause(3.0)
    assert playback.played(100.0) == 0
    assert playback.due(100.0) is None
    playback.resume(103.0)
    assert playback.played(103.0) == 1
    assert playback.played(104.9) == 1
    assert playback.played(105.0) == 2
