"""Cost tables: what the shipped ones say, how a time is drawn, and how a wrong table is refused."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from teleworld.scheduling.costs import (
    SHIPPED,
    CostTable,
    ServiceTime,
    load_table,
    read_table,
    shipped_tables,
    table_of,
)
from teleworld.scheduling.tasks import CHAIN, Kind, Pool
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import EMULATED, spec_of
from teleworld.world.timeline import ChainMode, Group, Timeline


def median(table: CostTable, kind: Kind, timeline: Timeline, group: int = 0) -> float:
    return table.service(kind, timeline, group).median


@pytest.mark.parametrize("name", shipped_tables())
def test_a_shipped_table_is_of_its_file_and_prices_every_task(name: str) -> None:
    table = load_table(name)
    assert table.name == name
    for model in table.models:
        timeline = spec_of(model).timeline(ChainMode.T_C)
        assert all(median(table, kind, timeline, Group.FIRST_HALF) > 0 for kind in Kind)
    assert all(len(cost.source) > 10 for cost in table.tasks.values())


def test_every_emulated_world_has_exactly_one_table() -> None:
    tables = [load_table(name) for name in shipped_tables()]
    for spec in EMULATED:
        assert [table for table in tables if spec.name in table.models] == [table_of(spec.name)]


def test_the_18b_table_reproduces_the_papers_rate_on_its_devices() -> None:
    """8 frames a second on four devices: no device is asked for more than a segment's time, and the chain just fits."""
    table = table_of("emulated-18b")
    setup = table.setups["four-h100"]
    timeline = spec_of("emulated-18b").timeline(setup.chain)
    assert len(setup.devices) == 4 and setup.fps == 8
    seconds = timeline.frames_per_segment / setup.fps
    chain = sum(median(table, kind, timeline) for kind in CHAIN)
    assert 0.9 * seconds < chain <= seconds
    populating = sum(median(table, Kind.POPULATE, timeline, group) for group in timeline.groups[1:])
    assert populating <= seconds * sum(Pool.POPULATOR in served for served in setup.devices)
    decoding = timeline.chunks_per_segment * median(table, Kind.DECODE, timeline)
    assert decoding + sum(median(table, kind, timeline) for kind in (Kind.GUIDE, Kind.RECONSTRUCT)) <= seconds


def test_one_device_can_make_32_frames_a_second_of_the_small_model() -> None:
    table = table_of("emulated-1.3b")
    setup = table.setups["one-h100"]
    timeline = spec_of("emulated-1.3b").timeline(setup.chain)
    work = sum(median(table, kind, timeline) for kind in CHAIN)
    work += sum(median(table, Kind.POPULATE, timeline, group) for group in timeline.groups[1:])
    work += timeline.chunks_per_segment * median(table, Kind.DECODE, timeline)
    assert len(setup.devices) == 1
    assert 32 < timeline.frames_per_segment / work < 40


def test_devices_that_work_as_one_divide_what_is_parallel_and_nothing_else() -> None:
    table, timeline = table_of("emulated-1.3b"), spec_of("emulated-1.3b").timeline(ChainMode.T_B)
    pair = table.ranked(table.setups["five-h100"].ranks)
    share = table.tasks[Kind.PLAN].parallel
    for kind in (Kind.PLAN, Kind.POPULATE):
        group = Group.FIRST_HALF if kind is Kind.POPULATE else 0
        assert median(pair, kind, timeline, group) == pytest.approx(
            median(table, kind, timeline, group) * (1 - share / 2)
        )
    for kind in (Kind.BRIDGE, Kind.GUIDE, Kind.RECONSTRUCT, Kind.DECODE):
        assert median(pair, kind, timeline) == median(table, kind, timeline)


def test_a_group_that_sees_more_costs_more_and_a_cut_segment_less() -> None:
    table, timeline = table_of("emulated-14b-n21"), spec_of("emulated-14b-n21").timeline(ChainMode.T_C)
    first, second = (median(table, Kind.POPULATE, timeline, group) / len(timeline.members(group)) for group in (2, 3))
    assert first < second
    assert median(table, Kind.RECONSTRUCT, timeline.cut(3)) < median(table, Kind.RECONSTRUCT, timeline)


def test_a_batch_costs_less_than_its_tasks_one_by_one_and_some_kinds_take_none() -> None:
    table, timeline = table_of("emulated-1.3b"), spec_of("emulated-1.3b").timeline(ChainMode.T_B)
    one, four = (table.service(Kind.PLAN, timeline, batch=batch).median for batch in (1, 4))
    assert one < four < 4 * one
    with pytest.raises(InvalidInput) as refused:
        table.service(Kind.RECONSTRUCT, timeline, batch=2)
    assert refused.value.field == "batch"


def test_scaling_a_table_scales_every_time_and_nothing_else() -> None:
    table, timeline = table_of("emulated-1.3b"), spec_of("emulated-1.3b").timeline(ChainMode.T_C)
    fast = table.scaled(0.01)
    for kind in Kind:
        assert median(fast, kind, timeline, 3) == pytest.approx(median(table, kind, timeline, 3) / 100)
    assert fast.price == table.price and fast.cold_start.value == table.cold_start.value / 100


def test_draws_follow_the_distribution_that_the_quantiles_tell() -> None:
    service = ServiceTime(median=0.2, spread=0.3, tail_share=0.05, tail_factor=4.0)
    random_ = random.Random(3)
    drawn = sorted(service.at(random_.random()) for _ in range(20_000))
    for share in (0.1, 0.5, 0.9, 0.97):
        assert drawn[int(share * len(drawn))] == pytest.approx(service.quantile(share), rel=0.05)
    assert statistics.fmean(drawn) == pytest.approx(service.mean, rel=0.02)
    assert service.at(0.5 * 0.95) == pytest.approx(0.2)
    assert service.at(0.25) == service.at(0.25)


def test_without_spread_or_stragglers_every_draw_is_the_median() -> None:
    service = ServiceTime(0.5, 0.0, 0.0, 1.0)
    assert [service.at(draw) for draw in (0.0, 0.3, 0.999999)] == [0.5] * 3
    assert service.quantile(0.99) == pytest.approx(0.5, rel=1e-5)


def broken(change: Callable[[dict[str, Any]], None]) -> str:
    """The 1.3B table after a change."""
    document = yaml.safe_load((SHIPPED / "wan-1.3b-480x832.yaml").read_text())
    change(document)
    return yaml.safe_dump(document)


WRONG: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("tasks.plan.time.each_ms", lambda d: d["tasks"]["plan"]["time"].update(each_ms=-1)),
    ("tasks.plan.time.each_ms", lambda d: d["tasks"]["plan"]["time"].update(each_ms="80")),
    ("tasks.plan.time.each_ms", lambda d: d["tasks"]["plan"]["time"].update(each_ms=True)),
    ("tasks.plan.time.each_ms", lambda d: d["tasks"]["plan"]["time"].update(each_ms=float("nan"))),
    ("tasks.plan.time.each_ms", lambda d: d["tasks"]["plan"]["time"].pop("each_ms")),
    ("tasks.plan.time.eachms", lambda d: d["tasks"]["plan"]["time"].update(eachms=1)),
    ("tasks.plan.time", lambda d: d["tasks"]["plan"]["time"].update(fixed_ms=0, each_ms=0)),
    ("tasks.plan.time.tail_factor", lambda d: d["tasks"]["plan"]["time"].update(tail_factor=0.5)),
    ("tasks.plan.time.batch", lambda d: d["tasks"]["plan"]["time"].update(batch=1.5)),
    ("tasks.plan.source", lambda d: d["tasks"]["plan"].update(source="guess")),
    ("tasks.decode.time.fixed_ms", lambda d: d["tasks"].pop("decode")),
    ("tasks.dance", lambda d: d["tasks"].update(dance={})),
    ("tasks", lambda d: d.update(tasks=[1])),
    ("models[1]", lambda d: d.update(models=["emulated-1.3b", "Not A Name"])),
    ("models", lambda d: d.update(models=[])),
    ("device.price_usd_per_hour.value", lambda d: d["device"]["price_usd_per_hour"].pop("value")),
    ("cold_start_s.source", lambda d: d["cold_start_s"].update(source=3)),
    ("bytes.kv_per_latent.value", lambda d: d["bytes"]["kv_per_latent"].update(value=-5)),
    ("setups.one-h100.devices", lambda d: d["setups"]["one-h100"].update(devices=[["planner", "decoder"]])),
    ("setups.one-h100.devices[0][1]", lambda d: d["setups"]["one-h100"].update(devices=[["planner", "cook"]])),
    ("setups.one-h100.chain", lambda d: d["setups"]["one-h100"].update(chain="t_x")),
    ("setups.one-h100.ranks.planner", lambda d: d["setups"]["one-h100"].update(ranks={"planner": 2})),
    ("setups.five-h100.ranks.planner", lambda d: d["setups"]["five-h100"].update(ranks={"planner": 0})),
    ("setups.five-h100.ranks.cook", lambda d: d["setups"]["five-h100"].update(ranks={"cook": 2})),
    ("tasks.plan.time.parallel", lambda d: d["tasks"]["plan"]["time"].update(parallel=1.1)),
    ("setups", lambda d: d.update(setups={})),
    ("name", lambda d: d.pop("name")),
]


@pytest.mark.parametrize(("field", "change"), WRONG, ids=[field for field, _ in WRONG])
def test_a_wrong_table_is_refused_with_the_field_named(field: str, change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_table(broken(change))
    assert refused.value.field == field


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_table_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_table(text)


def test_a_table_that_cannot_be_read_is_refused_with_the_shipped_ones_named(tmp_path: Path) -> None:
    for name in ("no-such-table", tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(InvalidInput, match=r"wan-18b-960x1760") as refused:
            load_table(name)
        assert refused.value.field == "cost_table"
    with pytest.raises(InvalidInput):
        table_of("nobody")
