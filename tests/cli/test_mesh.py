"""A mesh of real processes: it serves, survives a dead worker, makes what the in-process engine makes, and ends clean."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import av
import psutil
import pytest

from teleworld.cli.generate import script_to_controls
from teleworld.cli.main import main
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.client import Attached, Chunk, Pace, WorldClient
from teleworld.world.errors import InvalidInput, Unavailable
from teleworld.world.spec import NANO

SCRIPT = "W*0.5s W+RIGHT*0.5s .*0.2s"


def walked(report: Path) -> list[tuple[str, int]]:
    chunks = json.loads(report.read_text())["chunks"]
    return [(chunk["latent_sha256"], chunk["control_seq"]) for chunk in chunks]


async def generate(environment: dict[str, str], picture: Path, folder: Path, name: str, *more: str) -> Path:
    """`teleworld generate` as a process of its own; the path of its report."""
    report = folder / f"{name}.json"
    command = [
        "generate",
        "--image",
        str(picture),
        "--keys",
        SCRIPT,
        "--seed",
        "3",
        "--out",
        str(folder / f"{name}.mp4"),
    ]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "teleworld.cli.main", *command, "--report", str(report), *more,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == 0, err.decode()
    assert "between chunks" in out.decode()
    return report


async def walk_past_a_dead_gateway(client: WorldClient, name: str, mesh: LocalMesh) -> list[tuple[str, int]]:
    """The chunks of a walk in whose middle the gateway is killed."""
    controls, chunks = script_to_controls(SCRIPT, NANO)
    seen, attached = [], 0
    async with asyncio.timeout(120), client.walk(name, pace=Pace.MAX, until=chunks - 1, credit=2) as walk:
        for control in controls:
            walk.hold(control.keys, chunk=control.chunk)
        async for event in walk:
            if isinstance(event, Attached):
                attached += 1
            if isinstance(event, Chunk):
                assert event.index == len(seen)
                seen.append((event.latent_sha256, event.control_sequence))
                pid = mesh.processes["gateway"].pid
                if event.index == chunks // 2 and pid is not None:
                    os.kill(pid, signal.SIGKILL)
    assert attached == 2
    return seen


@pytest.mark.timeout(600)
async def test_a_mesh_from_start_to_end(environment: dict[str, str], checkpoint: Path, picture: Path, tmp_path: Path):
    lines: list[str] = []
    config = MeshConfig(checkpoint=checkpoint, logs=tmp_path / "logs")
    async with LocalMesh(config, lines.append) as mesh:
        running = {name: process.pid for name, process in mesh.processes.items()}
        assert sorted(running) == [
            "decoder", "gateway", "planner", "populator-1", "populator-2", "reconstructor", "redis",
        ]  # fmt: skip
        before = await generate(environment, picture, tmp_path, "before", "--gateway", mesh.address)

        victim = mesh.processes["populator-1"]
        address, pid = victim.address, victim.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        live = ("--gateway", mesh.address, "--live-keys", "W*0.5s D*0.5s")
        after = await generate(environment, picture, tmp_path, "after", *live)
        async with asyncio.timeout(60):
            while victim.pid in (None, pid):  # noqa: ASYNC110 - another process tells no event
                await asyncio.sleep(0.05)
        assert victim.address == address
        assert any("populator-1 died (SIGKILL)" in line for line in lines)

        async with WorldClient(mesh.address) as client:
            world = await client.create_world(picture.read_bytes(), seed=3)
            replaced = await walk_past_a_dead_gateway(client, world.name, mesh)
        pids = [process.pid for process in mesh.processes.values() if process.pid is not None]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert (tmp_path / "logs" / "gateway.log").stat().st_size > 0

    alone = await generate(environment, picture, tmp_path, "alone", "--in-process", "--checkpoint", str(checkpoint))
    assert walked(before) == walked(alone)
    assert walked(after)[: len(walked(alone))] == walked(alone), "a worker that was killed changes nothing"
    assert replaced == walked(alone), "a gateway that was killed loses and repeats nothing"

    report = json.loads(after.read_text())
    assert report["key_to_frame_ms"]["p50"] > 0
    assert report["fps_playback"] <= 17.5
    assert [chunk["index"] for chunk in report["chunks"]] == list(range(len(report["chunks"])))
    with av.open(str(tmp_path / "after.mp4")) as video:
        frames = list(video.decode(video=0))
    assert len(frames) == report["frames"]
    assert (frames[0].width, frames[0].height) == (report["width"], report["height"])


async def test_up_serves_until_it_is_interrupted_and_leaves_nothing_behind(
    environment: dict[str, str], checkpoint: Path, tmp_path: Path
):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "teleworld.cli.main", "up", "--port", "0", "--populators", "1",
        "--checkpoint", str(checkpoint), "--logs", str(tmp_path),
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(120):
        while not re.search(rb"walk with: teleworld generate --gateway 127.0.0.1:\d+", await child.stdout.readline()):
            assert child.returncode is None
    children = psutil.Process(child.pid).children(recursive=True)
    assert len(children) >= 6
    child.send_signal(signal.SIGINT)
    rest = await asyncio.wait_for(child.stdout.read(), 60)
    assert await child.wait() == 0
    assert b"draining" in rest
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


async def test_a_launcher_that_is_killed_takes_its_services_with_it(
    environment: dict[str, str], checkpoint: Path, tmp_path: Path
):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "teleworld.cli.main", "up", "--port", "0", "--checkpoint", str(checkpoint),
        "--logs", str(tmp_path), env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(60):
        while b"redis serves" not in await child.stdout.readline():
            assert child.returncode is None
    children = psutil.Process(child.pid).children(recursive=True)
    assert children
    child.kill()
    await child.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


async def test_a_service_that_cannot_run_is_told_with_its_last_words(tmp_path: Path):
    (tmp_path / "nano").mkdir()
    with pytest.raises(Unavailable) as caught:
        async with LocalMesh(MeshConfig(checkpoint=tmp_path, logs=tmp_path / "logs")):
            pass
    assert "stopped (status 2)" in caught.value.message
    assert "safetensors" in caught.value.message
    assert str(tmp_path / "logs") in caught.value.message


def test_a_gateway_that_is_away_is_exit_code_3(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--image", str(picture), "--keys", "W*1s", "--out", str(tmp_path / "walk.mp4")]
    code = main(["generate", *options, "--gateway", "127.0.0.1:1", "--patience", "0"])
    assert code == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_needs_a_populator():
    with pytest.raises(InvalidInput) as caught:
        MeshConfig(populators=0)
    assert caught.value.field == "populators"
