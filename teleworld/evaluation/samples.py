"""Where evaluation walks start: fixed, evenly spread places of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teleworld.training.dataset import Episode
from teleworld.world.camera import CameraPath, pose
from teleworld.world.errors import InvalidInput


@dataclass(frozen=True)
class Start:
    """A place in a recording: the walk's picture is the frame `frame` of `episode`, and `frames` true frames follow."""

    episode: Episode
    frame: int
    frames: int

    @property
    def name(self) -> str:
        """Readable and unique."""
        return f"{self.episode.folder.name}@{self.frame}"

    @property
    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return np.array(self.episode.rgb[self.frame])

    @property
    def span(self) -> slice:
        """The true frames of the walk, without the start picture."""
        return slice(self.frame + 1, self.frame + 1 + self.frames)

    @property
    def path(self) -> CameraPath:
        """Cameras [1 + frames]: the start picture's, then one for each true frame."""
        return self.episode.cameras[slice(self.frame, self.frame + 1 + self.frames)]

    @property
    def caption(self) -> str:
        """What the recording says about the surroundings."""
        return self.episode.caption(self.frame)


def starts(episodes: Sequence[Episode], count: int, frames: int) -> list[Start]:
    """`count` starts with `frames` frames behind each, spread over the episodes; fewer are the first ones of more.

    Raises:
        InvalidInput: no episode is long enough.
    """
    long_enough = [episode for episode in episodes if len(episode) > frames]
    if not long_enough:
        raise InvalidInput("frames", f"no episode has {frames + 1} frames")
    chosen = [long_enough[number % len(long_enough)] for number in range(count)]
    return [
        Start(episode, int(np.random.default_rng([number, frames]).integers(len(episode) - frames)), frames)
        for number, episode in enumerate(chosen)
    ]


def with_movers(episodes: Sequence[Episode], count: int, pixels: tuple[int, int] = (300, 4000)) -> list[Start]:
    """Starts whose picture shows moving things of a size in `pixels`, one after another from each episode that has any.

    Raises:
        InvalidInput: nothing moves in any episode.
    """
    found: list[list[Start]] = []
    for number, episode in enumerate(episodes):
        sizes = episode.dynamic(slice(None)).sum(axis=(1, 2))
        frames = np.flatnonzero((sizes >= pixels[0]) & (sizes <= pixels[1]))
        random = np.random.default_rng([number, 1])
        found.append([Start(episode, int(frame), 0) for frame in random.permutation(frames)[:count]])
    most = max((len(places) for places in found), default=0)
    spread = [places[turn] for turn in range(most) for places in found if turn < len(places)]
    if not spread:
        raise InvalidInput("episodes", "nothing moves in any of them")
    return spread[:count]


def full_turn(start: Start, frames: int) -> CameraPath:
    """A turn of 360 degrees to the right on the spot in `frames` frames: cameras [1 + frames], the last equal to the first."""
    first = start.path[:1]
    forward = first.camera_to_world[0, :3, 2]
    x, y, z = first.camera_to_world[0, :3, 3]
    heading = np.arctan2(forward[0], forward[2])
    yaws = heading + 2 * np.pi * np.arange(frames + 1) / frames
    return CameraPath(np.stack([pose(x, y, z, yaw) for yaw in yaws]), np.repeat(first.intrinsics, frames + 1, axis=0))


def there_and_back(start: Start) -> CameraPath:
    """The first half of the recorded walk and the same way back, looking the same way: it ends where it began."""
    half = start.frames // 2
    way = list(range(half + 1))
    return start.path[way + way[::-1][1:] + [0] * (start.frames - 2 * half)]
