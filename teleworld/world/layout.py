"""The layout of a world: which chunk shows which latent of which segment, when segments may end early.

Most segments show all that their timeline says. One that was cut (re-anchoring) ends at an earlier latent, and the next
segment starts from there: chunks stay without gaps, only the arithmetic from chunk to segment is not a division any more.
So a segment's first chunk is data. It is logged with the segment's binding, and is all that a replay must know: a segment
ends where the next one begins.

Chunks here count on the world's own timeline: chunk 0 is the start picture, the prefix of segment 0.
"""

from __future__ import annotations

from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import Timeline


class Layout:
    """Grows by `begin`, segment by segment. What is not known yet is as the uncut timeline says.

    A layout may start late: a world that is restored knows its last segments alone, and asks for no older ones.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._second: dict[int, int] = {0: 1}

    def begin(self, segment: int, chunk: int) -> None:
        """`segment` shows its latent 2 as `chunk`. Raises InvalidInput when the segment before cannot end there."""
        if segment and segment - 1 in self._second:
            last = chunk - self._second[segment - 1] + 1
            if not 2 <= last <= self.timeline.last_shown:
                raise InvalidInput("binding.first_chunk", f"segment {segment - 1} cannot end at latent {last}")
        elif not segment and chunk != 1:
            raise InvalidInput("binding.first_chunk", f"segment 0 shows its latent 2 as chunk 1, not {chunk}")
        self._second[segment] = chunk

    def chunk(self, segment: int, latent: int) -> int:
        """The chunk that shows `latent` of `segment`."""
        known = max((number for number in self._second if number <= segment), default=min(self._second))
        return self._second[known] + (segment - known) * self.timeline.chunks_per_segment + latent - 2

    def last_shown(self, segment: int) -> int:
        """The last latent of `segment` that is shown, and from which the next one starts."""
        if segment + 1 in self._second and segment in self._second:
            return self._second[segment + 1] - self._second[segment] + 1
        return self.timeline.last_shown

    def cut(self, segment: int) -> int:
        """The last latent of a segment that was cut; 0 for one that shows all it has."""
        last = self.last_shown(segment)
        return 0 if last == self.timeline.last_shown else last

    def of(self, segment: int) -> Timeline:
        """The timeline of a segment as far as it is shown."""
        return self.part(self.cut(segment))

    def part(self, cut: int) -> Timeline:
        """The timeline of a segment that was cut at the latent `cut`, or of a whole one if that is 0."""
        return self.timeline.cut(cut) if cut else self.timeline

    def forget(self, segment: int) -> None:
        """Drop what only the segments before `segment` need."""
        nearest = max((number for number in self._second if number <= segment), default=segment)
        for old in [number for number in self._second if number < nearest]:
            del self._second[old]
