"""The Python SDK of the gateway: worlds, and walks through them.

    async with WorldClient("localhost:7000") as client:
        world = await client.create_world(Path("start.png").read_bytes(), seed=1)
        async with client.walk(world.name, until=40) as walk:
            walk.hold(Keys.W | Keys.RIGHT)
            async for event in walk:
                if isinstance(event, Chunk):
                    play(event.video)

Everything raises the errors of `teleworld.world.errors`. Needs grpcio, protobuf and numpy; never torch.
"""

from teleworld.client.client import WorldClient
from teleworld.client.events import (
    Attached,
    Chunk,
    End,
    EndReason,
    Event,
    Pace,
    Receipt,
    ReceiptState,
    Rewound,
    World,
    WorldState,
)
from teleworld.client.retry import Patience
from teleworld.client.walk import Walk
from teleworld.world.controls import Keys
from teleworld.world.timeline import ChainMode

__all__ = [
    "Attached",
    "ChainMode",
    "Chunk",
    "End",
    "EndReason",
    "Event",
    "Keys",
    "Pace",
    "Patience",
    "Receipt",
    "ReceiptState",
    "Rewound",
    "Walk",
    "World",
    "WorldClient",
    "WorldState",
]
