"""YAML that people write: the list of stages, an expert's decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from teleworld.world.errors import InvalidInput


def read_yaml(file: Path, field: str) -> Any:
    """What `file` says. Raises InvalidInput(`field`) for one that cannot be read or is not YAML, with the place of the fault."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(field, f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(field, f"{file} is not YAML: {' '.join(str(error).split())}") from error
