"""Dockerfiles, the bake file and the compose file: linted, and true to the tree, the chart and the settings."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from tests.k8s.charts import CHART, ROOT, SERVICES, environment, pods, render
from tests.k8s.test_settings import SETTINGS

DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
BAKE = json.loads((DOCKER / "bake.json").read_text())
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def all_of(path: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == word]


def in_context(path: str) -> bool:
    """Whether .dockerignore, which allows by name, lets a path through."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return any(path == name or path.startswith(f"{name}/") for name in allowed)


def test_there_is_an_image_for_every_service_from_one_base() -> None:
    assert [path.name.removesuffix(".Dockerfile") for path in FILES] == sorted([*SERVICES, "base", "train"])
    for path in FILES:
        if path.name != "base.Dockerfile":
            assert all_of(path, "FROM") == ["${BASE}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    tool = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([tool, "--no-color", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_sent(path: Path) -> None:
    for copied in all_of(path, "COPY"):
        *sources, _ = shlex.split(copied)
        if any(source.startswith("--from=") for source in sources):
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert in_context(source), f"{source} is not in .dockerignore's list"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_images_run_as_nobody_in_particular_and_take_no_shell(path: Path) -> None:
    user = all_of(path, "USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert int(user.split(":")[0]) == pods(render())["planner"]["spec"]["securityContext"]["runAsUser"]
    for command in all_of(path, "CMD") + all_of(path, "ENTRYPOINT"):
        assert isinstance(json.loads(command), list)
    assert not all_of(path, "ADD")


def test_base_images_are_pinned_by_version() -> None:
    stages = {line.split(" AS ")[1] for line in all_of(DOCKER / "base.Dockerfile", "FROM")}
    for line in all_of(DOCKER / "base.Dockerfile", "FROM"):
        image = line.split(" AS ")[0]
        assert image in stages or "${" in image or re.search(r":\d+\.\d+", image), image
    assert {"system-cpu", "system-cuda", "build-cpu", "build-cuda", "requirements", "base"} == stages


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_listens_where_the_chart_expects_it(service: str) -> None:
    path = DOCKER / f"{service}.Dockerfile"
    container = pods(render())[service]["spec"]["containers"][0]
    exposed = {int(port) for line in all_of(path, "EXPOSE") for port in line.split()}
    assert exposed == {port["containerPort"] for port in container["ports"]}
    assert json.loads(all_of(path, "CMD")[0]) == container["args"]
    variables = dict(pair.split("=") for line in all_of(path, "ENV") for pair in line.split())
    told = environment(pods(render())[service])
    assert {name: told[name] for name in variables} == variables


def test_bake_builds_every_service_for_both_kinds_of_machine() -> None:
    targets: dict[str, Any] = BAKE["target"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for variant, suffix in (("cpu", ""), ("cuda", "-cuda")):
        tags = {tag for name in BAKE["group"][variant]["targets"] for tag in targets[name]["tags"]}
        # The gateway computes nothing: its image is the same beside CPU and GPU workers.
        assert tags == {
            f"${{REGISTRY}}teleworld/{service}:${{TAG}}{'' if service == 'gateway' else suffix}" for service in SERVICES
        }
    for name, target in targets.items():
        assert (ROOT / target["dockerfile"]).is_file()
        for base in target.get("contexts", {}).values():
            assert base.removeprefix("target:") in targets
        if name.startswith("base-"):
            assert set(target["args"]["EXTRAS"].split(",")) <= set(extras)
            assert target["target"] in [line.split(" AS ")[1] for line in all_of(DOCKER / "base.Dockerfile", "FROM")]
    assert BAKE["variable"]["TAG"]["default"] == VERSION


def test_the_chart_asks_for_the_images_that_are_built() -> None:
    built = {
        tag.replace("${REGISTRY}", "").replace("${TAG}", VERSION)
        for target in BAKE["target"].values()
        for tag in target.get("tags", [])
    }
    for example in (None, "laptop", "node"):
        parts = pods(render(example=example))
        assert {parts[service]["spec"]["containers"][0]["image"] for service in SERVICES} <= built


def test_the_gateways_image_has_no_network_code() -> None:
    """What its module imports, and the command line of `helm test`, is there without PyTorch."""
    code = "import sys, services.gateway.__main__, teleworld.cli.generate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "numba", "safetensors", "triton"}
    assert "redis" in loaded


def test_compose_runs_a_whole_mesh_on_this_machine_alone() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["cpus"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for need in service.get("depends_on", {}):
            assert need in services, name
        if name != "redis":
            assert service["image"].endswith(f":{VERSION}"), name
    assert {
        service["image"].split("/")[1].split(":")[0] for name, service in services.items() if name != "redis"
    } == set(SERVICES)


def test_compose_sets_what_the_services_read() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    ports = {service: environment(pods(render())[service]) for service in SERVICES}
    for name, service in services.items():
        part = re.sub(r"-\d+$", "", name)
        for variable in service.get("environment", {}):
            prefix = SETTINGS[part].model_config["env_prefix"]
            assert variable.removeprefix(prefix).lower() in SETTINGS[part].model_fields, variable
    for variable, listed in services["gateway"]["environment"].items():
        if variable.endswith("_ADDRESSES"):
            for address in listed.split(","):
                host, _, port = address.partition(":")
                assert host in services
                assert port == ports[re.sub(r"-\d+$", "", host)]["TELEWORLD_PORT"]


def test_nothing_private_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    for path in (".git", ".venv", "tests", "runs", "out", "k8s", "docker/compose.yaml"):
        assert not in_context(path)
    assert any(fnmatch.fnmatch("__pycache__", PurePosixPath(line).name) for line in lines)
