"""The figures of a simulation as rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping

from teleworld.scheduling.simulation.results import Result, Spread, broken
from teleworld.scheduling.simulation.specification import Slo

Rows = list[tuple[str, ...]]


def figures(result: Result, slo: Slo) -> Rows:
    """The figures of the whole run: name and value."""
    faults = broken(result, slo)
    promises = "; ".join(faults) if faults else "kept" if not slo.empty else "none given"
    return [
        ("simulated", f"{result.seconds:.1f} s, {result.tasks} tasks"),
        (
            "worlds",
            f"{result.worlds} served ({result.most} at once), {result.complete} to their end, {result.refused} refused",
        ),
        ("throughput", f"{result.fps:.2f} frames/s, {result.frames} frames"),
        ("last chunk", f"{result.makespan:.2f} s"),
        ("chunks on time", _share(result.on_time)),
        ("stalls", f"{result.stalls}, {100 * result.stalled:.2f} % of the time"),
        ("first frame", _spread(result.first_frame)),
        ("key to frame", _spread(result.key_to_frame)),
        ("most memory", f"{_bytes(result.peak_memory)}, of these latents {_bytes(result.peak_latents)}"),
        ("most KV of a task", _bytes(result.peak_kv)),
        ("failures", str(result.failures)),
        ("cost", f"{result.cost:.2f} USD, {_money(result.cost_per_world_hour)} for a world-hour"),
        ("promises", promises),
    ]


def sets(result: Result) -> tuple[Rows, tuple[str, ...]]:
    """A row for each device set, and the header."""
    rows: Rows = [
        (each.name, f"{each.devices:.1f}", f"{100 * each.utilisation:.1f} %", str(each.wished), f"{each.cost:.2f}")
        for each in result.sets
    ]
    return rows, ("serves", "devices", "utilisation", "ordered", "USD")


def tenants(result: Result) -> tuple[Rows, tuple[str, ...]]:
    """A row for each tenant, and the header."""
    rows: Rows = [(each.name, str(each.worlds), str(each.frames), _share(each.on_time)) for each in result.tenants]
    return rows, ("tenant", "worlds", "frames", "on time")


def sized(counts: Mapping[str, int]) -> str:
    """Numbers of devices in words."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _spread(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None or spread.p99 is None:
        return "none"
    return f"p50 {spread.p50:.3f} s, p95 {spread.p95:.3f} s, p99 {spread.p99:.3f} s of {spread.count}"


def _share(value: float | None) -> str:
    return "none had a turn" if value is None else f"{100 * value:.2f} %"


def _money(value: float | None) -> str:
    return "nothing made" if value is None else f"{value:.2f} USD"


def _bytes(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
