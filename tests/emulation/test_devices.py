"""Devices: holds follow each other without a gap, in order of arrival, also from several processes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from teleworld.emulation.accounts import overheads, read_log
from teleworld.emulation.devices import Devices
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Timeline


def test_reservations_of_one_device_follow_each_other_without_a_gap() -> None:
    devices = Devices()
    holds = [devices.reserve(5.0) for _ in range(4)]
    assert all(later.start == earlier.end for earlier, later in itertools.pairwise(holds))
    assert all(hold.end - hold.start == 5.0 for hold in holds)


def test_of_several_devices_the_one_that_is_free_first_is_taken() -> None:
    devices = Devices(2)
    first, second = devices.reserve(9.0), devices.reserve(5.0)
    third = devices.reserve(1.0)
    assert (first.device, second.device, third.device) == (0, 1, 1)
    assert third.start == second.end


def test_a_device_that_rested_begins_at_once_and_waiting_ends_at_the_holds_end() -> None:
    devices = Devices()
    devices.wait(devices.reserve(0.001), "first")
    hold = devices.reserve(0.02)
    assert hold.start == hold.asked
    late = devices.wait(hold, "second")
    assert time.monotonic() >= hold.end - 0.002
    assert late >= -0.002


def test_threads_share_a_device_one_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    devices = Devices(log=log)
    threads = [
        threading.Thread(target=lambda n=n: devices.wait(devices.reserve(0.004), f"w/decode-0-{n}/1")) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = read_log(log.read_text().splitlines())
    assert len(entries) == 6
    assert all(later.start >= earlier.end for earlier, later in itertools.pairwise(entries))


def test_processes_share_a_device_through_its_clock(tmp_path: Path) -> None:
    clock = tmp_path / "device.clock"
    script = (
        "import sys, json; from pathlib import Path; from teleworld.emulation.devices import Devices\n"
        "hold = Devices(1, Path(sys.argv[1])).reserve(30.0); print(json.dumps([hold.start, hold.end]))"
    )
    ours = Devices(1, clock).reserve(30.0)
    said = subprocess.run(
        [sys.executable, "-c", script, str(clock)], capture_output=True, text=True, check=True, timeout=60
    )
    start, end = json.loads(said.stdout)
    assert start == ours.end
    assert Devices(1, clock).reserve(1.0).start == end


@pytest.mark.parametrize(("count", "field"), [(0, "emulated_devices"), (5000, "emulated_devices")])
def test_a_number_of_devices_out_of_range_is_refused(count: int, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Devices(count)
    assert refused.value.field == field


def test_a_clock_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        Devices(1, tmp_path / "no" / "clock")
    assert refused.value.field == "emulated_device_clock"


def entry(task: str, device: str, start: float, end: float) -> str:
    return json.dumps(
        {"task": f"w/{task}/1", "device": device, "start": start, "end": end, "asked": start, "woke": end}
    )


def test_overhead_is_what_the_critical_path_spends_between_holds() -> None:
    """Gaps before a task whose input came late count; waiting for a busy device does not, nor does anything off the path."""
    timeline = Timeline.of(6, ChainMode.T_B)
    lines = [
        entry("encode-0", "p", 0.0, 1.0),
        entry("bootstrap-0", "r", 0.0, 0.5),
        entry("decode-0-1", "d", 1.01, 1.2),
        entry("guide-0", "r", 0.52, 0.9),
        entry("plan-0", "p", 1.03, 3.0),
        entry("decode-0-2", "d", 3.05, 3.5),
        entry("populate-0-2", "f", 3.04, 3.4),
        entry("decode-0-3", "d", 3.5, 4.0),
        '{"task": "w/dec',
    ]
    arrivals = [(0, 1.25), (1, 3.6), (2, 4.007)]
    lost = overheads(read_log(lines), "w", timeline, arrivals)
    # Chunk 1: the plan to its decoding, and its arrival; what lies before chunk 0's arrival is not counted again.
    assert lost[0] == pytest.approx(0.05 + 0.1)
    # Chunk 2 was decoded right behind chunk 1 on the device: only its arrival is overhead.
    assert lost[1] == pytest.approx(0.007)
