"""What the adaptive policy adds to an order: just in time, affinity, batches, fair shares, admission, second copies."""

import itertools
from collections import Counter

import pytest

from teleworld.scheduling.policy import Limits, Ordering, Policy, Scheduler, Share
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.world.errors import InvalidInput, Overloaded
from teleworld.world.timeline import ChainMode, Timeline
from tests.scheduling.driver import EVEN, Mesh

LIVE = Timeline.of(10, ChainMode.T_B)
"""20 frames a segment: 1.25 s at 16 frames a second."""


# -- just in time -----------------------------------------------------------------------------------------------------


def lead(mesh, world, segment):
    """Seconds from the start of a segment's GUIDE, where its keys bind, to the playing of its first chunk."""
    began = next(when for when, assignment in mesh.starts if assignment.task == Task(world, Kind.GUIDE, segment))
    return mesh.seen[world].shown[1 + 5 * segment] - began


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_keys_bind_as_late_as_measured_times_allow_and_no_chunk_is_missed(jitter):
    mesh = Mesh(2, jitter=jitter, seed=3)
    seen = mesh.add("w", LIVE, Limits(24, realtime=True), until=400)
    mesh.run()
    assert not [when for when in seen.stalls if when > 2.0], "a chunk came too late"
    needed = sum(EVEN[kind] for kind in (Kind.GUIDE, Kind.PLAN, Kind.DECODE)) * (1 + jitter)
    late = [lead(mesh, "w", segment) for segment in range(20, 70)]
    assert all(needed * (1 - 2 * jitter) <= seconds <= needed + 0.15 for seconds in late), (needed, max(late))


def test_a_slower_stage_moves_the_binding_forward_before_the_player_stalls_for_long():
    mesh = Mesh(2)
    seen = mesh.add("w", LIVE, Limits(24, realtime=True), until=400)
    mesh.run(until=30.0)
    before = lead(mesh, "w", 20)
    mesh.durations = EVEN | {Kind.PLAN: 0.4}
    mesh.run()
    assert lead(mesh, "w", 60) > before + 0.3
    assert len([when for when in seen.stalls if when > 30]) <= 3
    assert not [when for when in seen.stalls if when > 40], "it did not learn"


def test_other_orders_open_as_soon_as_the_look_ahead_allows():
    mesh = Mesh(2)
    mesh.add("w", LIVE, Limits(10, realtime=True, ordering=Ordering.MINIMUM_MEMORY), until=100)
    mesh.run()
    assert lead(mesh, "w", 15) > 2.0


def test_playback_buffers_decide_between_worlds():
    """One decoder, two worlds: the one whose next chunk is due sooner goes first."""
    scheduler = Scheduler()
    scheduler.join("decoder", Pool.DECODER, 1, 0.0)
    for name, since in (("rested", 0.0), ("pressed", 10.0)):
        chain = [Task(name, kind, 0) for kind in (Kind.ENCODE, Kind.BOOTSTRAP, Kind.GUIDE, Kind.PLAN)]
        scheduler.add(
            name, LIVE, 16.0, Limits(24, realtime=True), 10.0 - since, done=[*chain, Task(name, Kind.BRIDGE, 0)]
        )
    (first,) = scheduler.decide(10.0)
    assert first.task.world == "pressed"


# -- affinity ---------------------------------------------------------------------------------------------------------


def decoding(scheduler, world, segments=40):
    """A world of which everything but decoding is done."""
    done = [Task(world, kind, 0) for kind in (Kind.ENCODE, Kind.BOOTSTRAP)]
    for segment in range(segments):
        done += [Task(world, kind, segment) for kind in (Kind.GUIDE, Kind.PLAN, Kind.BRIDGE, Kind.RECONSTRUCT)]
        done += [Task(world, Kind.POPULATE, segment, 2)]
    scheduler.add(world, LIVE, 16.0, Limits(10_000), 0.0, done=done)
    scheduler.until(world, 1 + 5 * segments)


def serve(scheduler, seconds, until=1000.0):
    """Run a scheduler's tasks; `seconds(assignment)` is the service time. Returns (begin, assignment) of each."""
    running, starts, now = [], [], 0.0
    while now < until:
        for assignment in scheduler.decide(now):
            starts.append((now, assignment))
            running.append((now + seconds(assignment), len(starts), assignment))
        ends = [end for end, _, _ in running]
        if (wake := scheduler.wake_at()) is not None:
            ends.append(wake)
        if not ends:
            break
        now = max(now, min(ends))
        for entry in [entry for entry in running if entry[0] <= now]:
            running.remove(entry)
            begun = next(when for when, assignment in starts if assignment is entry[2])
            scheduler.finished(entry[2].task, entry[2].worker, now - begun, now)
    return starts


@pytest.mark.parametrize(("rebuild", "moves"), [(0.0, True), (0.5, False)])
def test_a_task_waits_for_the_worker_that_holds_its_world_if_that_is_cheaper(rebuild, moves):
    """Two decoders, three worlds: somebody must share. State that is dear to build is waited for, once that was measured."""
    scheduler, held = Scheduler(Policy(hedge=1e9)), {}
    for number in range(2):
        scheduler.join(f"decoder-{number}", Pool.DECODER, 1, 0.0)
    for world in ("a", "b", "c"):
        decoding(scheduler, world)

    def seconds(assignment):
        world = assignment.task.world
        moved = held.get(world, assignment.worker) != assignment.worker
        held[world] = assignment.worker
        return 0.05 + rebuild * moved

    starts = serve(scheduler, seconds)
    late = [assignment for _, assignment in starts[len(starts) // 2 :]]
    homes = Counter((assignment.task.world, assignment.worker) for assignment in late)
    changes = sum(
        one.worker != two.worker
        for world in ("a", "b", "c")
        for one, two in itertools.pairwise([a for a in late if a.task.world == world])
    )
    assert len({assignment.task for _, assignment in starts}) == 3 * 201
    assert (changes > 20) == moves, homes


# -- batches ----------------------------------------------------------------------------------------------------------


def test_a_busy_worker_takes_tasks_of_one_shape_together_and_a_free_one_is_used_first():
    for populators, together in ((1, 3), (4, 1)):
        mesh = Mesh(populators, batches={Kind.POPULATE: 4}, others=4)
        for number in range(4):
            mesh.add(f"w{number}", LIVE, Limits(10), until=6)
        mesh.run()
        # The first task that is ready does not wait for the others; they come while it runs.
        sizes = Counter(assignment.call for _, assignment in mesh.starts if assignment.task.kind is Kind.POPULATE)
        assert max(sizes.values()) == together


def test_a_batch_does_not_make_a_task_late_that_would_be_on_time_alone():
    """Calls take as long as their tasks one after another, so a task that is due soon goes alone."""
    for due_in, together in ((10.0, 4), (0.25, 2)):
        scheduler = Scheduler()
        scheduler.join("populator", Pool.POPULATOR, 1, 0.0, {Kind.POPULATE: 4})
        for kind in Kind:
            scheduler.prime(kind, 0.05)
        scheduler.prime(Kind.POPULATE, 0.1, group=2)
        # Latent 3 is due one chunk after the player began, less its decoding and what populating takes.
        began = due_in - 5 / 16 + 0.05
        for number in range(4):
            done = [Task(f"w{number}", kind) for kind in (Kind.ENCODE, Kind.BOOTSTRAP, Kind.GUIDE, Kind.PLAN)]
            scheduler.add(f"w{number}", LIVE, 16.0, Limits(24), began, done=done)
        assert len(scheduler.decide(0.0)) == together


# -- fair shares ------------------------------------------------------------------------------------------------------


def test_a_crowded_tenant_does_not_push_the_others_aside_and_weights_count():
    mesh = Mesh(1, EVEN | {Kind.DECODE: 0.3})
    for number in range(8):
        mesh.add(f"many-{number}", LIVE, Limits(12, realtime=True), share=Share("many"))
    mesh.add("one", LIVE, Limits(12, realtime=True), share=Share("one"))
    mesh.add("dear", LIVE, Limits(12, realtime=True), share=Share("dear", 2.0))
    mesh.run(until=60.0)
    made = {world: len(seen.ready) for world, seen in mesh.seen.items()}
    crowd = [made[f"many-{number}"] for number in range(8)]
    assert min(crowd) > 0, "somebody starves"
    assert 0.75 <= made["one"] / sum(crowd) <= 1.35
    assert 1.6 <= made["dear"] / made["one"] <= 2.4


def test_a_share_needs_a_weight():
    with pytest.raises(InvalidInput, match=r"share\.weight"):
        Share("t", 0.0)


# -- admission --------------------------------------------------------------------------------------------------------


def test_a_world_is_refused_when_it_would_starve_those_that_run():
    mesh = Mesh(4, EVEN | {Kind.DECODE: 0.04}, others=2)
    admitted = 0
    with pytest.raises(Overloaded) as refusal:
        for admitted in range(100):
            mesh.scheduler.admit(LIVE, 16.0)
            mesh.add(f"w{admitted}", LIVE, Limits(24, realtime=True))
            mesh.run(until=mesh.now + 3.0)
    # Decoding is the narrowest: five chunks of 0.04 s each 1.25 s, on two decoders that are filled to 90 %.
    assert admitted == 11
    assert 0 < refusal.value.retry_after_s <= 60
    mesh.run(until=mesh.now + 40)
    late = [when for seen in mesh.seen.values() for when in seen.stalls if when > mesh.now - 30]
    assert not late, "those that were let in do not get their frame rate"
    mesh.scheduler.remove("w0")
    mesh.scheduler.admit(LIVE, 16.0)


def test_nobody_is_refused_before_anything_is_measured_or_while_nobody_plays():
    scheduler = Scheduler()
    for pool in Pool:
        scheduler.join(pool.value, pool, 1, 0.0)
    for kind in Kind:
        scheduler.prime(kind, 30.0)
    scheduler.admit(LIVE, 16.0)
    scheduler.add("w", LIVE, 16.0, Limits(24, realtime=True), 0.0)
    scheduler.admit(LIVE, 16.0)


# -- stragglers -------------------------------------------------------------------------------------------------------


def test_a_hung_worker_costs_little_and_sits_on_the_bench():
    mesh = Mesh(3)
    seen = mesh.add("w", LIVE, Limits(24, realtime=True), until=600)
    mesh.run(until=40.0)
    victim = mesh.scheduler.holds("w", Pool.POPULATOR)
    mesh.stretch = lambda assignment: 1e6 if assignment.worker == victim else 1.0
    mesh.run(until=100.0)
    hedges = [when for when, assignment in mesh.starts if assignment.hedge]
    assert hedges, "nobody took over"
    sent = [when for when, assignment in mesh.starts if assignment.worker == victim and when > 40]
    assert len(sent) < 10, "a worker that hangs is asked again and again"
    assert not [when for when in seen.stalls if when > 45]
    assert len(seen.ready) > 390


def test_the_bench_never_empties_a_pool():
    mesh = Mesh(2)
    seen = mesh.add("w", LIVE, Limits(24), until=200)
    mesh.stretch = lambda assignment: 30.0 if mesh.chance.random() < 0.1 else 1.0
    mesh.run()
    assert len(seen.ready) == 200


def test_a_second_copy_counts_once_whoever_wins():
    mesh = Mesh(3, others=2, seed=2)
    seen = mesh.add("w", LIVE, Limits(24), until=300)
    mesh.stretch = lambda assignment: 4.0 if mesh.chance.random() < 0.05 else 1.0
    mesh.run()
    assert any(assignment.hedge for _, assignment in mesh.starts)
    assert max(mesh.results.values()) == 1
    assert len(seen.ready) == 300
