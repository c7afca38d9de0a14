"""The rules of a release, what is written about them, and the real promtool to judge them by."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from tests.k8s.charts import FULL, RELEASE, ROOT, Object, named, render

OPERATIONS = ROOT / "docs" / "operations.md"
CACHE = Path.home() / ".cache" / "teleworld-tests"


@lru_cache(maxsize=1)
def promtool() -> Path | None:
    """The real promtool: on the PATH, or out of Debian's package, which is unpacked without being installed."""
    if (found := shutil.which("promtool")) is not None:
        return Path(found)
    if (cached := CACHE / "usr" / "bin" / "promtool").is_file():
        return cached
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=CACHE, capture_output=True, timeout=120)
    for package in CACHE.glob("prometheus_*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, CACHE], capture_output=True, timeout=60)
        package.unlink()
    return cached if cached.is_file() else None


def the_rules(release: str = RELEASE, *values: str) -> list[Object]:
    groups: list[Object] = named(render(*FULL, *values, release=release), "PrometheusRule", "mesh")["spec"]["groups"]
    return groups


def alerts() -> list[Object]:
    return [rule for group in the_rules() for rule in group["rules"] if "alert" in rule]


def section(title: str) -> str:
    """A section of the operations document."""
    _, _, rest = OPERATIONS.read_text().partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def ask_promtool(folder: Path, rules: dict[str, list[Object]], cases: Object) -> None:
    """Check the rules, and run the cases over all of them, as one Prometheus would that has loaded each file."""
    tool = promtool()
    if tool is None:
        pytest.skip("NO PROMTOOL: the alerts are NOT tested here; install Debian's `prometheus`, or Prometheus itself")
    files = [f"{name}.yaml" for name in rules]
    for file, groups in zip(files, rules.values(), strict=True):
        (folder / file).write_text(yaml.safe_dump({"groups": groups}))
    (folder / "cases.yaml").write_text(yaml.safe_dump({"rule_files": files, **cases}))
    for command in (["check", "rules", *files], ["test", "rules", "cases.yaml"]):
        told = subprocess.run([tool, *command], cwd=folder, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stdout + told.stderr
