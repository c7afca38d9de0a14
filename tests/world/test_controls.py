"""Key scripts and the walker."""

import numpy as np
import pytest

from teleworld.world.camera import Lens, PitchModel
from teleworld.world.collision import Clearance
from teleworld.world.controls import Keys, keys_per_frame, parse_script, schedule
from teleworld.world.errors import InvalidInput
from teleworld.world.walker import Gait, Walker, path_of, walk


def test_a_script_reads_as_written():
    holds = parse_script("W*2s W+RIGHT*1.5s d*0.5s .*1s")
    assert [hold.keys for hold in holds] == [Keys.W, Keys.W | Keys.RIGHT, Keys.D, Keys.NONE]
    assert sum(hold.seconds for hold in holds) == 5.0


@pytest.mark.parametrize(
    ("script", "position"),
    [("W*2s Q*1s", 6), ("W*2", 1), ("W*2s W+JUMP*1s", 8), ("", 1), ("W*0s", 1), ("W*2s  *1s", 7)],
)
def test_a_fault_is_refused_with_its_position(script, position):
    with pytest.raises(InvalidInput, match=f"position {position}:"):
        parse_script(script)


def test_frames_lose_no_time_by_rounding():
    frames = keys_per_frame(parse_script(" ".join(["W*0.1s"] * 10)), fps=17.5)
    assert len(frames) == round(17.5)


def test_a_schedule_has_one_control_a_change():
    controls = schedule([Keys.W] * 8 + [Keys.RIGHT] * 4, frames_per_chunk=4)
    assert [(c.chunk, c.keys, c.sequence) for c in controls] == [(1, Keys.W, 1), (3, Keys.RIGHT, 2)]


def test_keys_move_the_camera_as_the_paper_says():
    start, room = Walker(), Clearance.open()
    one = lambda keys: start.step(keys, Gait(), 1.0, room)  # noqa: E731
    assert one(Keys.W).z > 0 > one(Keys.S).z
    assert one(Keys.D).x > 0 > one(Keys.A).x
    assert one(Keys.RIGHT).yaw > 0 > one(Keys.LEFT).yaw
    assert one(Keys.UP).pitch > 0 > one(Keys.DOWN).pitch
    both = one(Keys.W | Keys.D)
    assert (both.x, both.z) == (one(Keys.D).x, one(Keys.W).z)
    assert 0 < one(Keys.NONE).z < one(Keys.W).z / 5, "no key is the standby drift"


def test_turning_right_and_walking_goes_right():
    turned = walk(Walker(), [Keys.RIGHT] * 36 + [Keys.W], Gait(), 1.0, Clearance.open())[-1]
    assert turned.x == pytest.approx(Gait().step) and turned.z == pytest.approx(0, abs=1e-9)


def test_nobody_walks_through_a_wall_but_slides_along_it():
    path = walk(Walker(), [Keys.W | Keys.D] * 60, Gait(), 1.0, wall_at_two_metres())
    assert 1.9 - Gait().radius < max(walker.z for walker in path) <= 2.0 - Gait().radius
    assert path[-1].x > 5


def wall_at_two_metres() -> Clearance:
    """Two cells thick, across the way."""
    blocked = np.zeros((120, 40), bool)
    blocked[:, 30:32] = True
    return Clearance(origin=(-4.0, -4.0), cell=0.2, blocked=blocked)


@pytest.mark.parametrize("z", [1.6, 1.95, 2.45, 2.7])
def test_who_finds_himself_too_near_to_a_wall_goes_along_and_away_and_not_through(z):
    wall, start = wall_at_two_metres(), Walker(z=z)
    away, on = (Keys.S, Keys.W) if z < 2 else (Keys.W, Keys.S)
    one = lambda keys: start.step(keys, Gait(), 1.0, wall)  # noqa: E731
    assert one(on) == start
    assert abs(one(away).z - 2.2) > abs(z - 2.2) and one(Keys.D).x > 0
    along = one(on | Keys.D)
    assert along.z == z and along.x > 0


def test_who_finds_himself_inside_of_a_wall_may_leave_it_either_way():
    wall, start = wall_at_two_metres(), Walker(z=2.2)
    assert all(start.step(keys, Gait(), 1.0, wall) != start for keys in (Keys.W, Keys.S, Keys.A, Keys.D))


def test_a_shift_camera_tilts_by_its_principal_point():
    lens = Lens(160, 96, 66.67, 80, PitchModel.SHIFT)
    path = path_of(walk(Walker(), [Keys.UP] * 5, Gait(), 1.0, Clearance.open()), lens)
    assert np.allclose(path.camera_to_world[-1], np.eye(4))
    assert path.intrinsics[-1, 3] > 48
    path.check("path", 5)
