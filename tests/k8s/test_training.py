"""The chart for training on KubeRay: confined pods, the paper's ratio of GPUs where it is asked for, and commands that exist."""

from __future__ import annotations

import argparse
import json
import shlex
import tomllib
from typing import Any

import pytest
import yaml

from teleworld.cli import train
from tests.k8s.charts import ROOT, run_helm

TRAINING = ROOT / "k8s" / "training"
CHART = ROOT / "k8s" / "helm" / "teleworld-training"
DISTILLATION = ("--values", str(CHART / "values-distillation.yaml"))
RATIO = {"generator": 4, "critic": 1, "teacher": 1}


def objects(name: str) -> dict[str, Any]:
    """The committed manifests of a file, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((TRAINING / f"{name}.yaml").read_text())}


def cluster(name: str) -> dict[str, Any]:
    found = objects(name)
    spec: dict[str, Any] = (
        found["RayJob"]["spec"]["rayClusterSpec"] if name == "rayjob" else found["RayCluster"]["spec"]
    )
    return spec


def rendered(*options: str) -> dict[str, Any]:
    """The objects of a release named `run`, by kind."""
    done = run_helm("template", "run", str(CHART), *options)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


def words(*options: str) -> list[str]:
    """What a job with these values runs, as a shell reads it."""
    return shlex.split(rendered(*options)["RayJob"]["spec"]["entrypoint"])


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_a_group_has_as_many_of_its_role_as_gpus(name: str) -> None:
    for group in cluster(name)["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        gpus = resources["limits"].get("nvidia.com/gpu", 0)
        assert int(group["rayStartParams"]["num-gpus"]) == gpus
        # Ray wants JSON inside of a string of the shell.
        assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {group["groupName"]: max(1, gpus)}
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
        image = group["template"]["spec"]["containers"][0]["image"]
        assert image.endswith("-cuda") == (gpus > 0)


def test_generator_critic_and_teacher_have_the_papers_share_of_gpus() -> None:
    gpus = {
        group["groupName"]: group["replicas"] * int(group["rayStartParams"]["num-gpus"])
        for group in cluster("raycluster")["workerGroupSpecs"]
    }
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


def test_pods_talk_to_each_other_alone() -> None:
    found = objects("rayjob")
    policy, job = found["NetworkPolicy"]["spec"], found["RayJob"]["spec"]["rayClusterSpec"]
    own = policy["podSelector"]["matchLabels"]
    for group in (job["headGroupSpec"], *job["workerGroupSpecs"]):
        assert own.items() <= group["template"]["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"][0] == {"from": [{"podSelector": {"matchLabels": own}}]}
    assert [rule["ports"] for rule in policy["ingress"][1:]] == [[{"protocol": "TCP", "port": 8265}]]
    assert {port["port"] for rule in policy["egress"][1:] for port in rule["ports"]} == {53}
    assert "NetworkPolicy" not in rendered("--set", "networkPolicy.enabled=false")


@pytest.mark.parametrize("network", train.NETWORKS)
def test_the_job_runs_a_command_that_exists(network: str) -> None:
    options = ("--set", f"job.network={network}", "--set-json", 'job.arguments=["--seed", "7"]')
    python, flag, module, command, *arguments = words(*options)
    assert (python, flag, module, command) == ("python", "-m", "teleworld.cli.main", "train")
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    chosen = parser.parse_args(arguments)
    assert (chosen.network, chosen.model, chosen.seed) == (network, "nano", 7)
    spec = rendered(*options)["RayJob"]["spec"]
    (container,) = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert str(chosen.data) in mounts
    assert not mounts[str(chosen.runs)].get("readOnly")
    assert spec["activeDeadlineSeconds"] > 60 * chosen.minutes
    assert chosen.threads == int(container["resources"]["limits"]["cpu"])
    groups = {group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]}
    assert set(json.loads(spec["entrypointResources"])) <= groups


def test_a_command_of_ones_own_reaches_the_shell_as_it_is() -> None:
    own = ["python", "-m", "ours", "it's; $HOME", "a b"]
    assert words("--set-json", f"job.command={json.dumps(own)}") == own


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("--set", "job.network=everything"), "/job/network"),
        (("--set", "job.group=teacher"), "job.group"),
        (("--set", "job.deadlineSeconds=60"), "job.deadlineSeconds"),
        (("--set", "workers.trainer.gpu=1"), "/workers/trainer"),
        (("--set", "bogus=1"), "bogus"),
    ],
)
def test_wrong_values_are_refused_by_name(values: tuple[str, ...], named: str) -> None:
    done = run_helm("template", "run", str(CHART), *values)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize("options", [(), DISTILLATION, ("--set", "networkPolicy.enabled=false")])
def test_the_chart_is_lint_clean(options: tuple[str, ...]) -> None:
    done = run_helm("lint", "--strict", str(CHART), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout and "ERROR" not in done.stdout
