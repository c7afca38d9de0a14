"""Service times: the window is exact, and what is read off it follows the workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleworld.scheduling.measures import WINDOW, Cost, Measures, Window
from teleworld.scheduling.tasks import Kind

PLAN = Cost("m", Kind.PLAN)


@given(values=st.lists(st.floats(0.0, 100.0), max_size=300), size=st.integers(1, 64), share=st.floats(0, 1))
def test_a_window_is_the_newest_samples_and_no_others(values, size, share):
    window = Window(7.0, size)
    for value in values:
        window.add(value)
    kept = sorted(values[-size:])
    assert window.count == len(values)
    assert window.mean == pytest.approx(sum(kept) / len(kept) if kept else 7.0, abs=1e-6)
    assert window.quantile(share) == (kept[min(int(share * len(kept)), len(kept) - 1)] if kept else 7.0)


def test_plans_are_made_with_a_guess_then_with_what_was_measured_and_a_cold_start_is_forgotten():
    measures = Measures(0.1, 0.95, 0.1)
    assert measures.entry(PLAN).used == 0.1
    measures.prime(PLAN, 0.5)
    assert (measures.entry(PLAN).used, measures.entry(PLAN).call.mean) == (0.5, 0.5)
    entry = measures.entry(PLAN)
    measures.add(entry, 9.0, 1, moved=False)
    assert entry.used == 9.0
    for _ in range(2 * WINDOW):
        measures.add(entry, 0.2, 1, moved=False)
    assert entry.used == entry.tail == 0.2
    measures.prime(PLAN, 5.0)
    assert entry.used == 0.2, "a guess does not beat a measurement"


def test_the_revision_moves_only_when_plans_must_be_made_anew():
    measures = Measures(0.1, 0.95, 0.1)
    entry = measures.entry(PLAN)
    measures.add(entry, 0.2, 1, moved=False)
    before = measures.revision
    for step in range(200):
        measures.add(entry, 0.2 + 0.001 * (step % 10), 1, moved=False)
    assert measures.revision == before


def test_a_batch_counts_as_a_call_and_its_tasks_as_shares_of_it():
    entry = Measures(0.1, 0.95, 0.1).entry(PLAN)
    for _ in range(50):
        entry.add(0.4, 4, moved=False)
    assert entry.call.mean == pytest.approx(0.4)
    assert entry.share == pytest.approx(0.1)


def test_a_move_is_only_dear_if_it_was_seen_to_be():
    entry = Measures(0.1, 0.95, 0.1).entry(PLAN)
    for _ in range(20):
        entry.add(0.1, 1, moved=False)
    assert entry.rebuild == 0.0
    for _ in range(5):
        entry.add(0.7, 1, moved=True)
    assert entry.rebuild == pytest.approx(0.6)
