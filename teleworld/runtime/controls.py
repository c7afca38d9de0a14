"""The controls of a running world: live ones wait for the next segment, scheduled ones for their chunk."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import replace

from teleworld.world.controls import ALL_KEYS, Control, Keys
from teleworld.world.errors import InvalidInput

MAX_PENDING = 4096


class ControlQueue:
    """Which keys are held at which chunk. `bound` is the first chunk whose keys are still open."""

    def __init__(self, bound: int = 1) -> None:
        self.bound = bound
        self._live: list[Control] = []
        self._scheduled: list[Control] = []

    def add(self, control: Control) -> None:
        """Take a control. Raises InvalidInput for unknown keys, a chunk that is bound already, or too many controls."""
        if not 0 <= int(control.keys) <= int(ALL_KEYS):
            raise InvalidInput("control.keys", "unknown key bits")
        if len(self._live) + len(self._scheduled) >= MAX_PENDING:
            raise InvalidInput("control", f"more than {MAX_PENDING} controls are waiting")
        if control.chunk is None:
            self._live.append(control)
        elif control.chunk < self.bound:
            raise InvalidInput(
                "control.chunk", f"chunk {control.chunk} is bound already; the next free one is {self.bound}"
            )
        else:
            insort(self._scheduled, control, key=_chunk)

    def bind(self, chunks: Sequence[int]) -> tuple[tuple[Control, ...], tuple[Control, ...]]:
        """Fix the keys of `chunks` (ascending).

        Live controls take effect one a chunk from the first on, so that a short tap is not lost; if there are more than
        chunks, the latest win. Returns the control in effect at each chunk, and every live control with the chunk
        that it was bound to.
        """
        dropped = self._live[: max(0, len(self._live) - len(chunks))]
        kept = self._live[len(dropped) :]
        placed = [replace(control, chunk=chunks[number]) for number, control in enumerate(kept)]
        for control in placed:
            insort(self._scheduled, control, key=_chunk)
        self._live = []
        effective = tuple(self._at(chunk) for chunk in chunks)
        self.bound = chunks[-1] + 1
        last = bisect_right(self._scheduled, chunks[-1], key=_chunk) - 1
        self._scheduled = self._scheduled[max(last, 0) :]
        return effective, (*(replace(control, chunk=chunks[0]) for control in dropped), *placed)

    def reopen(self, bound: int) -> None:
        """Let `bound` be the first open chunk again. No control may take effect between it and the one that was."""
        self.bound = bound

    @property
    def pressed(self) -> bool:
        """Whether a live control waits that changes the keys."""
        held = self._at(self.bound - 1).keys
        return any(control.keys != held for control in self._live)

    def waiting(self) -> tuple[Control, ...]:
        """What `restore` needs besides `bound`: the control in effect at the last bound chunk, and all that are not bound."""
        return (*self._scheduled, *self._live)

    def restore(self, bound: int, controls: Sequence[Control]) -> None:
        """Take the state that `waiting` gave when `bound` was the first open chunk."""
        self.bound = bound
        self._live = [control for control in controls if control.chunk is None]
        self._scheduled = sorted((control for control in controls if control.chunk is not None), key=_chunk)

    def _at(self, chunk: int) -> Control:
        position = bisect_right(self._scheduled, chunk, key=_chunk)
        return self._scheduled[position - 1] if position else Control(0, Keys.NONE, 0)


def _chunk(control: Control) -> int:
    return control.chunk if control.chunk is not None else 0
