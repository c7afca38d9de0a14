"""Generate `teleworld/_proto` from `protos/`: messages, gRPC stubs and their type stubs.

The generated code is committed, so that nobody needs a compiler to use the library; `--check` generates into a scratch
folder and fails on any difference, so that what is committed is what the contracts say. The imports that protoc writes are
those of the proto packages (`teleworld.types.v1`); they are rewritten to live below `teleworld._proto`, where they cannot
collide with the library's own modules. Names on the wire stay as they are.

    python scripts/generate_protos.py            writes teleworld/_proto
    python scripts/generate_protos.py --check    exit 1 when it is out of date
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
TARGET = ROOT / "teleworld" / "_proto"
PACKAGE_DOC = '"""Generated from protos/ by scripts/generate_protos.py. Do not edit."""\n'

_IMPORT = re.compile(r"^(from|import) teleworld\.(\w+)\.v(\d+)\b", re.MULTILINE)
_MODULE = re.compile(r"(['\"])teleworld\.(\w+\.v\d+\.\w+_pb2)\1")


def generate(target: Path) -> None:
    """Write the whole package below `target`, which is emptied of generated files first."""
    with tempfile.TemporaryDirectory() as scratch:
        _compile(Path(scratch))
        _remove_stale(target)
        for source in _sources(Path(scratch) / "teleworld"):
            place = target / source.relative_to(Path(scratch) / "teleworld")
            for folder in (place.parent, *place.parent.parents):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "__init__.py").write_text(PACKAGE_DOC)
                if folder == target:
                    break
            place.write_text(_rewrite(source.read_text()))


def differences(target: Path) -> list[str]:
    """Paths, relative to `target`, that regeneration would add, change or remove."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "_proto"
        generate(fresh)
        wanted, found = _contents(fresh), _contents(target)
    return sorted(str(path) for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def _sources(root: Path) -> list[Path]:
    """What protoc wrote, without the gRPC modules of files that define no service: they are empty."""
    found = sorted(root.rglob("*.py*"))
    return [path for path in found if "_pb2_grpc" not in path.name or "Stub" in path.read_text()]


def _compile(out: Path) -> None:
    import grpc_tools

    include = Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path) for path in sorted(PROTOS.rglob("*.proto"))]
    plugins = [
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
    ]
    # The mypy plugins are scripts beside the interpreter; its folder need not be on the caller's path.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{include}", *plugins, *files]
    subprocess.run(command, check=True, env=environment)


def _rewrite(text: str) -> str:
    text = _IMPORT.sub(r"\1 teleworld._proto.\2.v\3", text)
    return _MODULE.sub(r"\1teleworld._proto.\2\1", text)


def _remove_stale(target: Path) -> None:
    for path in _contents(target):
        (target / path).unlink()


def _contents(target: Path) -> dict[Path, bytes]:
    files = (path for suffix in ("*.py", "*.pyi") for path in target.rglob(suffix))
    return {path.relative_to(target): path.read_bytes() for path in files}


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate teleworld/_proto from protos/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the committed code is out of date"
    )
    if not parser.parse_args().check:
        generate(TARGET)
        return 0
    stale = differences(TARGET)
    if stale:
        print("out of date, run scripts/generate_protos.py:", *stale, sep="\n  ", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
