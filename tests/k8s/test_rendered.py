"""What is derived from the chart and committed is what the chart says now, and what is written about it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.charts import CHART, ROOT, helm, load_script

TRAINING = ROOT / "k8s" / "helm" / "teleworld-training"
SERVICE_SECTIONS = ("gateway", "planner", "populator", "reconstructor", "decoder")


@pytest.fixture(scope="module")
def rendering() -> Any:
    return load_script("render_kubernetes")


def test_manifests_and_readme_are_up_to_date(rendering: Any) -> None:
    stale = [path.name for path, text in rendering.outputs(helm()).items() if path.read_text() != text]
    assert stale == [], "run scripts/render_kubernetes.py"


def test_a_change_of_a_value_is_seen(rendering: Any) -> None:
    source = (CHART / "values.yaml").read_text()
    current = (CHART / "README.md").read_text()
    changed = source.replace("logLevel: INFO", "logLevel: DEBUG")
    assert changed != source
    assert rendering.readme(current, source) == current
    assert rendering.readme(current, changed) != current


def leaves(tree: Any, path: str = "") -> list[str]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    return [path]


@pytest.mark.parametrize("chart", [CHART, TRAINING], ids=lambda chart: chart.name)
def test_every_value_says_what_it_does(rendering: Any, chart: Path) -> None:
    source = (chart / "values.yaml").read_text()
    told = [value.path for value in rendering.documented(source)]
    silent = [
        leaf
        for leaf in leaves(yaml.safe_load(source))
        if not any(leaf == path or leaf.startswith(f"{path}.") for path in told)
    ]
    assert silent == []
    assert len(told) == len(set(told))
    assert all(value.text.rstrip().endswith((".", ":")) for value in rendering.documented(source))


def known(schema: Any, root: Any) -> set[str]:
    """The dotted paths that a schema knows."""
    found: set[str] = set()
    if "$ref" in schema:
        found |= known(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for key, value in schema.get("properties", {}).items():
        found |= {key, *(f"{key}.{rest}" for rest in known(value, root))}
    return found


def test_the_schema_knows_the_values_and_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    paths = known(schema, schema)
    unknown = [
        leaf for leaf in leaves(values) if not any(leaf == path or leaf.startswith(f"{path}.") for path in paths)
    ]
    assert unknown == []
    top = {path.split(".")[0] for path in paths}
    assert top - {"global"} == set(values)
    # What a service may set is what the defaults have, so each of them is documented there once.
    service = known(schema["$defs"]["service"], schema)
    assert {path for path in service if "." not in path} == set(values["defaults"])
    for name in SERVICE_SECTIONS:
        extra = set(values[name]) - set(values["defaults"])
        assert extra == ({"scalerPort", "serviceType", "serviceAnnotations"} if name == "gateway" else set())


def test_every_value_is_used() -> None:
    """A value that no template reads would be a promise that is not kept."""
    words = "\n".join(
        path.read_text()
        for path in [*CHART.rglob("*.tpl"), *CHART.rglob("templates/**/*.yaml"), CHART / "files" / "rules.yaml"]
    )
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    opaque = {"resources", "labels", "annotations", "rollingUpdate", "issuerRef", "secrets"}
    names = {leaf.rpartition(".")[2] for leaf in leaves(values) if not opaque & set(leaf.split("."))}
    assert {name for name in names if f".{name}" not in words} == set()
