"""What the command line shows: a live progress bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAIN_EVERY_S = 2.0


class Advance(Protocol):
    """How far something is."""

    def __call__(self, done: float, note: str = "") -> None: ...


class Screen:
    """The terminal, or a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line, markup=False, soft_wrap=True)

    def table(self, title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
        """A table; without a header its first column names the rows."""
        table = Table(title=title, title_justify="left", show_header=bool(header), box=None, pad_edge=False)
        for name in header or [""] * len(rows[0]):
            table.add_column(name)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    @contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Advance]:
        """Inside, the yielded function shows how far the work is; without a total only that it goes on."""
        if self.console.is_terminal:
            with self._bar(what, total) as advance:
                yield advance
        else:
            yield _Plain(self, what, total)

    @contextmanager
    def _bar(self, what: str, total: float | None) -> Iterator[Advance]:
        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
        columns += [MofNCompleteColumn()] if total is not None else []
        with Progress(
            *columns, TimeElapsedColumn(), TextColumn("{task.fields[note]}"), console=self.console, transient=True
        ) as progress:
            task = progress.add_task(what, total=total, note="")
            yield lambda done, note="": progress.update(task, completed=done, note=note)


class _Plain:
    """A line now and then: the first time, at the end, and every `PLAIN_EVERY_S` seconds."""

    def __init__(self, screen: Screen, what: str, total: float | None) -> None:
        self._screen = screen
        self._what = what
        self._total = total
        self._last = 0.0

    def __call__(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY_S or done == self._total:
            self._last = now
            amount = f" {done:g}/{self._total:g}" if self._total is not None else ""
            self._screen.say(f"{self._what}{amount} {note}".rstrip())
