"""The player on a simulated clock: steady playback, stalls, and slowing down to what can be sustained."""

from __future__ import annotations

import asyncio

import pytest

from teleworld.cli.player import MARGIN, Player, sustained_fps


class Clock:
    """Time that passes only when somebody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((self.now + seconds, future))
        await future

    async def run(self, until: float) -> None:
        """Let time pass, waking sleepers in their order."""
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            due = sorted((at, index) for index, (at, _) in enumerate(self._waiting) if at <= until)
            if not due:
                self.now = until
                return
            at, future = self._waiting.pop(due[0][1])
            self.now = at
            future.set_result(None)


async def play(arrivals: list[float], fps: float, buffer: int = 2, frames: int = 4) -> tuple[Player, list[float]]:
    """The player after chunks came at these times, and when each was shown."""
    clock, shown = Clock(), []
    player = Player(fps, lambda index: shown.append(clock.now), buffer=buffer, clock=clock, sleep=clock.sleep)
    running = asyncio.create_task(player.run())
    for index, at in enumerate(arrivals):
        await clock.run(at)
        player.offer(index, frames)
    player.finish()
    await clock.run(arrivals[-1] + 1000)
    await running
    return player, shown


async def test_chunks_that_come_early_are_shown_at_the_rate():
    player, shown = await play([0.0, 0.1, 0.2, 0.3], fps=8)
    assert shown == pytest.approx([0.1, 0.6, 1.1, 1.6])
    assert player.stalls == 0
    assert player.fps == 8


async def test_playback_waits_for_its_buffer():
    _, shown = await play([0.0, 3.0, 3.1], fps=8, buffer=2)
    assert shown[0] == pytest.approx(3.0)


async def test_a_walk_shorter_than_the_buffer_is_played():
    _, shown = await play([0.0], fps=8, buffer=5)
    assert shown == [0.0]


async def test_a_late_chunk_is_one_stall_of_the_time_it_was_late():
    player, shown = await play([0.0, 0.1, 0.2, 3.0, 3.1], fps=8)
    assert player.stalls == 1
    assert player.stalled_ms == pytest.approx(1400.0)
    assert shown[3] == pytest.approx(3.0)


async def test_after_a_stall_the_rate_is_the_one_that_can_be_sustained_and_it_stalls_no_more():
    player, _ = await play([float(second) for second in range(40)], fps=17.5)
    assert player.fps == pytest.approx(MARGIN * 4.0)
    assert 1 <= player.stalls <= 3


async def test_a_stall_on_a_fast_machine_does_not_change_the_rate():
    arrivals = [0.1 * index for index in range(10)] + [10.0] + [10.0 + 0.01 * index for index in range(20)]
    player, _ = await play(arrivals, fps=1.0, frames=1)
    assert player.fps == 1.0


def test_the_rate_of_arrivals_counts_what_came_after_the_first():
    assert sustained_fps([(0.0, 1), (1.0, 4), (2.0, 4)]) == 4.0
    assert sustained_fps([(0.0, 1), (1.0, 4)]) is None
    assert sustained_fps([(1.0, 4)] * 5) is None
