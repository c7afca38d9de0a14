"""`teleworld curate`: from raw video or recordings to annotated clips, stage by stage, resumable."""

from __future__ import annotations

import argparse
from pathlib import Path

from teleworld.cli.console import Screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld curate`."""
    parser.add_argument("config", type=Path, help="YAML that lists the stages; see examples/curate")
    parser.add_argument(
        "--source", type=Path, required=True, metavar="DIR", help="videos, or what `teleworld record` wrote"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="decisions, annotations and the report")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Run every stage that has not decided yet; what is decided is kept. Raises InvalidInput for a bad configuration."""
    from teleworld.curation.pipeline import Pipeline, load_config
    from teleworld.curation.report import write_report

    pipeline = Pipeline(load_config(options.config), options.out, screen.say)
    kept = pipeline.run(options.source)
    write_report(options.out, pipeline.decisions(), pipeline.order, len(kept))
    screen.say(f"kept {len(kept)} clips; the report is {options.out / 'report.html'}")
