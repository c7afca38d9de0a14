"""Fetch model weights before a worker starts, and check what is there: `fetch_weights.py LIST.json FOLDER`.

LIST is a JSON array of {"path", "sha256", "url"}; `url` may be left out for a file that something else has put there. A
file that has the right checksum already is left alone, so a restart costs one reading. A new file is written beside its
place and moved there when its checksum is right: whoever shares the folder sees it whole or not at all, and two pods that
fetch at a time do not disturb each other. Needs Python alone. Exit codes: 0 all there, 1 something is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ATTEMPTS = 5
BLOCK = 1 << 20
TIMEOUT_SECONDS = 60.0


class Wrong(Exception):
    """A list, a file or a download that must not be used."""


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def target_of(folder: Path, path: str) -> Path:
    """Where a listed path lies. Raises Wrong for one that leads out of the folder."""
    target = (folder / path).resolve()
    if not path or not target.is_relative_to(folder.resolve()) or target == folder.resolve():
        raise Wrong(f"{path!r} does not lie in the folder")
    return target


def download(url: str, target: Path, sha256: str) -> None:
    """Fetch `url` into `target`, whole or not at all. Raises Wrong for another checksum, OSError when it cannot be fetched."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Wrong(f"{url}: only http and https are fetched")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        digest = hashlib.sha256()
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            while block := response.read(BLOCK):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise Wrong(f"{url}: expected sha256 {sha256}, got {digest.hexdigest()}")
        os.chmod(name, 0o644)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def ensure(folder: Path, path: str, sha256: str, url: str | None, pause: float = 1.0) -> str:
    """Have a file with this checksum in the folder; returns what was done, for the log. Raises Wrong or OSError."""
    target = target_of(folder, path)
    if target.is_file() and digest_of(target) == sha256:
        return "is there"
    if url is None:
        raise Wrong(f"{path}: {'has another checksum' if target.is_file() else 'is missing'}, and no url is given")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            download(url, target, sha256)
            return "fetched"
        except OSError as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == ATTEMPTS or refused:
                raise
            print(f"{path}: {error}; again", flush=True)
            time.sleep(pause * 2**attempt)
    raise AssertionError("unreachable")


def main(arguments: list[str]) -> int:
    """Fetch and check all files of a list; returns the exit code."""
    listing, folder = Path(arguments[0]), Path(arguments[1])
    try:
        for entry in json.loads(listing.read_text()):
            done = ensure(folder, entry["path"], entry["sha256"].lower(), entry.get("url"))
            print(f"{entry['path']}: {done}", flush=True)
    except (Wrong, OSError) as error:
        print(f"weights: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
