"""Run a function on several ranks: spawned processes that speak gloo over loopback."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT_S = 90.0


def on_ranks(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(*arguments)` returns on each of `count` ranks, in order. Fails with the first rank's traceback.

    work: a function of a module, run after the process group is up; `folder` holds the ranks' meeting point.
    """
    spawn = multiprocessing.get_context("spawn")
    ends = [spawn.Pipe(duplex=False) for _ in range(count)]
    children = [
        spawn.Process(target=_rank, args=(rank, count, str(folder / "meeting"), end, work, arguments), daemon=True)
        for rank, (_, end) in enumerate(ends)
    ]
    for child in children:
        child.start()
    for _, end in ends:
        end.close()
    answers = [heard.recv() if heard.poll(TIMEOUT_S) else (False, "no answer in time") for heard, _ in ends]
    for child in children:
        child.join(5)
        if child.is_alive():
            child.kill()
    for good, answer in answers:
        assert good, answer
    return [answer for _, answer in answers]


def _rank(
    rank: int, count: int, meeting: str, end: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
        end.send((True, work(*arguments)))
        dist.destroy_process_group()
    except Exception:
        end.send((False, traceback.format_exc()))
