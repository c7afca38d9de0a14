"""Autoscalers own the number of pods alone, look at the right queue, and let what they take away drain."""

from __future__ import annotations

import pytest

from services.gateway.cluster.scaling import Bounds
from services.gateway.scaler import DEFAULT_TARGET
from teleworld._proto.keda.v1 import externalscaler_pb2_grpc
from teleworld.scheduling.tasks import Pool
from tests.k8s.charts import MATRIX, WORKERS, Object, environment, named, of_kind, pods, render


def workload(objects: list[Object], name: str) -> Object:
    return named(objects, "Deployment", name)


@pytest.mark.parametrize(("case", "kind"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_every_pool_can_be_scaled(case: str, kind: str) -> None:
    objects = render(*MATRIX[case])
    for worker in WORKERS:
        target = named(objects, kind, worker)["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", workload(objects, worker)["metadata"]["name"])
    assert len(of_kind(objects, kind)) == len(WORKERS)


def test_replicas_are_written_only_where_nobody_else_owns_them() -> None:
    fixed = render()
    assert {worker: workload(fixed, worker)["spec"].get("replicas") for worker in WORKERS} == {
        "planner": 1, "populator": 2, "reconstructor": 1, "decoder": 1,
    }  # fmt: skip
    mixed = render("populator.autoscaling.mode=keda", "decoder.autoscaling.mode=hpa")
    assert [name for name in WORKERS if "replicas" not in workload(mixed, name)["spec"]] == ["populator", "decoder"]


def test_the_trigger_is_what_the_gateway_answers() -> None:
    objects = render(*MATRIX["keda"], "populator.autoscaling.targetQueueDepth=3")
    service = named(objects, "Service", "gateway-scaler")
    port = service["spec"]["ports"][0]["port"]
    assert environment(pods(objects)["gateway"])["TELEWORLD_GATEWAY_SCALER_PORT"] == str(port)
    assert hasattr(externalscaler_pb2_grpc, "ExternalScalerServicer")
    for worker in WORKERS:
        (trigger,) = named(objects, "ScaledObject", worker)["spec"]["triggers"]
        assert trigger["type"] == "external"
        host, _, told = trigger["metadata"]["scalerAddress"].partition(":")
        assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
        assert told == str(port)
        assert trigger["metadata"]["pool"] == worker
    assert named(objects, "ScaledObject", "populator")["spec"]["triggers"][0]["metadata"]["targetQueueDepth"] == "3"
    assert (
        float(named(objects, "ScaledObject", "decoder")["spec"]["triggers"][0]["metadata"]["targetQueueDepth"])
        == DEFAULT_TARGET
    )


def test_keda_knows_the_gateway_and_holds_no_key_of_it() -> None:
    objects = render(*MATRIX["keda"])
    trigger = named(objects, "ScaledObject", "populator")["spec"]["triggers"][0]
    assert trigger["metadata"]["enableTLS"] == "true"
    authentication = named(objects, "TriggerAuthentication", "scaler")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    certificate = named(objects, "Certificate", "gateway")["spec"]
    host = trigger["metadata"]["scalerAddress"].partition(":")[0]
    assert host in certificate["dnsNames"]
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "caCert", "name": certificate["secretName"], "key": "ca.crt"}
    ]
    plain = render(*MATRIX["keda-insecure"])
    assert not of_kind(plain, "TriggerAuthentication")
    assert named(plain, "ScaledObject", "populator")["spec"]["triggers"][0]["metadata"]["enableTLS"] == "false"


def test_the_alternative_looks_at_the_same_queue() -> None:
    (metric,) = named(render(*MATRIX["hpa"]), "HorizontalPodAutoscaler", "populator")["spec"]["metrics"]
    assert metric["external"]["metric"] == {
        "name": "teleworld_gateway_queue_depth",
        "selector": {"matchLabels": {"pool": "populator", "namespace": "worlds", "release": "walk-teleworld"}},
    }
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "2"}
    own = render(*MATRIX["hpa"], "populator.autoscaling.metricLabels.mesh=m")
    (metric,) = named(own, "HorizontalPodAutoscaler", "populator")["spec"]["metrics"]
    assert metric["external"]["metric"]["selector"] == {"matchLabels": {"pool": "populator", "mesh": "m"}}


def test_the_gateway_may_own_the_number_itself() -> None:
    objects = render(*MATRIX["sized-by-the-gateway"], "decoder.autoscaling.maxReplicas=3")
    told = Bounds.parse(environment(pods(objects)["gateway"])["TELEWORLD_GATEWAY_SCALE"])
    assert told == {
        Pool.POPULATOR: Bounds("walk-teleworld-populator", 1, 8, 2.0, 300.0),
        Pool.DECODER: Bounds("walk-teleworld-decoder", 1, 3, 2.0, 300.0),
    }
    for pool, bounds in told.items():
        deployment = workload(objects, pool.value)
        assert deployment["metadata"]["name"] == bounds.deployment
        assert "replicas" not in deployment["spec"]
    assert not of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    assert "TELEWORLD_GATEWAY_SCALE" not in environment(pods(render())["gateway"])


@pytest.mark.parametrize("case", ["keda", "hpa"])
def test_pods_go_one_at_a_time_and_drain(case: str) -> None:
    objects = render(*MATRIX[case])
    if case == "keda":
        spec = named(objects, "ScaledObject", "populator")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    else:
        spec = named(objects, "HorizontalPodAutoscaler", "populator")["spec"]
    down = spec["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 300
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    pod = pods(objects)["populator"]["spec"]
    drain = int(environment(pods(objects)["populator"])["TELEWORLD_DRAIN_SECONDS"])
    stop = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > stop + drain


def test_a_lost_signal_does_not_take_the_pool_away() -> None:
    scaled = named(render(example="fleet"), "ScaledObject", "populator")["spec"]
    assert scaled["fallback"] == {"failureThreshold": 3, "replicas": 12}
    assert scaled["minReplicaCount"] >= 1
