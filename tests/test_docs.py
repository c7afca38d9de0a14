"""What the documents name exists: files, tests, links, commands and options, variables, targets, and what the README imports."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from services.common.families import EmulationSettings
from services.decoder.settings import DecoderSettings
from services.gateway.settings import GatewaySettings
from services.planner.settings import PlannerSettings
from services.populator.settings import PopulatorSettings
from services.reconstructor.settings import ReconstructorSettings
from teleworld.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "checkpoints" / "nano").glob("*.md")),
    ROOT / "k8s" / "helm" / "teleworld" / "README.md",
]
FOLDERS = ("teleworld", "services", "tests", "benchmarks", "scripts", "protos", "docs", "examples", "k8s", "docker")
OPTION = re.compile(r"(?<=[\s`])--[a-z][a-z-]*")
document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code(text: str) -> Iterator[str]:
    """The pieces of a document that are code: spans between backticks, lines of blocks, joined where a line goes on."""
    text = text.replace("\\\n", " ")
    yield from re.findall(r"`([^`\n]+)`", text)
    yield from (line for line in text.splitlines() if line.startswith("    "))
    for block in re.findall(r"```\w*\n(.*?)```", text, re.S):
        yield from block.splitlines()


@cache
def sources() -> list[str]:
    """The paths of all files below the folders of the code, from the root."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [f"/{path.relative_to(ROOT)}" for path in [*files, *ROOT.glob("*")]]


@cache
def options_of(command: str) -> frozenset[str]:
    """The options of `teleworld COMMAND`, and of the actions below it."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"teleworld.cli.{command}").add_arguments(parser)
    known, parsers = {"--help"}, [parser]
    while parsers:
        for action in parsers.pop()._actions:
            known.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return frozenset(known)


@cache
def variables() -> frozenset[str]:
    """The environment variables of all services, and those that are read by name."""
    kinds = [
        GatewaySettings,
        PlannerSettings,
        PopulatorSettings,
        ReconstructorSettings,
        DecoderSettings,
        EmulationSettings,
    ]
    settings = {f"{kind.model_config['env_prefix']}{name}".upper() for kind in kinds for name in kind.model_fields}
    folders = (ROOT / "teleworld", ROOT / "services", ROOT / "benchmarks")
    text = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    return frozenset(settings | set(re.findall(r'"(TELEWORLD_[A-Z_]+)"', text)))


@document
def test_links_lead_somewhere(path: Path):
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@document
def test_files_and_tests_that_are_named_exist(path: Path):
    """A path may begin anywhere below the root, as `world/errors.py` does; `FILE::NAME` is a test of that file."""
    missing = []
    for span in code(path.read_text()):
        for name, test in re.findall(r"(?<![\w/.-])([\w/-]+\.(?:py|proto|lua|sh))\b(?:::(\w+))?", span):
            found = [source for source in sources() if source.endswith(f"/{name}")]
            if not found or (test and not any(f"def {test}(" in (ROOT / one[1:]).read_text() for one in found)):
                missing.append(name + (f"::{test}" if test else ""))
    assert missing == []


@document
def test_commands_take_the_options_that_are_named(path: Path):
    wrong = []
    for span in code(path.read_text()):
        for command, rest in re.findall(r"\bteleworld ([a-z]+)\b([^|&#\n]*)", span):
            if command in COMMANDS:
                wrong += [f"{command} {option}" for option in OPTION.findall(rest) if option not in options_of(command)]
        for program, rest in re.findall(r"\b((?:benchmarks|scripts)/\w+\.py)([^|&#\n]*)", span):
            source = (ROOT / program).read_text()
            wrong += [f"{program} {option}" for option in OPTION.findall(rest) if f'"{option}"' not in source]
    assert wrong == []


@document
def test_modules_and_targets_that_are_named_exist(path: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    missing = []
    for span in code(path.read_text()):
        missing += [f"make {name}" for name in re.findall(r"(?:^|\s)make ([a-z]+)\b", span) if name not in targets]
        for module in re.findall(r"-m ((?:teleworld|services)\.[\w.]+)", span):
            if not list((ROOT / module.replace(".", "/")).parent.glob(f"{module.rsplit('.', 1)[1]}*")):
                missing.append(module)
    assert missing == []


@document
def test_variables_that_are_named_are_read(path: Path):
    """A variable is a setting of a service, or stands in the source of what reads it."""
    named = {name for name in re.findall(r"TELEWORLD_[A-Z_]+", path.read_text()) if not name.endswith("_")}
    assert sorted(named - variables()) == []


def test_the_programs_in_the_readme_import_what_there_is():
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert programs
    for program in programs:
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
