"""Shared memory segments: values arrive once and leave nothing behind, and no reference leads anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teleworld.rpc.segments import Segments
from teleworld.world.errors import InvalidInput, Unavailable

VALUES = np.arange(1000, dtype=np.float32)
CRASHING = """
import os, signal, sys
import numpy as np
from pathlib import Path
from teleworld.rpc.segments import Segments

left = Segments(Path(sys.argv[1]))
for _ in range(3):
    assert left.put(np.ones(100, np.float32))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Segments]:
    segments = Segments(tmp_path)
    yield segments
    segments.close()
    assert os.listdir(tmp_path) == [], "a process that ends leaves nothing"


def segment_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def sent(segments: Segments) -> str:
    name = segments.put(VALUES)
    assert name is not None
    return name


def test_values_arrive_once(ours: Segments, tmp_path: Path) -> None:
    name = sent(ours)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    taken = ours.take(name, VALUES.nbytes, "x")
    assert (taken.view(np.float32) == VALUES).all()
    assert taken.flags.writeable
    assert segment_files(tmp_path) == []
    with pytest.raises(Unavailable, match="gone"):
        ours.take(name, VALUES.nbytes, "x")


def test_a_peer_fetches_and_the_sender_forgets(ours: Segments, tmp_path: Path) -> None:
    peer = Segments(tmp_path)
    assert peer.namespace == ours.namespace
    peer.take(sent(ours), VALUES.nbytes, "x")
    assert ours.waiting == 0
    peer.close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../secret",
        "teleworld.0123456789abcdef.1/../../etc/passwd",
        "teleworld.0123456789abcdef.lock",
        "teleworld.0123456789ABCDEF.1",
        "teleworld.0123456789abcdef.1\n",
        "teleworld.0123456789abcdef.1\0",
        "psm_12345678",
    ],
)
def test_only_our_own_names_are_opened(ours: Segments, name: str) -> None:
    with pytest.raises(InvalidInput, match="not the name of a segment") as caught:
        ours.take(name, 8, "latents.shared_memory")
    assert caught.value.field == "latents.shared_memory.name"


def test_links_pipes_and_folders_are_refused_and_left_alone(ours: Segments, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345678")
    owner = "teleworld.0123456789abcdef"
    (tmp_path / f"{owner}.1").symlink_to(secret)
    os.link(secret, tmp_path / f"{owner}.2")
    os.mkfifo(tmp_path / f"{owner}.3")
    (tmp_path / f"{owner}.4").mkdir()
    for number in range(1, 5):
        with pytest.raises(InvalidInput, match="segment"):
            ours.take(f"{owner}.{number}", 8, "x")
    assert secret.read_bytes() == b"12345678"
    (tmp_path / f"{owner}.4").rmdir()
    secret.unlink()
    ours.sweep()


@pytest.mark.parametrize("length", [0, VALUES.nbytes - 1, VALUES.nbytes + 1, 2**63])
def test_a_wrong_length_is_refused_before_anything_is_allocated(ours: Segments, length: int) -> None:
    name = sent(ours)
    with pytest.raises(InvalidInput, match="4000 bytes") as caught:
        ours.take(name, length, "x")
    assert caught.value.field == "x.length"
    assert len(ours.take(name, VALUES.nbytes, "x")) == VALUES.nbytes


def test_the_budget_and_a_full_folder_send_values_the_other_way(tmp_path: Path) -> None:
    small = Segments(tmp_path, budget=VALUES.nbytes)
    name = sent(small)
    assert small.put(VALUES) is None
    small.take(name, VALUES.nbytes, "x")
    assert small.put(VALUES) is not None, "what was fetched counts no more"
    small.close()


def test_what_nobody_fetches_is_removed(tmp_path: Path) -> None:
    hasty = Segments(tmp_path, kept=0.0)
    sent(hasty)
    assert hasty.sweep() == 1
    assert segment_files(tmp_path) == []
    hasty.close()


def test_a_crash_leaves_orphans_that_anybody_sweeps_and_the_living_keep_theirs(ours: Segments, tmp_path: Path) -> None:
    mine = sent(ours)
    dead = subprocess.run([sys.executable, "-c", CRASHING, str(tmp_path)], check=False, timeout=30)
    assert dead.returncode == -9
    assert len(segment_files(tmp_path)) == 4
    other = Segments(tmp_path)  # sweeps when it begins
    assert segment_files(tmp_path) == [mine]
    assert len(list(tmp_path.glob("*.lock"))) == 2
    other.close()


def test_segments_whose_lock_is_gone_are_orphans(ours: Segments, tmp_path: Path) -> None:
    (tmp_path / "teleworld.0123456789abcdef.7").write_bytes(b"left")
    assert ours.sweep() == 1
    assert segment_files(tmp_path) == []
