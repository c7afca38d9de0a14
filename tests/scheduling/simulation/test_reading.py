"""A specification is read strictly: the first thing that is wrong is named by its path."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from teleworld.scheduling.ordering import Ordering
from teleworld.scheduling.simulation.reading import read_spec
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "simulate"
GOOD = {
    "name": "one",
    "model": "emulated-18b",
    "devices": [{"serves": ["planner", "reconstructor"], "count": 2}, {"serves": ["populator", "decoder"]}],
    "arrivals": {"at": [0, 1.5], "per_s": 2, "count": 5},
    "audience": {"video_s": 30, "pace": "max", "key_every_s": 2},
    "tenants": [{"name": "a", "weight": 2}, {"name": "b"}],
    "slo": {"on_time": 0.9},
    "chain": "t_c",
    "overhead_ms": 3,
}


def test_a_whole_specification():
    spec = read_spec(GOOD)
    assert [devices.name for devices in spec.devices] == ["planner+reconstructor", "populator+decoder"]
    assert (spec.devices[0].count, spec.arrivals.at, spec.arrivals.count) == (2, (0.0, 1.5), 5)
    assert (spec.chain, spec.ordering, spec.overhead_s) == (ChainMode.T_C, Ordering.ADAPTIVE, 0.003)
    assert spec.tenants[0].weight == 2 and spec.slo.on_time == 0.9 and spec.slo.refused == 0.0


def test_a_set_up_of_the_cost_table():
    tree = {name: value for name, value in GOOD.items() if name != "devices"} | {"setup": "four-h100"}
    spec = read_spec(tree)
    assert [(devices.name, devices.count) for devices in spec.devices] == [
        ("planner", 1),
        ("populator", 2),
        ("reconstructor+decoder", 1),
    ]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["model"], "wan-99b", "model"),
        (["nonsense"], 1, "nonsense"),
        (["devices", 0, "count"], 0, "devices[0].count"),
        (["devices", 0, "count"], 1.5, "devices[0].count"),
        (["devices", 1, "speed"], 2, "devices[1].speed"),
        (["devices", 1, "serves", 0], "gateway", "devices[1].serves[0]"),
        (["devices", 1, "serves"], ["populator"], "devices"),
        (["devices", 0, "autoscale"], {"max": 1}, "devices[0].autoscale"),
        (["devices", 0, "autoscale"], {"min": 1}, "devices[0].autoscale.max"),
        (["devices"], "many", "devices"),
        (["setup"], "four-h100", "setup"),
        (["arrivals"], {}, "arrivals"),
        (["arrivals", "at", 1], "soon", "arrivals.at[1]"),
        (["arrivals", "per_s"], float("nan"), "arrivals.per_s"),
        (["audience", "pace"], "slow", "audience.pace"),
        (["audience", "spread"], 1, "audience.spread"),
        (["tenants", 0, "weight"], 0, "tenants[0].weight"),
        (["tenants", 1, "name"], "a", "tenants"),
        (["slo", "on_time"], 99, "slo.on_time"),
        (["ordering"], "minimum_memory", "chain"),
        (["seed"], True, "seed"),
        (["seconds"], "long", "seconds"),
    ],
)
def test_what_is_wrong_is_named(path, value, field):
    tree = copy.deepcopy(GOOD)
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InvalidInput) as error:
        read_spec(tree)
    assert error.value.field == field


def test_a_missing_field_is_named():
    with pytest.raises(InvalidInput) as error:
        read_spec({name: value for name, value in GOOD.items() if name != "arrivals"})
    assert error.value.field == "arrivals"
    with pytest.raises(InvalidInput) as error:
        read_spec(None)
    assert error.value.field == "spec"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_good(path):
    spec = read_spec(yaml.safe_load(path.read_text()))
    assert {pool for devices in spec.devices for pool in devices.serves} == set(Pool)
