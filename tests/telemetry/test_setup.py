"""What telemetry sends to a collector is what the standard variables ask for: here, the share of traces."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.otlp import OtlpReceiver

ROOTS = 400
PROCESS = f"""
import sys
from opentelemetry import trace
from teleworld import telemetry
watching = telemetry.start("sampled", sys.argv[1])
tracer = trace.get_tracer("test")
for _ in range({ROOTS}):
    with tracer.start_as_current_span("root"):
        tracer.start_span("child").end()
sys.exit(0 if watching.shutdown(20) else 1)
"""


@pytest.mark.parametrize(("share", "least", "most"), [("0", 0, 0), ("0.25", 60, 140), ("1", ROOTS, ROOTS)])
def test_the_share_of_traces_is_as_asked_and_a_trace_is_whole(share: str, least: int, most: int) -> None:
    """By chance: 100 of 400 on average, and 60 to 140 in all but one of a hundred thousand runs."""
    asked = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    with OtlpReceiver() as collector:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, collector.endpoint], env=os.environ | asked, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        roots = {span.span_id for span in collector.spans if span.name == "root"}
        parents = [span.parent_id for span in collector.spans if span.name == "child"]
    assert least <= len(roots) <= most
    assert len(parents) == len(roots) and set(parents) == roots
