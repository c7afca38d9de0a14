"""Recording rules and alerts: they fire when they should, for the release that they are of, and each has a runbook."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.k8s.charts import FULL, MATRIX, RELEASE, ROOT, named, render
from tests.k8s.rules import alerts, ask_promtool, section, the_rules


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    cases = yaml.safe_load((ROOT / "tests" / "k8s" / "alerts.yaml").read_text())
    ask_promtool(tmp_path, {"rules": the_rules()}, cases)


def test_two_releases_beside_each_other_are_told_apart(tmp_path: Path) -> None:
    """One is ill and one is well, in the same namespace of the same Prometheus."""
    misses, missed = "teleworld:chunk_deadline_misses:ratio_rate5m", "TeleWorldDeadlinesMissedFast"
    ill, well = (f'namespace="worlds",release="{name}-teleworld"' for name in ("ill", "well"))
    deadlines = "teleworld_gateway_chunk_deadlines_total"
    series = {
        f'{deadlines}{{outcome="missed",{ill}}}': "0+30x180",
        f'{deadlines}{{outcome="met",{ill}}}': "0+70x180",
        f'{deadlines}{{outcome="missed",{well}}}': "0+1x180",
        f'{deadlines}{{outcome="met",{well}}}': "0+999x180",
        f'teleworld_gateway_workers{{pool="decoder",{ill}}}': "0x180",
        f'teleworld_gateway_workers{{pool="decoder",{well}}}': "4x180",
    }
    labels = {"severity": "critical", "namespace": "worlds", "release": "ill-teleworld"}
    runbook = "https://teleworld.example/docs/operations.md#"
    late = "Chunks come too late for playback, 30% of them in the last hour."
    empty = "No decoder serves; every world stands still."
    fired = {missed: (labels, late), "TeleWorldPoolEmpty": (labels | {"pool": "decoder"}, empty)}
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": misses,
                "eval_time": "2h",
                "exp_samples": [
                    {"labels": f"{misses}{{{ill}}}", "value": 0.3},
                    {"labels": f"{misses}{{{well}}}", "value": 0.001},
                ],
            }
        ],
        "alert_rule_test": [
            {
                "eval_time": "2h",
                "alertname": name,
                "exp_alerts": [
                    {
                        "exp_labels": expected,
                        "exp_annotations": {"summary": summary, "runbook_url": runbook + name.lower()},
                    }
                ],
            }
            for name, (expected, summary) in fired.items()
        ],
    }
    rules = {name: the_rules(name) for name in ("ill", "well")}
    ask_promtool(tmp_path, rules, {"evaluation_interval": "1m", "tests": [case]})


def test_a_pool_that_the_gateway_sizes_is_watched_too(tmp_path: Path) -> None:
    """No HorizontalPodAutoscaler tells of its bound: the rule knows it."""
    name, pods = (
        "TeleWorldPoolAtMaximum",
        "kube_deployment_spec_replicas{namespace='worlds',deployment='walk-teleworld-%s'}",
    )
    labels = {"severity": "warning", "namespace": "worlds", "release": "walk-teleworld"}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": pods % "populator", "values": "8x60"},
            {"series": pods % "decoder", "values": "2x60"},
        ],
        "alert_rule_test": [
            {
                "eval_time": "40m",
                "alertname": name,
                "exp_alerts": [
                    {
                        "exp_labels": labels | {"deployment": "walk-teleworld-populator"},
                        "exp_annotations": {
                            "summary": "walk-teleworld-populator cannot scale further.",
                            "runbook_url": f"https://teleworld.example/docs/operations.md#{name.lower()}",
                        },
                    }
                ],
            }
        ],
    }
    rules = the_rules(RELEASE, *MATRIX["sized-by-the-gateway"], "decoder.autoscaling.maxReplicas=3")
    ask_promtool(tmp_path, {"rules": rules}, {"evaluation_interval": "1m", "tests": [case]})


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((ROOT / "tests" / "k8s" / "alerts.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_thresholds_are_values() -> None:
    values = (
        "monitoring.rules.deadlineObjective=0.999",
        "monitoring.rules.keyToFrameSeconds=0.75",
        "monitoring.rules.queueAgeSeconds=9",
    )
    groups = named(render(*FULL, *values), "PrometheusRule", "mesh")["spec"]["groups"]
    by_name = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert "> 0.0144 " in by_name["TeleWorldDeadlinesMissedFast"]
    assert by_name["TeleWorldKeyToFrameSlow"].endswith("> 0.75")
    assert by_name["TeleWorldQueueOld"].endswith("> 9")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^### (\w+)$", section("Alerts"), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"]["runbook_url"].rpartition("#")[2] == alert["alert"].lower()
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"]
