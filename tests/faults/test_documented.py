"""The page on faults names a test for what it says, and misses none."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"


def test_the_page_names_exactly_the_tests_that_there_are() -> None:
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text()))
    there = {
        (path.name, test)
        for path in HERE.glob("test_*.py")
        if path.name not in ("test_documented.py", "test_fuzz.py")
        for test in re.findall(r"^async def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named == there
