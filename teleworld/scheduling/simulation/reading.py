"""Makes a `Spec` of the tree that a YAML file holds, and complains of the first field that is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

from teleworld.scheduling.costs import Setup, table_of
from teleworld.scheduling.fields import Fields
from teleworld.scheduling.ordering import Ordering
from teleworld.scheduling.simulation.specification import (
    PACES,
    Arrivals,
    Audience,
    Autoscale,
    DeviceSet,
    Slo,
    Spec,
    Tenant,
)
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import SPECS
from teleworld.world.timeline import ChainMode


def read_spec(tree: Any) -> Spec:
    """The `Spec` that a YAML tree describes. Raises InvalidInput that names the field."""
    fields = Fields(tree)
    model = fields.text("model", among=tuple(sorted(SPECS)))
    ordering = Ordering(fields.text("ordering", Ordering.ADAPTIVE.value, among=[each.value for each in Ordering]))
    spec = Spec(
        name=fields.text("name"),
        model=model,
        devices=_devices(fields, model),
        arrivals=_arrivals(fields.fields("arrivals")),
        audience=_audience(fields.fields("audience")),
        tenants=_tenants(fields),
        slo=_slo(fields.fields("slo")),
        ordering=ordering,
        chain=_chain(fields, ordering),
        ahead=fields.integer("ahead", None, least=1, most=100_000),
        admission=fields.flag("admission", True),
        reanchor=fields.flag("reanchor", True),
        seed=fields.integer("seed", 0),
        seconds=fields.number("seconds", 60.0, least=0.001, most=1e6),
        overhead_s=fields.number("overhead_ms", 0.0, most=1e6) / 1e3,
        gantt_s=fields.number("gantt_s", 15.0, most=600.0),
    )
    fields.close()
    return spec


def _chain(fields: Fields, ordering: Ordering) -> ChainMode | None:
    wanted = fields.text("chain", None, among=[mode.value for mode in ChainMode])
    if wanted is None:
        return None
    if ordering.chain not in (None, ChainMode(wanted)):
        raise InvalidInput("chain", f"{ordering.value} chains at {ordering.chain.value}, not at {wanted}")
    return ChainMode(wanted)


def devices_of(setup: Setup) -> tuple[DeviceSet, ...]:
    """The device sets of a cost table's set-up."""
    counts = Counter(setup.devices)
    return tuple(DeviceSet(serves, count, ranks=setup.ranks.get(serves[0], 1)) for serves, count in counts.items())


def _devices(fields: Fields, model: str) -> tuple[DeviceSet, ...]:
    listed = fields.listed("devices")
    if fields.has("setup"):
        setups = table_of(model).setups
        setup = setups[fields.text("setup", among=tuple(setups))]
        if listed:
            raise InvalidInput("setup", "give either a setup or devices")
        return devices_of(setup)
    fields.text("setup", None)
    sets = tuple(_device_set(Fields(value, f"devices[{row}]")) for row, value in enumerate(listed))
    for pool in Pool:
        serving = sum(pool in devices.serves for devices in sets)
        if serving != 1:
            raise InvalidInput("devices", f"{serving or 'no'} sets serve the {pool.value}; one must")
    return sets


def _device_set(fields: Fields) -> DeviceSet:
    names = [pool.value for pool in Pool]
    serves = fields.listed("serves")
    for row, value in enumerate(serves):
        if value not in names or value in serves[:row]:
            raise InvalidInput(
                f"{fields.at('serves')}[{row}]", f"must be one of {', '.join(names)}, once; got {value!r}"
            )
    if not serves:
        raise InvalidInput(fields.at("serves"), "names no pool")
    count = fields.integer("count", 1, least=1, most=100_000)
    devices = DeviceSet(
        serves=tuple(Pool(value) for value in serves),
        count=count,
        slots=fields.integer("slots", 1, least=1, most=1024),
        batch=fields.integer("batch", 1, least=1, most=64),
        ranks=fields.integer("ranks", 1, least=1, most=64),
        cold_start_s=fields.number("cold_start_s", None),
        mean_life_s=fields.number("mean_life_s", None, least=0.001),
        price_per_hour=fields.number("price_per_hour", None),
        autoscale=_autoscale(fields.fields("autoscale"), count) if fields.has("autoscale") else None,
    )
    fields.close()
    return devices


def _autoscale(fields: Fields, count: int) -> Autoscale:
    autoscale = Autoscale(
        least=fields.integer("min", 1, least=1),
        most=fields.integer("max", least=1, most=100_000),
        queue_per_worker=fields.number("queue_per_worker", 1.0, least=0.01),
        every_s=fields.number("every_s", 15.0, least=0.1),
        settle_s=fields.number("settle_s", 60.0),
    )
    fields.close()
    if not autoscale.least <= count <= autoscale.most:
        raise InvalidInput(fields.path, f"min {autoscale.least} to max {autoscale.most} does not hold count, {count}")
    return autoscale


def _times(fields: Fields, name: str) -> list[float]:
    for number, value in enumerate(fields.listed(name)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise InvalidInput(f"{fields.at(name)}[{number}]", f"must be a time in seconds, got {value!r}")
    return sorted(float(value) for value in fields.listed(name))


def _arrivals(fields: Fields) -> Arrivals:
    times = _times(fields, "at")
    if fields.has("at_once"):
        times += [0.0] * fields.integer("at_once", least=1, most=10**6)
    arrivals = Arrivals(tuple(sorted(times)), fields.number("per_s", 0.0), fields.integer("count", None, least=1))
    fields.close()
    if not arrivals.at and not arrivals.per_s:
        raise InvalidInput(fields.path, "needs `at`, `at_once` or `per_s`, or no world ever comes")
    return arrivals


def _audience(fields: Fields) -> Audience:
    usual = Audience()
    audience = Audience(
        video_s=fields.number("video_s", usual.video_s, least=0.01, most=1e6),
        spread=fields.flag("spread", usual.spread),
        pace=fields.text("pace", usual.pace, among=PACES),
        fps=fields.number("fps", None, least=0.1, most=240.0),
        key_every_s=fields.number("key_every_s", None, least=0.01),
        key_apart_s=fields.number("key_apart_s", usual.key_apart_s),
        key_from_s=fields.number("key_from_s", usual.key_from_s),
        key_at=tuple(_times(fields, "key_at")),
        buffer=fields.integer("buffer", usual.buffer, least=1, most=64),
    )
    fields.close()
    if audience.key_every_s is not None and audience.key_apart_s >= audience.key_every_s:
        raise InvalidInput(fields.at("key_apart_s"), f"must be less than key_every_s, {audience.key_every_s:g}")
    return audience


def _tenants(fields: Fields) -> tuple[Tenant, ...]:
    tenants = []
    for number, value in enumerate(fields.listed("tenants")):
        inside = Fields(value, f"{fields.at('tenants')}[{number}]")
        tenants.append(
            Tenant(
                name=inside.text("name"),
                traffic=inside.number("traffic", 1.0),
                weight=inside.number("weight", 1.0, least=0.001),
            )
        )
        inside.close()
    names = [tenant.name for tenant in tenants]
    if len(set(names)) < len(names):
        raise InvalidInput("tenants", "two have the same name")
    if tenants and not sum(tenant.traffic for tenant in tenants):
        raise InvalidInput("tenants", "none has any traffic")
    return tuple(tenants) or (Tenant("default"),)


def _slo(fields: Fields) -> Slo:
    slo = Slo(
        on_time=fields.number("on_time", None, most=1.0),
        key_to_frame_p95_s=fields.number("key_to_frame_p95_s", None),
        first_frame_p95_s=fields.number("first_frame_p95_s", None),
        refused=fields.number("refused", 0.0, most=1.0),
    )
    fields.close()
    return slo
