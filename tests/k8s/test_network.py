"""Who may talk to whom: the rendered NetworkPolicies, evaluated, against the arrows of the design."""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s.charts import MATRIX, NAMESPACE, SERVICES, WORKERS, Object, cases, of_kind, pods, render

OUTSIDE = {"kubernetes.io/metadata.name": "elsewhere"}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector picks these labels; the empty one picks all."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
        if each["operator"] == "In"
    )


class Cluster:
    """The pods of a release and what its policies let through."""

    def __init__(self, objects: list[Object]) -> None:
        self.pods = pods(objects)
        self.policies = of_kind(objects, "NetworkPolicy")

    def labels(self, part: str) -> dict[str, str]:
        found: dict[str, str] = self.pods[part]["metadata"]["labels"]
        return found

    def ports(self, part: str) -> dict[str, int]:
        container = self.pods[part]["spec"]["containers"][0]
        return {port["name"]: port["containerPort"] for port in container.get("ports", [])}

    def _rules(self, part: str, direction: str) -> list[Object] | None:
        """The rules that apply to a pod; None when no policy does, which allows everything."""
        mine = [each["spec"] for each in self.policies if matches(each["spec"]["podSelector"], self.labels(part))]
        mine = [spec for spec in mine if direction.title() in spec["policyTypes"]]
        return [rule for spec in mine for rule in spec.get(direction, [])] if mine else None

    def _allows(
        self, rules: list[Object] | None, peers: str, other: str | None, port: int, names: dict[str, int]
    ) -> bool:
        if rules is None:
            return True
        for rule in rules:
            if "ports" in rule and port not in [names.get(str(each["port"]), each["port"]) for each in rule["ports"]]:
                continue
            if peers not in rule:
                return True
            for peer in rule[peers]:
                if other is None and matches(peer.get("namespaceSelector", {"matchLabels": {"no": "no"}}), OUTSIDE):
                    return True
                local = "podSelector" in peer and "namespaceSelector" not in peer
                if other is not None and local and matches(peer["podSelector"], self.labels(other)):
                    return True
        return False

    def reaches(self, source: str | None, target: str, port: str) -> bool:
        """Whether a pod, or somebody outside (None), may connect to a port of another."""
        number = self.ports(target)[port]
        enters = self._allows(self._rules(target, "ingress"), "from", source, number, self.ports(target))
        if source is None:
            return enters
        return enters and self._allows(self._rules(source, "egress"), "to", target, number, {})


ARROWS = {
    *(("gateway", worker, "grpc") for worker in WORKERS),
    *((service, "redis", "redis") for service in ("gateway", "planner", "reconstructor")),
    *((service, "collector", "otlp") for service in SERVICES),
    ("test", "gateway", "grpc"),
}


def test_the_arrows_of_the_design_and_no_others() -> None:
    cluster = Cluster(render(*MATRIX["development-redis"], *MATRIX["watched"]))
    ends = [(target, port) for target in cluster.pods for port in cluster.ports(target)]
    allowed = {
        (source, target, port)
        for source in cluster.pods
        for target, port in ends
        if source != target and cluster.reaches(source, target, port)
    }
    assert allowed == ARROWS


def test_only_clients_and_named_namespaces_come_in() -> None:
    cluster = Cluster(render(*MATRIX["watched"]))
    outside = {
        (target, port)
        for target in cluster.pods
        for port in cluster.ports(target)
        if cluster.reaches(None, target, port)
    }
    assert outside == {("gateway", "grpc")}


def test_clients_can_be_named() -> None:
    values = ("networkPolicy.clients[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=front",)
    cluster = Cluster(render(*values))
    assert not cluster.reaches(None, "gateway", "grpc")
    assert cluster.reaches("test", "gateway", "grpc")


@pytest.mark.parametrize("case", ["defaults", "jwt-by-url", "weights-fetched", "own-collector"])
def test_ways_out_of_the_cluster_are_few(case: str) -> None:
    """Which ports of the wide world a pod may dial."""
    expected: dict[str, set[int]] = {service: set() for service in SERVICES}
    expected["gateway"] |= {443, 6443, 6379}
    for service in ("planner", "reconstructor"):
        expected[service] |= {6379}
    if case == "weights-fetched":
        for worker in WORKERS:
            expected[worker].add(443)
    if case == "own-collector":
        for service in SERVICES:
            expected[service].add(4317)
    cluster = Cluster(render(*MATRIX[case]))
    for service in SERVICES:
        rules = cluster._rules(service, "egress")
        assert rules is not None
        ways = {
            each["port"]
            for rule in rules
            if any("ipBlock" in peer for peer in rule.get("to", []))
            for each in rule["ports"]
        }
        assert ways == expected[service]


def test_everything_may_ask_dns() -> None:
    for name, objects in cases():
        cluster = Cluster(objects)
        for part in cluster.pods:
            if part != "redis" and name != "open-network":
                rules = cluster._rules(part, "egress")
                assert rules and any({"protocol": "UDP", "port": 53} in rule.get("ports", []) for rule in rules), (
                    name,
                    part,
                )


def test_everything_is_denied_first() -> None:
    for name, objects in cases():
        if name == "open-network":
            assert not of_kind(objects, "NetworkPolicy")
            continue
        (deny,) = (each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"].endswith("-mesh"))
        assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in deny["spec"] and "egress" not in deny["spec"]
        assert deny["metadata"]["namespace"] == NAMESPACE
        for part, pod in pods(objects).items():
            assert matches(deny["spec"]["podSelector"], pod["metadata"]["labels"]), (name, part)
