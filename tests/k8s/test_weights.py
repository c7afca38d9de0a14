"""The init step that fetches weights: the shipped script, run as the pod runs it, against a real HTTP server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.k8s.charts import CHART, MATRIX, WORKERS, environment, named, pods, render

SCRIPT = CHART / "files" / "fetch_weights.py"
CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Source:
    """A server of weights. `faults` are the statuses of the next answers; then it serves `content`."""

    url: str = ""
    content: bytes = CONTENT
    faults: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def source() -> Iterator[Source]:
    served = Source()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            status = served.faults.pop(0) if served.faults else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(served.content) if status == 200 else 0))
            self.end_headers()
            if status == 200:
                self.wfile.write(served.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_port}/dit.safetensors"
        yield served
        server.shutdown()
        thread.join()


Fetch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    (tmp_path / "weights").mkdir()

    def run(*files: dict[str, str]) -> subprocess.CompletedProcess[str]:
        (tmp_path / "files.json").write_text(json.dumps(files))
        command = [sys.executable, "-I", SCRIPT, tmp_path / "files.json", tmp_path / "weights"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


def test_files_are_fetched_once_and_checked_again(tmp_path: Path, source: Source, fetch: Fetch) -> None:
    entry = {"path": "nano/dit.safetensors", "sha256": DIGEST, "url": source.url}
    first, second = fetch(entry), fetch(entry)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert (tmp_path / "weights" / "nano" / "dit.safetensors").read_bytes() == CONTENT
    assert len(source.asked) == 1
    assert "fetched" in first.stdout and "is there" in second.stdout


def test_a_damaged_file_is_replaced(tmp_path: Path, source: Source, fetch: Fetch) -> None:
    target = tmp_path / "weights" / "dit"
    target.write_bytes(CONTENT[:-1])
    assert fetch({"path": "dit", "sha256": DIGEST.upper(), "url": source.url}).returncode == 0
    assert target.read_bytes() == CONTENT


def test_what_has_another_checksum_is_never_seen(tmp_path: Path, source: Source, fetch: Fetch) -> None:
    source.content = b"something else"
    done = fetch({"path": "dit", "sha256": DIGEST, "url": source.url})
    assert done.returncode == 1
    assert DIGEST in done.stderr
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_file_that_nobody_can_fetch_must_be_there(tmp_path: Path, fetch: Fetch) -> None:
    missing = fetch({"path": "dit", "sha256": DIGEST})
    (tmp_path / "weights" / "dit").write_bytes(b"old")
    wrong = fetch({"path": "dit", "sha256": DIGEST})
    assert (missing.returncode, wrong.returncode) == (1, 1)
    assert "is missing" in missing.stderr and "another checksum" in wrong.stderr


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../outside", "", "."])
def test_paths_stay_in_the_folder(tmp_path: Path, source: Source, fetch: Fetch, path: str) -> None:
    done = fetch({"path": path, "sha256": DIGEST, "url": source.url})
    assert done.returncode == 1
    assert source.asked == []
    assert not (tmp_path / "outside").exists()


def test_only_web_addresses_are_fetched(tmp_path: Path, fetch: Fetch) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    assert fetch({"path": "dit", "sha256": DIGEST, "url": secret.as_uri()}).returncode == 1


def test_a_server_that_is_away_is_asked_again_but_not_one_that_refuses(source: Source, fetch: Fetch) -> None:
    source.faults = [503]
    assert fetch({"path": "dit", "sha256": DIGEST, "url": source.url}).returncode == 0
    assert len(source.asked) == 2
    source.faults = [403, 403]
    assert fetch({"path": "vae", "sha256": DIGEST, "url": source.url}).returncode == 1
    assert len(source.asked) == 3


def test_the_pod_runs_this_script_before_the_worker() -> None:
    objects = render(*MATRIX["weights-fetched"])
    held = named(objects, "ConfigMap", "weights")["data"]
    assert held["fetch_weights.py"].strip() == SCRIPT.read_text().strip()
    (entry,) = json.loads(held["files.json"])
    assert entry == {
        "path": "nano/dit.safetensors",
        "url": "https://weights.example/dit.safetensors",
        "sha256": "ab" * 32,
    }
    for worker in WORKERS:
        pod = pods(objects)[worker]
        (step,) = pod["spec"]["initContainers"]
        folders = {mount["mountPath"]: mount for mount in step["volumeMounts"]}
        _, script, listing, target = step["command"]
        assert {str(Path(script).parent), str(Path(listing).parent), target} <= folders.keys()
        assert not folders[target].get("readOnly")
        assert environment(pod)["TELEWORLD_CHECKPOINT"] == target
        mounted = next(each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["mountPath"] == target)
        assert mounted["readOnly"] is True
    assert "initContainers" not in pods(objects)["gateway"]["spec"]


def test_new_weights_roll_the_workers() -> None:
    files = "model.weights.init.files[0].sha256"
    other = tuple(value for value in MATRIX["weights-fetched"] if not value.startswith(files))
    before = pods(render(*MATRIX["weights-fetched"]))["planner"]["metadata"]["annotations"]["checksum/weights"]
    after = pods(render(*other, f"{files}={'cd' * 32}"))["planner"]["metadata"]["annotations"]["checksum/weights"]
    assert before != after


@pytest.mark.parametrize(
    ("case", "volume"),
    [
        ("weights-claim", {"persistentVolumeClaim": {"claimName": "walk-teleworld-weights", "readOnly": True}}),
        ("weights-own-claim", {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}),
        ("weights-image", {"image": {"reference": "registry.example/weights:1", "pullPolicy": "IfNotPresent"}}),
    ],
)
def test_weights_may_come_from_elsewhere(case: str, volume: dict[str, object]) -> None:
    objects = render(*MATRIX[case])
    pod = pods(objects)["decoder"]
    (found,) = (each for each in pod["spec"]["volumes"] if each["name"] == "weights")
    assert found == {"name": "weights", **volume}
    claims = [each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"]
    assert claims == (["walk-teleworld-weights"] if case == "weights-claim" else [])


def test_without_a_source_the_images_weights_are_used() -> None:
    pod = pods(render())["decoder"]
    assert "TELEWORLD_CHECKPOINT" not in environment(pod)
    assert "weights" not in [each["name"] for each in pod["spec"]["volumes"]]


def test_workers_with_the_weights_before_stay_beside_the_new_ones() -> None:
    objects = render(*MATRIX["two-weights"])
    parts = pods(objects)
    for worker in WORKERS:
        now, then = parts[worker], parts[f"{worker}-previous"]
        (volume,) = (each for each in then["spec"]["volumes"] if each["name"] == "weights")
        assert volume["persistentVolumeClaim"]["claimName"] == "old-weights"
        assert environment(then)["TELEWORLD_CHECKPOINT"] == "/weights"
        assert "TELEWORLD_CHECKPOINT" not in environment(now)
        assert then["spec"]["containers"][0]["image"].endswith(":0.0.9")
        assert not now["spec"]["containers"][0]["image"].endswith(":0.0.9")
        selector = named(objects, "Service", worker)["spec"]["selector"]
        assert selector.items() <= now["metadata"]["labels"].items() & then["metadata"]["labels"].items()
        assert named(objects, "Deployment", f"{worker}-previous")["spec"]["replicas"] == 3
    assert "replicas" not in named(objects, "Deployment", "populator")["spec"]
    (scaled,) = (each for each in objects if each["kind"] == "ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"].endswith("-populator")
    assert "gateway-previous" not in parts
