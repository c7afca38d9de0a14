"""Every object that the chart renders is valid, strictly, for every Kubernetes that the chart is for."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.k8s import schemas
from tests.k8s.charts import EXAMPLES, KUBERNETES, ROOT, cases, named, render


@pytest.mark.parametrize("version", KUBERNETES)
def test_examples_are_valid_in_every_version(version: str) -> None:
    for example in EXAMPLES:
        found = [
            fault for each in render(example=example, kubernetes=version) for fault in schemas.faults(each, version)
        ]
        assert found == [], example


def test_the_matrix_is_valid() -> None:
    for name, objects in cases():
        assert [fault for each in objects for fault in schemas.faults(each, "1.34")] == [], name


def test_training_manifests_are_valid() -> None:
    for path in sorted((ROOT / "k8s" / "training").glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            assert schemas.faults(each, "1.34") == (), path.name


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "planner", ("spec", "replica"), 1),
        ("Deployment", "planner", ("spec", "template", "spec", "containers", 0, "livenes"), {}),
        ("NetworkPolicy", "planner", ("spec", "ingress", 0, "ports", 0, "protocol"), 6),
        ("ScaledObject", "populator", ("spec", "maxReplicas"), 3),
        ("ScaledObject", "populator", ("spec", "triggers", 0, "metadata", "targetQueueDepth"), 2),
        ("PodMonitor", "collector", ("spec", "endpoints"), []),
        ("PrometheusRule", "mesh", ("spec", "groups", 0, "rules", 0, "for"), "soon"),
        ("GRPCRoute", "gateway", ("spec", "rules", 0, "matches", 0, "path"), {"value": "/"}),
        ("Certificate", "planner", ("spec", "privateKey", "algorithm"), "DSA"),
    ],
)
def test_a_fault_is_found(kind: str, name: str, path: tuple[str | int, ...], value: object) -> None:
    """Each schema rejects what it should; without this, a schema that accepts everything would pass."""
    each = copy.deepcopy(named(render(example="fleet"), kind, name))
    assert schemas.faults(each, "1.34") == ()
    place = each
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert schemas.faults(each, "1.34")


def test_unknown_kinds_are_no_pass() -> None:
    with pytest.raises(schemas.UnknownKind):
        schemas.faults({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}, "1.34")


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_public_validator_agrees(example: str) -> None:
    """kubernetes-validate answers an unknown kind with a WARN and success: only our custom resources may be unknown."""
    command = [Path(sys.executable).parent / "kubernetes-validate", "--strict", "-k", "1.35"]
    done = subprocess.run(
        [*command, ROOT / "k8s" / "manifests" / f"{example}.yaml"], capture_output=True, text=True, timeout=60
    )
    lines = (done.stdout + done.stderr).splitlines()
    known = [tuple(key.split()) for key in schemas.custom_kinds()]
    warned = [line for line in lines if line.startswith("WARN")]
    strange = [line for line in warned if not any(api in line and kind in line for api, kind in known)]
    assert done.returncode == 0, done.stdout
    assert strange == []
    assert not [line for line in lines if "ERROR" in line or "FAIL" in line]
