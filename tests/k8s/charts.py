"""Rendering the chart with the real Helm, and looking at what came out."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "k8s" / "helm" / "teleworld"
EXAMPLES = ("laptop", "node", "fleet")
SERVICES = ("gateway", "planner", "populator", "reconstructor", "decoder")
WORKERS = SERVICES[1:]
KUBERNETES = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35")
RELEASE, NAMESPACE = "walk", "worlds"

Object = dict[str, Any]

FULL = (
    "telemetry.collector.enabled=true",
    "monitoring.monitor=serviceMonitor",
    "monitoring.rules.enabled=true",
    "monitoring.dashboards.enabled=true",
)
"""Values that switch on all that watches."""

MATRIX: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "insecure": ("tls.mode=insecure", "auth.mode=insecure"),
    "own-secrets": ("tls.mode=secrets", "tls.secrets.gateway=front-door"),
    "own-issuer": ("tls.certManager.issuerRef.name=platform", "tls.certManager.issuerRef.kind=ClusterIssuer"),
    "jwt-by-url": (
        "auth.mode=jwt",
        "auth.jwt.issuer=https://login.example",
        "auth.jwt.jwksUrl=https://login.example/keys",
    ),
    "jwt-by-file": ("auth.mode=both", "auth.jwt.issuer=https://login.example", "auth.jwt.jwksConfigMap=keys"),
    "static": ("discovery.mode=static", "populator.replicas=3"),
    "development-redis": ("redis.mode=development",),
    "development-redis-kept": ("redis.mode=development", "redis.development.storage=5Gi"),
    "redis-secret": ("redis.external.existingSecret=redis-url",),
    "redis-user": (
        "redis.external.username=teleworld",
        "redis.external.passwordSecret=redis",
        "redis.external.caSecret=redis-authority",
    ),
    "redis-plain": ("redis.external.tls=false",),
    "weights-claim": ("model.weights.source=pvc",),
    "weights-own-claim": ("model.weights.source=pvc", "model.weights.pvc.existingClaim=weights"),
    "weights-fetched": (
        "model.weights.source=init",
        "model.weights.init.files[0].path=nano/dit.safetensors",
        "model.weights.init.files[0].url=https://weights.example/dit.safetensors",
        f"model.weights.init.files[0].sha256={'ab' * 32}",
    ),
    "weights-image": ("model.weights.source=image", "model.weights.image.reference=registry.example/weights:1"),
    "gpu": ("defaults.gpu.count=1", "gateway.gpu.count=0", "defaults.gpu.runtimeClassName=nvidia"),
    "keda": tuple(f"{worker}.autoscaling.mode=keda" for worker in WORKERS),
    "keda-insecure": ("populator.autoscaling.mode=keda", "tls.mode=insecure"),
    "hpa": tuple(f"{worker}.autoscaling.mode=hpa" for worker in WORKERS),
    "sized-by-the-gateway": ("populator.autoscaling.mode=gateway", "decoder.autoscaling.mode=gateway"),
    "ingress": ("ingress.enabled=true", "ingress.tlsSecret=public"),
    "gateway-api": ("gatewayApi.enabled=true", "gatewayApi.backendCaConfigMap=authority"),
    "watched": FULL,
    "watched-by-pod": (*FULL[:1], "monitoring.monitor=podMonitor"),
    "own-collector": ("telemetry.endpoint=http://otel.monitoring:4317",),
    "open-network": ("networkPolicy.enabled=false",),
    "bare": (
        "defaults.pdb.enabled=false",
        "defaults.serviceAccount.create=false",
        "defaults.topologySpread.zones=",
        "defaults.topologySpread.nodes=",
    ),
    "triton-beside": (
        "decoder.settings.triton_url=localhost:8001",
        "decoder.extraContainers[0].name=triton",
        "decoder.extraContainers[0].image=registry.example/triton:26.10",
        "decoder.extraContainers[0].imagePullPolicy=IfNotPresent",
        *(f"decoder.extraContainers[0].resources.{kind}.cpu=1" for kind in ("requests", "limits")),
        *(f"decoder.extraContainers[0].resources.{kind}.memory=1Gi" for kind in ("requests", "limits")),
        "decoder.extraContainers[0].securityContext.allowPrivilegeEscalation=false",
        "decoder.extraContainers[0].securityContext.privileged=false",
        "decoder.extraContainers[0].securityContext.readOnlyRootFilesystem=true",
        "decoder.extraContainers[0].securityContext.capabilities.drop[0]=ALL",
        "decoder.extraContainers[0].volumeMounts[0].name=shm",
        "decoder.extraContainers[0].volumeMounts[0].mountPath=/dev/shm",
        "decoder.extraEgress[0].ports[0].port=9999",
    ),
    "close-zone": ("discovery.zonePreference=PreferClose", "discovery.zone=a"),
    "two-weights": (
        "model.previous.enabled=true",
        "model.previous.tag=0.0.9",
        "model.previous.source=pvc",
        "model.previous.existingClaim=old-weights",
        "model.previous.replicas=3",
        "populator.autoscaling.mode=keda",
    ),
    "priority": ("priorityClass.create=true", "planner.priorityClassName=own"),
}
"""Values that are set, as `path=value`, by the name of the case."""

NEEDS = {"weights-image": "1.33", "close-zone": "1.31"}
"""The oldest Kubernetes that a case is for, where it is not the chart's own."""


def load_script(name: str) -> ModuleType:
    """One of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def helm() -> Path:
    """The real Helm; fetched on the first use, if `make setup` has not done so."""
    found: Path = load_script("kubernetes_tools").find("helm")
    return found


def run_helm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Helm command about the chart."""
    return subprocess.run([helm(), command, *arguments], capture_output=True, text=True, timeout=60)


def set_options(values: tuple[str, ...]) -> Iterator[str]:
    """The options that set values."""
    for value in values:
        yield from ("--set-string" if "sha256" in value else "--set", value)


@lru_cache(maxsize=256)
def render(*values: str, example: str | None = None, kubernetes: str = "1.34", release: str = RELEASE) -> list[Object]:
    """The objects of a release with `values` set, over those of an example. Raises AssertionError with Helm's words."""
    options = [*set_options(values), "--kube-version", f"{kubernetes}.0", "--namespace", NAMESPACE]
    if example is not None:
        options += ["--values", str(CHART / f"values-{example}.yaml")]
    done = run_helm("template", release, str(CHART), *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]


def refusal(*values: str, kubernetes: str = "1.34") -> str:
    """What Helm says of values that it must refuse."""
    done = run_helm("template", RELEASE, str(CHART), *set_options(values), "--kube-version", f"{kubernetes}.0")
    assert done.returncode != 0, "these values were accepted"
    return done.stderr


def cases(kubernetes: str = "1.34") -> Iterator[tuple[str, list[Object]]]:
    """The name and the objects of every case of the matrix, and of the examples."""
    for name, values in MATRIX.items():
        if tuple(map(int, NEEDS.get(name, "1.0").split("."))) <= tuple(map(int, kubernetes.split("."))):
            yield name, render(*values, kubernetes=kubernetes)
    for example in EXAMPLES:
        yield example, render(example=example, kubernetes=kubernetes)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The object of a kind whose name ends with `-name`."""
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"].endswith(f"-{name}"))
    return found


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pod templates of all workloads, and the test's pod, by component."""
    found = {}
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        earlier = each["spec"]["template"]["metadata"]["labels"].get("teleworld/generation") == "previous"
        found[component(each) + ("-previous" if earlier else "")] = each["spec"]["template"]
    for each in of_kind(objects, "Pod"):
        found[component(each)] = each
    return found


def component(each: Object) -> str:
    """Which part of the mesh an object belongs to."""
    label: str = each["metadata"]["labels"]["app.kubernetes.io/component"]
    return label


def environment(pod: Object) -> dict[str, Any]:
    """The variables of a pod's first container: the value, or what it is taken from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod["spec"]["containers"][0]["env"]}
