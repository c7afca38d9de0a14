"""Reads a tree of YAML values strictly: each value by name and kind, nothing missing, nothing left over.

Every complaint is an `InvalidInput` whose field is the path as it stands in the file, for example `pools.planner.workers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from teleworld.world.errors import InvalidInput

T = TypeVar("T")
REQUIRED: Any = object()


class Fields:
    """One mapping of the file. Take every field, then `close`, which complains of what nobody took."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise InvalidInput(path or "spec", f"must be a mapping, got {_kind(value)}")
        self.path = path
        self._values = dict(value)
        self._known: list[str] = []

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields that are there."""
        return tuple(map(str, self._values))

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._values.get(name) is not None

    def number(self, name: str, default: T = REQUIRED, *, least: float = 0.0, most: float = math.inf) -> float | T:
        """A finite number between `least` and `most`, both included."""
        value = self._take(name, default)
        if value is default:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(self.at(name), f"must be a number, got {value!r}")
        return float(self._within(name, value, least, most))

    def integer(self, name: str, default: T = REQUIRED, *, least: int = 0, most: int = 10**9) -> int | T:
        """A whole number between `least` and `most`, both included."""
        value = self._take(name, default)
        if value is default:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(self.at(name), f"must be a whole number, got {value!r}")
        return int(self._within(name, value, least, most))

    def text(self, name: str, default: T = REQUIRED, *, among: Sequence[str] = ()) -> str | T:
        """A string that is not empty, one of `among` if that is given."""
        value = self._take(name, default)
        if value is default:
            return default
        if not isinstance(value, str) or not value:
            raise InvalidInput(self.at(name), f"must be text, got {value!r}")
        if among and value not in among:
            raise InvalidInput(self.at(name), f"unknown {value!r}; known: {', '.join(among)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise InvalidInput(self.at(name), f"must be true or false, got {value!r}")
        return value

    def fields(self, name: str) -> Fields:
        """A mapping inside; an empty one when it is not there."""
        value = self._take(name, {})
        return Fields({} if value is None else value, self.at(name))

    def listed(self, name: str) -> list[Any]:
        """A list inside; an empty one when it is not there."""
        value = self._take(name, [])
        if not isinstance(value, list):
            raise InvalidInput(self.at(name), f"must be a list, got {_kind(value)}")
        return value

    def close(self) -> None:
        """Raises InvalidInput for the first field that was not taken."""
        for name in self._values:
            if name not in self._known:
                raise InvalidInput(self.at(str(name)), f"unknown field; known: {', '.join(sorted(self._known))}")

    def _take(self, name: str, default: Any) -> Any:
        self._known.append(name)
        value = self._values.get(name, default)
        if value is REQUIRED:
            raise InvalidInput(self.at(name), "is missing")
        return value

    def _within(self, name: str, value: float, least: float, most: float) -> float:
        if not least <= value <= most:
            bounds = f"{least:g} or more" if most in (math.inf, 10**9) else f"from {least:g} to {most:g}"
            raise InvalidInput(self.at(name), f"must be {bounds}, got {value:g}")
        return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
