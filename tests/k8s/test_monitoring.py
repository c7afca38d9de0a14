"""Dashboards, the collector, and what every query names: metrics, labels and a release that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.k8s.charts import (
    FULL,
    NAMESPACE,
    RELEASE,
    ROOT,
    SERVICES,
    environment,
    named,
    of_kind,
    pods,
    render,
)
from tests.k8s.rules import section, the_rules

SUFFIXES = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}


def documented() -> dict[str, tuple[str, set[str]]]:
    """The metrics of the table, as Prometheus names them: kind and labels."""
    found = {}
    for name, kind, labels in re.findall(r"^\| `([\w.]+)` \|([^|]+)\|([^|]*)\|", section("Metrics"), re.MULTILINE):
        sort, _, unit = kind.strip().partition(", ")
        words = [
            name.replace(".", "_"),
            *([SUFFIXES[unit]] if unit in SUFFIXES else []),
            *(["total"] if sort == "counter" else []),
        ]
        keys = {*re.findall(r"`(\w+)`", labels), "job", "instance", "namespace", "release"}
        full = "_".join(words)
        for suffix in ("_bucket", "_sum", "_count") if sort == "histogram" else ("",):
            found[full + suffix] = (sort, keys | ({"le"} if suffix == "_bucket" else set()))
    return found


def expressions() -> list[tuple[str, str]]:
    """Every query of the rules and the dashboards, with where it stands."""
    found = [(rule.get("alert", rule.get("record")), rule["expr"]) for group in the_rules() for rule in group["rules"]]
    for name, board in dashboards().items():
        found += [
            (f"{name}/{panel['title']}", target["expr"])
            for panel in board["panels"]
            for target in panel.get("targets", [])
        ]
    return found


def dashboards() -> dict[str, Any]:
    maps = [each for each in of_kind(render(*FULL), "ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]
    return {name: json.loads(text) for each in maps for name, text in each["data"].items()}


def test_every_query_looks_at_one_release() -> None:
    """Also where a collector of one's own labels the series otherwise."""
    for place, query in expressions():
        ours = r"\b(?:teleworld[_:]|rpc_server_)[\w:]+"
        assert len(re.findall(ours, query)) == len(re.findall(ours + r"\{[^}]*release=~?[^}]*\}", query)), place
    own = [rule for group in the_rules(RELEASE, 'monitoring.selector=mesh="m"') for rule in group["rules"]]
    raw = [rule["expr"] for rule in own if re.search(r"\bteleworld_", rule["expr"])]
    assert raw and all('mesh="m"' in query and "release=" not in query for query in raw)


def test_queries_name_metrics_and_labels_that_are_documented() -> None:
    known = documented()
    records = {rule["record"] for group in the_rules() for rule in group["rules"] if "record" in rule}
    assert len(known) > 20
    for place, query in expressions():
        bare = re.sub(r'"[^"]*"', '""', query)
        names = re.findall(r"\b(?:teleworld|rpc_server)[\w:]*", bare)
        assert names or re.search(r"\b(?:kube|certmanager)_", bare), f"{place} asks for nothing that is known"
        assert set(names) <= known.keys() | records, place
        ours = [name for name in known if re.search(rf"\b{name}\b", bare)]
        labels = {label for name in ours for label in known[name][1]}
        used = {label for listed in re.findall(r"by \(([^)]*)\)", bare) for label in re.split(r", *", listed)}
        used |= {label for listed in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)=~?", listed)}
        if ours:
            assert used <= labels, f"{place}: {used - labels}"


RECORD = """
import sys
from opentelemetry import metrics

class Meter(metrics.NoOpMeter):
    def __getattribute__(self, name):
        made = super().__getattribute__(name)
        if not name.startswith("create_"):
            return made
        def create(instrument, *arguments, **options):
            print(instrument)
            return made(instrument, *arguments, **options)
        return create

class Provider(metrics.NoOpMeterProvider):
    def get_meter(self, name, *arguments, **options):
        return Meter(name)

metrics.set_meter_provider(Provider())
import importlib, pkgutil, services.common, services.gateway.metrics, teleworld.rpc, teleworld.telemetry.pauses
for package in (services.common, teleworld.rpc):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from unittest.mock import MagicMock
services.gateway.metrics.observe(MagicMock())
"""


def test_every_instrument_is_documented() -> None:
    """What the services create, as the API is asked for it, is in the table under its own name."""
    done = subprocess.run([sys.executable, "-c", RECORD], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    made = set(done.stdout.split())
    assert {"teleworld.gateway.chunks", "teleworld.gateway.queue_depth", "teleworld.worker.busy.time"} <= made
    assert made - set(re.findall(r"^\| `([\w.]+)` \|", section("Metrics"), re.MULTILINE)) == set()


def test_every_documented_metric_is_looked_at() -> None:
    used = " ".join(query for _, query in expressions())
    unseen = {
        name for name in documented() if not name.endswith(("_sum", "_count")) and not re.search(rf"\b{name}\b", used)
    }
    assert unseen == set()


def test_dashboards_are_whole() -> None:
    boards = dashboards()
    assert len(boards) == 3
    assert len({board["uid"] for board in boards.values()}) == 3
    for name, board in boards.items():
        assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "namespace", "release"], name
        cells: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            covered = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not covered & cells and place["x"] + place["w"] <= 24, f"{name}/{panel['title']} lies on another"
            cells |= covered
            for target in panel.get("targets", []):
                assert target["datasource"]["uid"] == "${datasource}", name


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitors_find_the_collector(kind: str) -> None:
    objects = render(
        *FULL[:1], f"monitoring.monitor={kind[0].lower()}{kind[1:]}", "monitoring.labels.release=prometheus"
    )
    monitor = named(objects, kind, "collector")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    found = named(objects, "Service", "collector") if kind == "ServiceMonitor" else pods(objects)["collector"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= found["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"].get("endpoints", monitor["spec"].get("podMetricsEndpoints"))
    ports = {
        port["name"]: port["containerPort"] for port in pods(objects)["collector"]["spec"]["containers"][0]["ports"]
    }
    config = yaml.safe_load(named(objects, "ConfigMap", "collector")["data"]["collector.yaml"])
    assert config["exporters"]["prometheus"]["endpoint"].rpartition(":")[2] == str(ports[endpoint["port"]])
    told = config["exporters"]["prometheus"]["const_labels"]
    assert told == {"namespace": NAMESPACE, "release": "walk-teleworld"}, "what rules and dashboards select by"
    assert endpoint["honorLabels"] is True, "job and instance are the services', not the collector's"


def test_services_send_to_the_collector_with_the_asked_sampling() -> None:
    objects = render(*FULL, "telemetry.sampling=0.25")
    port = next(
        each["port"] for each in named(objects, "Service", "collector")["spec"]["ports"] if each["name"] == "otlp"
    )
    for service in SERVICES:
        told = environment(pods(objects)[service])
        prefix = "TELEWORLD_GATEWAY_" if service == "gateway" else "TELEWORLD_"
        assert told[f"{prefix}OTLP_ENDPOINT"] == f"http://walk-teleworld-collector.worlds.svc.cluster.local:{port}"
        assert (told["OTEL_TRACES_SAMPLER"], told["OTEL_TRACES_SAMPLER_ARG"]) == ("parentbased_traceidratio", "0.25")
        names = list(told)
        assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")
    alone = environment(pods(render())["planner"])
    assert "TELEWORLD_OTLP_ENDPOINT" not in alone


def test_the_collectors_pipelines_are_made_of_what_is_configured() -> None:
    for values in (FULL, (*FULL, "telemetry.collector.tracesEndpoint=tempo:4317")):
        config = yaml.safe_load(named(render(*values), "ConfigMap", "collector")["data"]["collector.yaml"])
        for pipeline in config["service"]["pipelines"].values():
            for part in ("receivers", "processors", "exporters"):
                assert set(pipeline[part]) <= set(config[part])
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline["exporters"]}
        assert used == set(config["exporters"])
