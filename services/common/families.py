"""Which family of cores a worker process runs: those that compute, or emulated ones.

This is the only place that tells them apart. A service brings its own loader of the computing core; for a model whose name
says that it is emulated, the core comes from `teleworld.emulation` in its stead, and torch is never imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common.batching import table_batches
from services.common.settings import WorkerSettings
from teleworld.rpc.convert.common import ModelDescription
from teleworld.scheduling.tasks import Pool
from teleworld.world.spec import is_emulated

Core = TypeVar("Core")
Settings = TypeVar("Settings", bound=WorkerSettings)


class EmulationSettings(BaseSettings):
    """What an emulated worker needs beside its service's settings. Prefix TELEWORLD_EMULATED_."""

    model_config = SettingsConfigDict(env_prefix="TELEWORLD_EMULATED_", use_attribute_docstrings=True, frozen=True)

    table: str | None = None
    """A shipped cost table's name, or the path of a file with a slash in it; by default the table that holds for the model."""
    devices: int = Field(default=1, ge=1, le=4096)
    """Devices of this process. Each does one task at a time."""
    ranks: int = Field(default=1, ge=1, le=64)
    """Devices that work as one in each of them (context parallelism)."""
    slots: int = Field(default=0, ge=0, le=8192)
    """Tasks that the process takes on at a time, each with a thread that mostly sleeps; 0 for one a device."""
    clock: Path | None = None
    """A file that holds the devices' clocks, for processes that share the same devices."""
    log: Path | None = None
    """A file to which every hold of a device is appended, as a line of JSON."""
    cold_start: bool = False
    """Whether a process takes as long to become ready as the table says that a real one does."""


@dataclass(frozen=True)
class Maker(Generic[Core]):
    """How a process gets its core, and how many tasks that core takes at a time."""

    load: Callable[[], tuple[ModelDescription, Core]]
    slots: int


def maker_of(service: str, settings: Settings, load: Callable[[Settings], tuple[ModelDescription, Core]]) -> Maker[Any]:
    """The maker of the core that `settings.model` names; `load` makes one that computes. Raises pydantic's ValidationError."""
    if not is_emulated(settings.model):
        return Maker(lambda: _computing(settings, load), settings.slots)
    emulation = EmulationSettings()
    return Maker(lambda: _emulated(service, settings, emulation), emulation.slots or emulation.devices)


def _computing(
    settings: Settings, load: Callable[[Settings], tuple[ModelDescription, Core]]
) -> tuple[ModelDescription, Core]:
    description, core = load(settings)
    return replace(description, slots=settings.slots), core


def _emulated(service: str, settings: WorkerSettings, emulation: EmulationSettings) -> tuple[ModelDescription, Any]:
    from teleworld.emulation.cores import core_of
    from teleworld.emulation.model import open_emulated

    model = open_emulated(
        settings.model,
        table=emulation.table,
        devices=emulation.devices,
        ranks={Pool(service): emulation.ranks},
        clock=emulation.clock,
        log=emulation.log,
        start_cold=emulation.cold_start,
    )
    core = core_of(service, model, getattr(settings, "redis_url", ""))
    slots = emulation.slots or emulation.devices
    batches = table_batches(model.table, model.spec, model.prompt_bytes, Pool(service), settings.batch)
    return ModelDescription(settings.model, model.digest, slots=slots, batches=batches), core
