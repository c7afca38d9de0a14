"""`teleworld simulate`: how a mesh would do, by the live scheduling policy on simulated devices."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from teleworld.cli.console import Screen
from teleworld.cli.report import check_target
from teleworld.cli.simulation_report import figures, sets, sized, tenants
from teleworld.scheduling.costs import table_of
from teleworld.scheduling.ordering import Ordering
from teleworld.scheduling.simulation.engine import Simulation
from teleworld.scheduling.simulation.reading import read_spec
from teleworld.scheduling.simulation.results import broken, summarise
from teleworld.scheduling.simulation.sizing import simulate, solve
from teleworld.scheduling.simulation.specification import Spec
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import spec_of

MAX_SPEC_BYTES = 256 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld simulate`."""
    parser.add_argument("spec", type=Path, metavar="SPEC.yaml", help="what to simulate; see docs/scheduling.md")
    parser.add_argument("--ordering", choices=[each.value for each in Ordering], help="in place of the file's")
    parser.add_argument("--seed", type=int, help="in place of the file's")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long the clock runs, in place of the file's")
    parser.add_argument(
        "--solve", action="store_true", help="find the smallest sets of devices that keep the file's slo"
    )
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the run; needs matplotlib")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="the same as one self-contained page; needs matplotlib"
    )


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Simulate and print. Raises InvalidInput that names the field of the file, or the option."""
    spec = _overridden(read_file(options.spec), options)
    check_target("png", options.png)
    check_target("html", options.html)
    model, table = spec_of(spec.model), table_of(spec.model)
    answer: dict[str, object] = {}
    if options.solve:
        spec, answer = _solve(spec, screen, quiet=options.json)
    finished = simulate(spec, model, table)
    result = summarise(finished)
    if options.json:
        screen.say(json.dumps({**result.as_json(), **answer, "broken": broken(result, spec.slo)}))
    else:
        screen.table(f"{spec.name}: {spec.model}, {result.ordering}", figures(result, spec.slo))
        screen.table("devices", *sets(result))
        if len(spec.tenants) > 1:
            screen.table("tenants", *tenants(result))
    _draw(finished, options, screen)


def read_file(path: Path) -> Spec:
    """The specification in a file. Raises InvalidInput: `spec`, or the field that is wrong."""
    try:
        text = path.read_bytes()[: MAX_SPEC_BYTES + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("spec", f"{path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if len(text) > MAX_SPEC_BYTES:
        raise InvalidInput("spec", f"at most {MAX_SPEC_BYTES} bytes")
    try:
        return read_spec(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InvalidInput("spec", f"is not YAML: {' '.join(str(error).split())}") from error


def _overridden(spec: Spec, options: argparse.Namespace) -> Spec:
    if options.seed is not None:
        if options.seed < 0:
            raise InvalidInput("seed", "must be 0 or more")
        spec = dataclasses.replace(spec, seed=options.seed)
    if options.seconds is not None:
        if not options.seconds > 0:
            raise InvalidInput("seconds", "must be more than 0")
        spec = dataclasses.replace(spec, seconds=options.seconds)
    if options.ordering is not None:
        ordering = Ordering(options.ordering)
        chain = spec.chain if ordering.chain is None else None
        spec = dataclasses.replace(spec, ordering=ordering, chain=chain)
    return spec


def _solve(spec: Spec, screen: Screen, *, quiet: bool) -> tuple[Spec, dict[str, object]]:
    def tried(counts: Mapping[str, int], faults: tuple[str, ...]) -> None:
        if not quiet:
            screen.say(f"{sized(counts)}: {'; '.join(faults) or 'keeps every promise'}")

    sizing = solve(spec, spec_of(spec.model), table_of(spec.model), tried)
    if not quiet:
        screen.say(f"the smallest that do, after {sizing.runs} runs: {sized(sizing.counts)}")
    return spec.sized(sizing.counts), {"sizes": dict(sizing.counts), "runs": sizing.runs}


def _draw(finished: Simulation, options: argparse.Namespace, screen: Screen) -> None:
    if options.png is None and options.html is None:
        return
    from teleworld.cli import charts

    for path, draw in ((options.png, charts.png), (options.html, charts.page)):
        if path is not None:
            draw(finished, path)
            if not options.json:
                screen.say(f"wrote {path}")
