"""Take worlds out of Redis into a file, and put them back: record, log, chunks and 4D memory, as Redis itself writes them.

    python scripts/backup_worlds.py save --url redis://... --world ID [--world ID ...] worlds.zip
    python scripts/backup_worlds.py load --url redis://... [--replace] worlds.zip

All keys of a world carry its id as the hash tag {ID}; they are taken by DUMP and put back by RESTORE, which checks what it is
given, each with the time that it had left to live. A world that somebody walks through is refused, for it would be taken
in the middle of a step. The gateway's weights must have the digest that the world is pinned to. A file goes into a Redis of
the same or a newer version. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import redis

INDEX = "teleworld:gateway:worlds"
LEASE = "teleworld:gateway:{%s}:lease"
FORMAT = 1


class Refused(Exception):
    """What was asked cannot be done without harm."""


def keys_of(client: redis.Redis, world: str) -> list[bytes]:
    """Every key of a world, in order. Raises Refused for an id that no world can have."""
    if not world or set(world) & set("{}*?[]\\"):
        raise Refused(f"{world!r} is no world's id")
    return sorted(client.scan_iter(match=f"*{{{world}}}*", count=1000))


def save(client: redis.Redis, worlds: list[str], file: Path) -> int:
    """Write worlds into a new file; returns how many keys. Raises Refused, and leaves no file, for a world that is not
    there or is being walked through."""
    with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED) as archive:
        try:
            listed = [_save(client, world, archive) for world in worlds]
            archive.writestr("worlds.json", json.dumps({"format": FORMAT, "worlds": listed}))
        except BaseException:
            file.unlink()
            raise
    return sum(len(each["keys"]) for each in listed)


def _save(client: redis.Redis, world: str, archive: zipfile.ZipFile) -> dict[str, Any]:
    until, (seconds, microseconds) = client.hget(LEASE % world, "until"), client.time()
    if until is not None and int(until) > seconds * 1000 + microseconds // 1000:
        raise Refused(f"{world} is being walked through; end its stream first")
    found = keys_of(client, world)
    if not found:
        raise Refused(f"{world} is not there")
    pipe = client.pipeline(transaction=True)
    for key in found:
        pipe.dump(key)
        pipe.pttl(key)
    answers = pipe.execute()
    keys = []
    for number, (key, dump, left) in enumerate(zip(found, answers[::2], answers[1::2], strict=True)):
        if dump is None:
            continue
        name = f"{world}/{number}"
        archive.writestr(name, dump)
        keys.append({"key": key.decode(), "milliseconds": max(left, 0), "file": name})
    return {"world": world, "keys": keys}


def load(client: redis.Redis, file: Path, *, replace: bool = False) -> int:
    """Put the worlds of a file back, each whole or not at all; returns how many. Raises Refused for one that is there
    already, unless it is to be replaced, and for a file of another format."""
    with zipfile.ZipFile(file) as archive:
        listing = json.loads(archive.read("worlds.json"))
        if listing["format"] != FORMAT:
            raise Refused(f"{file} has format {listing['format']}, expected {FORMAT}")
        for each in listing["worlds"]:
            there = keys_of(client, each["world"])
            if there and not replace:
                raise Refused(f"{each['world']} is there already")
            pipe = client.pipeline(transaction=True)
            if there:
                pipe.delete(*there)
            for key in each["keys"]:
                pipe.restore(key["key"], key["milliseconds"], archive.read(key["file"]))
            pipe.execute()
            # The index lies outside of the hash tag; a name in it without a world is cleaned away by readers, the other
            # way round a world would not be listed.
            client.zadd(INDEX, {each["world"]: 0})
    return len(listing["worlds"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Backup and restore of worlds.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("save", "load"):
        command = commands.add_parser(name)
        command.add_argument("--url", required=True, help="redis:// or rediss://, with user and password if needed")
        command.add_argument("file", type=Path)
    commands.choices["save"].add_argument(
        "--world", action="append", required=True, metavar="ID", help="may be repeated"
    )
    commands.choices["load"].add_argument("--replace", action="store_true", help="overwrite worlds that are there")
    options = parser.parse_args(arguments)
    client = redis.Redis.from_url(options.url)
    try:
        if options.command == "save":
            print(f"wrote {save(client, options.world, options.file)} keys to {options.file}")
        else:
            print(f"restored {load(client, options.file, replace=options.replace)} worlds")
    except (Refused, redis.RedisError, OSError, zipfile.BadZipFile) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
