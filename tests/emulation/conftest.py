"""Emulated models whose devices are a hundred times as fast as their tables say."""

from __future__ import annotations

import dataclasses

import pytest

from teleworld.emulation.devices import Devices
from teleworld.emulation.model import EmulatedModel
from teleworld.scheduling.costs import table_of
from teleworld.world.spec import spec_of


def quick_model(name: str = "emulated-tiny", devices: int = 1, factor: float = 0.01) -> EmulatedModel:
    """An emulated model, `factor` times as slow as its table."""
    return EmulatedModel(spec_of(name), table_of(name).scaled(factor), Devices(devices))


@pytest.fixture
def model() -> EmulatedModel:
    """The small emulated world."""
    return quick_model()


def changed(request: object, **fields: object) -> object:
    """A copy of a request with other fields; one of its context by `context__name`."""
    inner = {name.removeprefix("context__"): value for name, value in fields.items() if name.startswith("context__")}
    outer = {name: value for name, value in fields.items() if not name.startswith("context__")}
    if inner:
        outer["context"] = dataclasses.replace(request.context, **inner)  # type: ignore[attr-defined]
    return dataclasses.replace(request, **outer)  # type: ignore[type-var]
