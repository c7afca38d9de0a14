"""A world's session: what it says of controls that come twice."""

import numpy as np

from teleworld.runtime.records import WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.world.controls import Control, Keys
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt


def test_a_control_that_its_chunk_is_bound_to_is_recognised_and_no_other():
    picture = np.zeros((96, 160, 3), np.uint8)
    prompt = Prompt("", np.zeros((32, 384), np.float32))
    session = WorldSession(WorldRecord("w", "nano", "0" * 64, 1, ChainMode.T_B, prompt, picture, 0.0, "r"))
    said = Control(1, Keys.W, 2)
    assert not session.said_before(said), "nothing is bound yet"
    session.controls.add(said)
    session.bind(0)
    assert session.said_before(said)
    assert not session.said_before(Control(1, Keys.D, 2)), "other keys"
    assert not session.said_before(Control(2, Keys.W, 2)), "another control"
    assert not session.said_before(Control(1, Keys.W, 1)), "another chunk"
    assert not session.said_before(Control(1, Keys.W, 5)), "a chunk that is not bound"
    assert not session.said_before(Control(1, Keys.W)), "a live control is never bound before"
