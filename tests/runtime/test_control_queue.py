"""Which keys are held at which chunk."""

import pytest

from teleworld.runtime.controls import MAX_PENDING, ControlQueue
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import InvalidInput


def keys_of(effective):
    return [control.keys for control in effective]


def test_scheduled_controls_take_effect_at_their_chunk_and_stay():
    queue = ControlQueue()
    queue.add(Control(1, Keys.W, 1))
    queue.add(Control(2, Keys.D, 3))
    assert keys_of(queue.bind([1, 2, 3])[0]) == [Keys.W, Keys.W, Keys.D]
    assert keys_of(queue.bind([4, 5, 6])[0]) == [Keys.D] * 3


def test_a_live_control_binds_to_the_next_segment_and_tells_where():
    queue = ControlQueue()
    queue.bind([1, 2, 3])
    queue.add(Control(1, Keys.LEFT))
    effective, taken = queue.bind([4, 5, 6])
    assert keys_of(effective) == [Keys.LEFT] * 3
    assert taken == (Control(1, Keys.LEFT, 4),)


def test_a_tap_between_two_segments_is_seen_for_one_chunk():
    queue = ControlQueue()
    queue.add(Control(1, Keys.W))
    queue.add(Control(2, Keys.NONE))
    assert keys_of(queue.bind([1, 2, 3])[0]) == [Keys.W, Keys.NONE, Keys.NONE]


def test_of_more_live_controls_than_chunks_the_latest_win_and_all_are_told():
    queue = ControlQueue()
    for number, keys in enumerate([Keys.A, Keys.W, Keys.S, Keys.D, Keys.UP], start=1):
        queue.add(Control(number, keys))
    effective, taken = queue.bind([1, 2, 3])
    assert keys_of(effective) == [Keys.S, Keys.D, Keys.UP]
    assert sorted(control.sequence for control in taken) == [1, 2, 3, 4, 5]


def test_a_bound_chunk_cannot_be_controlled_any_more():
    queue = ControlQueue()
    queue.bind([1, 2, 3])
    with pytest.raises(InvalidInput, match=r"control\.chunk: chunk 3 is bound"):
        queue.add(Control(1, Keys.W, 3))


def test_unknown_keys_and_floods_are_refused():
    queue = ControlQueue()
    with pytest.raises(InvalidInput, match=r"control\.keys"):
        queue.add(Control(1, Keys(512), 1))
    for number in range(MAX_PENDING):
        queue.add(Control(number, Keys.W))
    with pytest.raises(InvalidInput, match="waiting"):
        queue.add(Control(MAX_PENDING, Keys.W))
