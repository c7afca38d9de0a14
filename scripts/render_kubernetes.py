"""Render what is derived from the Helm charts: the example manifests, those for training, and the tables of values in the READMEs.

Both are committed, so that somebody can read, or apply, what a release would create without having Helm, and so that a
review shows what a change of a template does to the clusters. `--check` renders into memory and fails on any difference.

    python scripts/render_kubernetes.py            writes k8s/manifests, k8s/training and the charts' READMEs
    python scripts/render_kubernetes.py --check    exit 1 when they are out of date
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "k8s" / "helm" / "teleworld"
TRAINING = ROOT / "k8s" / "helm" / "teleworld-training"
MANIFESTS = ROOT / "k8s" / "manifests"
TRAINING_MANIFESTS = {"rayjob": "values.yaml", "raycluster": "values-distillation.yaml"}
EXAMPLES = ("laptop", "node", "fleet")
RELEASE = NAMESPACE = "teleworld"
KUBERNETES = "1.34.0"
BEGIN, END = "<!-- values -->", "<!-- end of values -->"

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):")


@dataclass(frozen=True)
class Value:
    """One documented value of the chart: its dotted path, its default and what it does."""

    path: str
    default: Any
    text: str


def documented(source: str) -> list[Value]:
    """The values of a values file that have a `# -- text` line above them, in order."""
    defaults = yaml.safe_load(source)
    found: list[Value] = []
    parents: list[str] = []
    text = ""
    for line in source.splitlines():
        if (stripped := line.strip()).startswith("# -- "):
            text = stripped.removeprefix("# -- ")
        elif match := _LINE.match(line):
            del parents[len(match["indent"]) // 2 :]
            parents.append(match["key"])
            if text:
                default = defaults
                for key in parents:
                    default = default[key]
                found.append(Value(".".join(parents), default, text))
            text = ""
    return found


def values_table(source: str) -> str:
    """The values as Markdown, one table a section."""
    lines: list[str] = []
    section = None
    for value in documented(source):
        head = value.path.split(".")[0] if "." in value.path else ""
        if head != section:
            section = head
            lines += [
                "",
                f"### `{head}`" if head else "### General",
                "",
                "| value | default | what it does |",
                "|---|---|---|",
            ]
        default = json.dumps(value.default, ensure_ascii=False)
        lines.append(f"| `{value.path}` | `{default}` | {value.text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines).strip() + "\n"


def readme(current: str, source: str) -> str:
    """The README with its table of values made anew."""
    head, _, rest = current.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{values_table(source)}\n{END}{tail}"


def template(helm: Path, *options: str, chart: Path = CHART, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """What `helm template` renders of a chart. Raises RuntimeError with Helm's own words."""
    command = [str(helm), "template", release, str(chart), "--namespace", namespace, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def manifest(helm: Path, example: str) -> str:
    """The manifests of one of the examples, `helm test` left out."""
    values = f"values-{example}.yaml"
    options = ("--values", str(CHART / values), "--kube-version", KUBERNETES, "--skip-tests")
    return written(template(helm, *options), values)


def training(helm: Path, values: str) -> str:
    """The manifests of training with a file of values."""
    options = ("--values", str(TRAINING / values), "--kube-version", KUBERNETES)
    return written(template(helm, *options, chart=TRAINING, release=TRAINING.name), f"{TRAINING.name}/{values}")


def written(rendered: str, source: str) -> str:
    """What Helm rendered, as it is committed."""
    header = f"# Rendered by scripts/render_kubernetes.py from {source}. Do not edit.\n"
    return header + "\n".join(line.rstrip() for line in rendered.splitlines()) + "\n"


def outputs(helm: Path) -> dict[Path, str]:
    """Everything that is derived, by the file it belongs into."""
    made = {MANIFESTS / f"{example}.yaml": manifest(helm, example) for example in EXAMPLES}
    for name, values in TRAINING_MANIFESTS.items():
        made[ROOT / "k8s" / "training" / f"{name}.yaml"] = training(helm, values)
    for chart in (CHART, TRAINING):
        page = chart / "README.md"
        made[page] = readme(page.read_text(), (chart / "values.yaml").read_text())
    return made


def find_helm() -> Path:
    """Helm, installed beside the interpreter if need be."""
    spec = importlib.util.spec_from_file_location("kubernetes_tools", ROOT / "scripts" / "kubernetes_tools.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Path = module.find("helm")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Render what is derived from the Helm charts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is out of date")
    check = parser.parse_args().check
    made = outputs(find_helm())
    stale = {path: text for path, text in made.items() if not path.exists() or path.read_text() != text}
    if check:
        if stale:
            print("out of date, run scripts/render_kubernetes.py:", *stale, sep="\n  ", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
