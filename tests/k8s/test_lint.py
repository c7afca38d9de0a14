"""Helm's own opinion of the chart, and what its schema and checks refuse."""

from __future__ import annotations

import pytest

from tests.k8s.charts import CHART, EXAMPLES, MATRIX, cases, refusal, run_helm, set_options

ALLOWED = ("[INFO] Chart.yaml: icon is recommended", "==> Linting", "1 chart(s) linted, 0 chart(s) failed")


def complaints(*options: str) -> list[str]:
    """What `helm lint --strict` says beyond what is allowed."""
    done = run_helm("lint", "--strict", str(CHART), "--kube-version", "1.34.0", *options)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith(ALLOWED)]
    return lines or ([f"exit status {done.returncode}"] if done.returncode else [])


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_lint_clean(example: str) -> None:
    assert complaints("--values", str(CHART / f"values-{example}.yaml")) == []


@pytest.mark.parametrize("case", ["defaults", "static", "weights-fetched", "keda", "watched", "bare"])
def test_unlike_values_are_lint_clean(case: str) -> None:
    assert complaints(*set_options(MATRIX[case])) == []


def test_lint_finds_a_fault() -> None:
    assert complaints("--set", "populator.replicas=many")


def test_a_package_can_be_made(tmp_path) -> None:
    done = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["teleworld-0.1.0.tgz"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["populator.replica=2"], "/populator/replica"),
        (["bogus=1"], "bogus"),
        (["populator.port=70000"], "/populator/port"),
        (["populator.scalerPort=7402"], "/populator/scalerPort"),
        (["populator.resources.limits.cpu=lots"], "/populator/resources/limits/cpu"),
        (["defaults.shmSize=much"], "/defaults/shmSize"),
        (["tls.mode=off"], "/tls/mode"),
        (["telemetry.sampling=2"], "/telemetry/sampling"),
        (["networkPolicy.redisCidr=anywhere"], "/networkPolicy/redisCidr"),
        (["model.weights.source=init", "model.weights.init.files[0].path=a"], "sha256"),
        (["gateway.autoscaling.mode=keda"], "gateway.autoscaling.mode"),
        (["populator.autoscaling.mode=keda", "discovery.mode=static"], "populator.autoscaling.mode"),
        (["decoder.autoscaling.mode=hpa", "decoder.autoscaling.minReplicas=9"], "decoder.autoscaling.minReplicas"),
        (["populator.autoscaling.mode=keda", "populator.autoscaling.targetQueueDepth=8"], "targetQueueDepth"),
        (
            [
                "populator.autoscaling.mode=keda",
                "populator.autoscaling.targetQueueDepth=3",
                "populator.settings.queue=3",
            ],
            "targetQueueDepth",
        ),
        (["planner.adminPort=7300"], "planner.adminPort"),
        (["planner.rollingUpdate.maxSurge=0"], "planner.rollingUpdate"),
        (["model.weights.source=image"], "model.weights.image.reference"),
        (["model.weights.source=init"], "model.weights.init.files"),
        (["model.previous.enabled=true", "model.previous.source=pvc"], "model.previous.existingClaim"),
        (["model.previous.enabled=true", "discovery.mode=static"], "model.previous.enabled"),
        (["auth.mode=jwt"], "auth.jwt.issuer"),
        (["auth.mode=jwt", "auth.jwt.issuer=https://a"], "auth.jwt.jwksUrl"),
        (["monitoring.monitor=podMonitor"], "monitoring.monitor"),
    ],
)
def test_wrong_values_are_refused_by_name(values: list[str], named: str) -> None:
    assert named in refusal(*values)


def test_versions_that_lack_what_is_asked_for_are_refused() -> None:
    assert "1.33 or newer" in refusal(
        "model.weights.source=image", "model.weights.image.reference=a:1", kubernetes="1.32"
    )
    assert "1.28.0" in refusal(kubernetes="1.28")


def test_names_are_unique_and_short_enough() -> None:
    for name, objects in cases():
        keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
        assert len(keys) == len(set(keys)), name
        assert max(len(key[1]) for key in keys) <= 63, name


def test_long_release_names_are_cut() -> None:
    done = run_helm("template", "a-very-long-name-of-a-release-that-somebody-chose", str(CHART))
    assert done.returncode == 0, done.stderr
    names = [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("  name: ")]
    assert names
    assert max(map(len, names)) <= 63
