"""The manifests for training on KubeRay: the paper's ratio of GPUs, confined pods, and a command that exists."""

from __future__ import annotations

import argparse
import json
import shlex
import tomllib
from typing import Any

import pytest
import yaml

from teleworld.cli import train
from tests.k8s.charts import ROOT

TRAINING = ROOT / "k8s" / "training"
RATIO = {"generator": 4, "critic": 1, "teacher": 1}


def cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((TRAINING / f"{name}.yaml").read_text())["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_generator_critic_and_teacher_have_the_papers_share_of_gpus(name: str) -> None:
    gpus = {}
    for group in cluster(name)["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        each = resources["limits"]["nvidia.com/gpu"]
        assert int(group["rayStartParams"]["num-gpus"]) == each
        # Ray wants JSON inside of a string of the shell.
        roles = json.loads(json.loads(group["rayStartParams"]["resources"]))
        assert roles == {group["groupName"]: each}
        gpus[group["groupName"]] = group["replicas"] * each
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    assert {role: count / gpus["critic"] for role, count in gpus.items()} == RATIO


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods_are_confined_and_agree_with_the_image(name: str) -> None:
    spec = cluster(name)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"ray=={spec['rayVersion']}" in [entry.replace("[default]", "") for entry in extras["train"]]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_the_job_runs_a_command_that_exists() -> None:
    spec = yaml.safe_load((TRAINING / "rayjob.yaml").read_text())["spec"]
    python, flag, module, command, *arguments = shlex.split(spec["entrypoint"])
    assert (python, flag, module, command) == ("python", "-m", "teleworld.cli.main", "train")
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    options = parser.parse_args(arguments)
    mounts = {
        mount["mountPath"]: mount
        for mount in spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert str(options.data) in mounts
    assert not mounts[str(options.runs)].get("readOnly")
    assert spec["activeDeadlineSeconds"] > 60 * options.minutes
    roles = {group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]}
    assert set(json.loads(spec["entrypointResources"])) <= roles
