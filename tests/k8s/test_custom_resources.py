"""Custom resources against validators that others generated from the projects' own definitions, where Node.js is at hand.

Our own schemas (`custom_resources.yaml`) are always checked; this says that they do not dream.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.charts import Object, cases, named, render

CACHE = Path.home() / ".cache" / "teleworld-tests" / "validators"
SCRIPT = Path(__file__).with_name("validate_custom_resources.mjs")
PACKAGES = {"keda": "0.4.2", "prometheus-operator": "6.0.0", "gateway-api": "2.0.0", "cert-manager": "4.4.4"}
GROUPS = ("keda.sh", "monitoring.coreos.com", "gateway.networking.k8s.io", "cert-manager.io")


@lru_cache(maxsize=1)
def validators() -> Path | None:
    """A folder with the script and the packages that it needs; None where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    wanted = [f"@kubernetes-models/{name}@{version}" for name, version in PACKAGES.items()]
    stamp = CACHE / "installed"
    if not stamp.is_file() or stamp.read_text() != " ".join(wanted):
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text("{}")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *wanted]
        done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            return None
        stamp.write_text(" ".join(wanted))
    shutil.copy(SCRIPT, CACHE)
    return CACHE


def complaints(objects: list[Object]) -> list[str]:
    folder = validators()
    if folder is None:
        pytest.skip("NO NODE.JS, or its packages cannot be had: custom resources are checked by our own schemas ALONE")
    done = subprocess.run(
        ["node", SCRIPT.name], cwd=folder, input=json.dumps(objects), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_custom_resources_are_what_their_projects_define() -> None:
    found = {
        json.dumps(each): each
        for _, objects in cases()
        for each in objects
        if each["apiVersion"].split("/")[0] in GROUPS
    }
    kinds = {each["kind"] for each in found.values()}
    assert kinds == {
        "ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor", "PrometheusRule", "GRPCRoute",
        "BackendTLSPolicy", "Certificate", "Issuer",
    }  # fmt: skip
    assert complaints(list(found.values())) == []


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("ScaledObject", "populator", ("spec", "maxReplicaCount"), "many"),
        ("PodMonitor", "collector", ("spec", "podMetricsEndpoints"), "metrics"),
        ("GRPCRoute", "gateway", ("spec", "rules"), [{"backendRefs": [{"port": 1}]}]),
        ("Certificate", "planner", ("spec", "privateKey"), {"algorithm": "DSA"}),
    ],
)
def test_a_fault_is_found(kind: str, name: str, path: tuple[str, ...], value: Any) -> None:
    each = copy.deepcopy(named(render(example="fleet"), kind, name))
    place = each
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert complaints([each])
