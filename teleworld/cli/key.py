"""`teleworld key`: make an API key for a tenant. The key is shown once; the gateway is given its hash."""

from __future__ import annotations

import argparse
import sys

from teleworld.cli.console import Screen
from teleworld.world.credentials import new_key
from teleworld.world.identifiers import check_tenant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld key`."""
    parser.add_argument("id", help="a name for the key: A-Z a-z 0-9 -")
    parser.add_argument("--tenant", required=True, help="whose worlds it opens: a-z 0-9 -")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Print the entry for the gateway's file of keys to stdout, and the key itself to stderr. Raises InvalidInput."""
    tenant = check_tenant(options.tenant)
    key, digest = new_key(options.id)
    print(f"  - id: {options.id}\n    sha256: {digest}\n    tenant: {tenant}")
    print(f"the key, which is not shown again: {key}", file=sys.stderr)
