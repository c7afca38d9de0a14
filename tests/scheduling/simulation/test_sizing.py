"""The sizes that `--solve` finds keep the promise, and no set can do with one device less."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from teleworld.scheduling.simulation.results import broken, summarise
from teleworld.scheduling.simulation.sizing import solve
from teleworld.scheduling.simulation.specification import Arrivals, Audience, Autoscale, DeviceSet, Slo
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput, PreconditionFailed
from tests.scheduling.simulation.small import MODEL, run, spec, table

BUSY = dict(
    arrivals=Arrivals(at=(0.0, 0.0, 1.0, 1.0)),
    audience=Audience(video_s=36.0, fps=2.0),
    slo=Slo(on_time=0.99, first_frame_p95_s=10.0),
)


def test_the_sizes_are_minimal():
    wanted = spec(
        devices=(DeviceSet((Pool.PLANNER, Pool.RECONSTRUCTOR), 1), DeviceSet((Pool.POPULATOR, Pool.DECODER), 1)), **BUSY
    )
    found = solve(wanted, MODEL, table())
    names = list(found.counts)
    assert not broken(found.result, wanted.slo)

    def keeps(*counts: int) -> bool:
        return not broken(summarise(run(wanted.sized(dict(zip(names, counts, strict=True))))), wanted.slo)

    best = tuple(found.counts.values())
    good = [counts for counts in itertools.product(range(1, best[0] + 2), range(1, best[1] + 2)) if keeps(*counts)]
    assert best in good
    assert min(sum(counts) for counts in good) == sum(best), "exhaustive search finds nothing smaller"


def test_a_promise_that_no_fleet_can_keep_is_told():
    with pytest.raises(PreconditionFailed, match="first_frame_p95_s is 4"):
        solve(spec(slo=Slo(first_frame_p95_s=0.5)), MODEL, table())


def test_what_cannot_be_sized_names_its_field():
    with pytest.raises(InvalidInput) as error:
        solve(spec(), MODEL, table())
    assert error.value.field == "slo"
    scaling = dataclasses.replace(spec(**BUSY), devices=(DeviceSet(tuple(Pool), 1, autoscale=Autoscale(1, 2)),))
    with pytest.raises(InvalidInput) as error:
        solve(scaling, MODEL, table())
    assert error.value.field == "devices[0].autoscale"
