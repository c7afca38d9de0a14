"""The ways from outside to the gateway, and what the release says of itself."""

from __future__ import annotations

from teleworld._proto.gateway.v1 import world_service_pb2
from tests.k8s.charts import CHART, MATRIX, named, render, run_helm

WORLD_SERVICE = world_service_pb2.DESCRIPTOR.services_by_name["WorldService"].full_name


def test_the_route_leads_to_the_public_service_alone() -> None:
    objects = render(*MATRIX["gateway-api"])
    route = named(objects, "GRPCRoute", "gateway")["spec"]
    (rule,) = route["rules"]
    assert [match["method"]["service"] for match in rule["matches"]] == [WORLD_SERVICE]
    service = named(objects, "Service", "gateway")
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]
    policy = named(objects, "BackendTLSPolicy", "gateway")["spec"]
    assert policy["validation"]["hostname"] in named(objects, "Certificate", "gateway")["spec"]["dnsNames"]


def test_the_ingress_speaks_grpc_and_waits_for_long_streams() -> None:
    for values, protocol in ((MATRIX["ingress"], "GRPCS"), ((*MATRIX["ingress"], "tls.mode=insecure"), "GRPC")):
        ingress = named(render(*values), "Ingress", "gateway")
        annotations = ingress["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == protocol
        assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 3600
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        assert path["path"] == f"/{WORLD_SERVICE}"
        assert ingress["spec"]["tls"][0]["secretName"] == "public"


def notes(*options: str) -> str:
    done = run_helm("install", "walk", str(CHART), "--dry-run=client", "--namespace", "worlds", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_tell_the_way_in_and_warn() -> None:
    laptop = notes("--values", str(CHART / "values-laptop.yaml"))
    assert "walk-teleworld-gateway.worlds.svc.cluster.local:7400" in laptop
    assert "helm test walk" in laptop
    assert laptop.count("WARNING") == 3
    defaults = notes()
    assert "WARNING" not in defaults
    assert "teleworld-api-keys" in defaults
