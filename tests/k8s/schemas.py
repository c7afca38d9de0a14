"""Strict validation of objects: Kubernetes' own schemas by version, and those of custom resources.

The schemas of custom resources are ours, written from their documentation, and stricter: they know the fields that the
chart may use, and nothing else.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

from tests.k8s.charts import Object

_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_CUSTOM = Path(__file__).with_name("custom_resources.yaml")


class UnknownKind(Exception):
    """No schema knows this kind."""


@lru_cache(maxsize=1)
def custom_kinds() -> dict[str, Any]:
    """The schemas of custom resources by `apiVersion Kind`."""
    document = yaml.safe_load(_CUSTOM.read_text())
    return {key: {**schema, "$defs": document["$defs"]} for key, schema in document["kinds"].items()}


@lru_cache(maxsize=16)
def _definitions(version: str) -> Registry[Any]:
    folder = _SCHEMAS / f"v{version}.0-local-strict"
    resource: Resource[Any] = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    return resource @ Registry()


@lru_cache(maxsize=512)
def _validator(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator:
    if (schema := custom_kinds().get(f"{api_version} {kind}")) is not None:
        return jsonschema.Draft202012Validator(schema)
    group, _, number = api_version.rpartition("/")
    group = group.split(".")[0]
    file = f"{kind.lower()}-{group}-{number}.json" if group else f"{kind.lower()}-{number}.json"
    path = _SCHEMAS / f"v{version}.0-local-strict" / file
    if not path.is_file():
        raise UnknownKind(f"{api_version} {kind} in Kubernetes {version}")
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=_definitions(version))


_seen: dict[tuple[str, str], tuple[str, ...]] = {}


def faults(each: Object, version: str) -> tuple[str, ...]:
    """What is wrong with an object for a version of Kubernetes, each with its place. Raises UnknownKind."""
    key = (version, json.dumps(each, sort_keys=True))
    if key not in _seen:
        validator = _validator(each["apiVersion"], each["kind"], version)
        name = f"{each['kind']}/{each['metadata']['name']}"
        _seen[key] = tuple(f"{name}{error.json_path[1:]}: {error.message}" for error in validator.iter_errors(each))
    return _seen[key]
