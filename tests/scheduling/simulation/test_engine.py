"""The simulator: schedules that can be told by hand, nothing lost or made twice, and the same run for the same seed."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest

from teleworld.scheduling.ordering import Ordering
from teleworld.scheduling.simulation.bounds import bounds, needed
from teleworld.scheduling.simulation.results import summarise
from teleworld.scheduling.simulation.specification import Arrivals, Audience, Autoscale, DeviceSet, Tenant
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.timeline import ChainMode
from tests.scheduling.simulation.small import MODEL, run, spec, table


def schedule(done):
    """(begin, end) of every task by its name."""
    return {bar.task.name: (bar.begin, bar.end) for bar in done.bars if bar.done}


def test_one_segment_is_scheduled_as_by_hand():
    assert schedule(run(spec())) == {
        "encode-0": (0, 1),
        "bootstrap-0": (0, 1),
        "guide-0": (1, 2),
        "decode-0-1": (1, 1.5),
        "plan-0": (2, 4),
        "decode-0-2": (4, 4.5),
        "populate-0-2": (4, 7),
        "decode-0-3": (7, 7.5),
        "decode-0-4": (7.5, 8),
    }


def test_the_chain_of_the_next_segment_runs_beside_the_populating_of_this_one():
    times = schedule(run(spec(audience=Audience(video_s=24, pace="max"))))
    assert times["bridge-0"] == (4, 5) and times["reconstruct-0"] == (5, 6) and times["guide-1"] == (6, 7)
    assert times["plan-1"] == (7, 9) and times["populate-1-2"] == (9, 12)
    assert times["decode-1-4"] == (12.5, 13)


def test_figures_of_the_hand_made_schedule():
    result = summarise(run(spec()))
    assert (result.makespan, result.frames, result.complete, result.tasks) == (8.0, 13, 1, 9)
    assert result.fps == 13 / 8
    assert result.first_frame.p50 == 4.5
    busy = {each.name: each.utilisation * 8 for each in result.sets}
    assert busy == pytest.approx({"planner": 3, "populator": 3, "reconstructor": 2, "decoder": 2})
    assert result.cost == pytest.approx(4 * 8 / 3600 * 3.6)
    # A plan holds 4 latents' keys and values, the half 3 + 1 of its own; nothing else runs beside either.
    assert result.peak_kv == 400.0


def test_bounds_of_the_hand_made_schedule():
    done = run(spec())
    bound = bounds(done.timeline, 4, lambda task: done.timing.seconds(0, task), done.spec.devices)
    assert bound.critical_path == 8.0 == bound.lower
    assert bound.work == {"planner": 3.0, "populator": 3.0, "reconstructor": 2.0, "decoder": 2.0}


def test_a_player_stalls_on_a_chunk_that_misses_its_turn_and_keys_are_timed_to_the_screen():
    # Chunk 0 comes at 1.5, chunk 1 at 4.5, chunks 2 and 3 at 7.5 and 8: the player starts with two, at 4.5.
    done = run(spec(audience=Audience(video_s=12, buffer=2)))
    result = summarise(done)
    assert (result.stalls, result.on_time) == (0, 1.0), "a frame a second is slow enough"
    quick = dataclasses.replace(spec(audience=Audience(video_s=3, buffer=2, fps=4)), seconds=100)
    result = summarise(run(quick))
    # At four frames a second chunk 0 ends at 4.75 and chunk 1 at 5.75, but chunk 2 comes at 7.5.
    assert result.stalls == 1 and result.stalled == pytest.approx(1.75 / (1.75 + 13 / 4))


@pytest.mark.parametrize("ordering", Ordering)
def test_every_chunk_comes_exactly_once_under_every_ordering(ordering):
    sets = tuple(DeviceSet((pool,), 2, mean_life_s=40.0, cold_start_s=3.0) for pool in Pool)
    done = run(
        spec(
            devices=sets,
            arrivals=Arrivals(at=(0.0, 1.0, 2.0), per_s=0.2, count=8),
            audience=Audience(video_s=40.0, pace="max", key_every_s=4.0),
            ordering=ordering,
            chain=ordering.chain or ChainMode.T_C,
            seed=3,
        ),
        table(spread=0.3),
    )
    assert done.fleet.failures > 0
    assert [viewer.arrivals for _, viewer in done.crowd.past] == [viewer.chunks for _, viewer in done.crowd.past]
    assert len(done.crowd.past) == 8, "a viewer raises if a chunk comes twice, and counts only what is in order"
    finished = Counter(bar.task for bar in done.bars if bar.done)
    assert set(finished.values()) == {1}
    for number, (_, viewer) in enumerate(done.crowd.past):
        mine = {task._replace(world="") for task in finished if task.world == f"w{number}"}
        assert mine >= set(needed(done.timeline, viewer.chunks))


def test_a_seed_fixes_a_run_and_another_one_changes_it():
    wanted = spec(
        populators=2,
        arrivals=Arrivals(per_s=0.5, count=5),
        audience=Audience(video_s=30, spread=True, key_every_s=2),
        devices=tuple(DeviceSet((pool,), 2, mean_life_s=60.0) for pool in Pool),
    )
    one, same, other = (run(dataclasses.replace(wanted, seed=seed), table(spread=0.2)) for seed in (1, 1, 2))
    assert one.bars == same.bars and summarise(one) == summarise(same)
    assert one.bars != other.bars


def test_a_device_that_serves_several_pools_does_one_task_at_a_time():
    done = run(spec(devices=(DeviceSet(tuple(Pool), 1),)))
    spans = sorted((bar.begin, bar.end) for bar in done.bars)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert summarise(done).sets[0].utilisation == pytest.approx(1.0)


def test_a_queue_that_grows_brings_devices_and_an_empty_one_sends_them_home():
    rule = Autoscale(least=1, most=6, every_s=2.0, settle_s=4.0)
    sets = tuple(
        DeviceSet((pool,), 1, autoscale=rule if pool is Pool.POPULATOR else None, cold_start_s=5.0) for pool in Pool
    )
    crowd = Arrivals(at=(0.0,) * 8 + (200.0,))
    done = run(spec(devices=sets, arrivals=crowd, audience=Audience(video_s=40, pace="max")))
    populators = [device for device in done.fleet.devices if device.kind.name == "populator"]
    assert len(populators) > 2
    assert all(device.ready - device.wished == 5.0 for device in populators[1:])
    assert min(device.gone for device in populators) < 200.0, "given back while nobody was there"
    assert all(viewer.complete for _, viewer in done.crowd.past)


def test_tenants_get_their_traffic_and_the_heavier_one_is_served_first():
    wanted = spec(
        arrivals=Arrivals(at=(0.0,) * 40),
        audience=Audience(video_s=40, pace="max"),
        tenants=(Tenant("heavy", traffic=1, weight=8), Tenant("light", traffic=1, weight=1)),
        seconds=200,
    )
    heavy, light = summarise(run(wanted)).tenants
    assert heavy.worlds + light.worlds == 40 and min(heavy.worlds, light.worlds) > 10
    assert heavy.frames / heavy.worlds > 1.5 * light.frames / light.worlds


def test_tasks_of_several_worlds_share_a_call_where_that_is_cheaper():
    shared = dataclasses.replace(
        table(), tasks={kind: dataclasses.replace(cost, batch=0.25) for kind, cost in table().tasks.items()}
    )
    crowd = {"arrivals": Arrivals(at=(0.0,) * 8), "audience": Audience(video_s=12.0, pace="max")}
    ends = []
    for batch in (1, 4):
        done = run(spec(devices=tuple(DeviceSet((pool,), 1, batch=batch) for pool in Pool), **crowd), shared)
        assert all(viewer.complete for _, viewer in done.crowd.past)
        together = Counter((bar.worker, bar.begin) for bar in done.bars)
        assert max(together.values()) == batch
        ends.append(summarise(done).makespan)
    # Four of a call's tasks take 1.75 times as long as one alone, in two of the pools.
    assert ends[1] < 0.9 * ends[0]


def test_a_decoder_without_the_stream_s_state_decodes_its_history_again():
    # Two decoders, and the one that served the world fails in between: the other one starts over.
    decoders = DeviceSet((Pool.DECODER,), 2, mean_life_s=4.0)
    sets = (*(DeviceSet((pool,), 1) for pool in Pool if pool is not Pool.DECODER), decoders)
    done = run(spec(devices=sets, audience=Audience(video_s=60, pace="max"), seed=1))
    decodes = [bar for bar in done.bars if bar.done and bar.task.kind is Kind.DECODE]
    took = {round(bar.end - bar.begin, 6) for bar in decodes}
    assert took == {0.5, 1.0, 1.5}
    for bar in decodes:
        if round(bar.end - bar.begin, 6) > 0.5:
            before = next(other for other in decodes if other.task == bar.task._replace(index=bar.task.index - 1))
            assert before.worker != bar.worker and bar.end - bar.begin == pytest.approx(0.5 * (bar.task.index - 1))


def test_overhead_delays_answers_but_not_devices():
    late, early = (summarise(run(spec(overhead_s=seconds))) for seconds in (0.25, 0.0))
    # bootstrap, guide, plan, half, and two decodes lie on the path, one overhead each.
    assert late.makespan == pytest.approx(early.makespan + 6 * 0.25)
    assert [each.utilisation * late.seconds for each in late.sets] == pytest.approx(
        [each.utilisation * early.seconds for each in early.sets]
    )


def test_keys_bind_to_the_segment_that_opens_next():
    audience = Audience(video_s=120, pace="max", key_every_s=5.0)
    done = run(spec(audience=audience, seed=4))
    ((_, viewer),) = done.crowd.past
    assert viewer.key_to_frame and all(0 < seconds < done.agenda.now for seconds in viewer.key_to_frame)
    assert MODEL.latents == 6
