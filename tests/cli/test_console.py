"""What is shown where nothing can be redrawn: plain lines, few of them, the last one always."""

from __future__ import annotations

import io

from rich.console import Console

from teleworld.cli.console import Screen


def shown(screen: Screen) -> list[str]:
    return screen.console.file.getvalue().splitlines()


def plain() -> Screen:
    return Screen(Console(file=io.StringIO(), width=40, highlight=False))


def test_progress_in_a_pipe_is_a_line_now_and_then_and_one_at_the_end():
    screen = plain()
    with screen.progress("walking, chunk", 500) as advance:
        for done in range(1, 501):
            advance(done, "9.0 frames/s")
    lines = shown(screen)
    assert lines[0] == "walking, chunk 1/500 9.0 frames/s"
    assert lines[-1] == "walking, chunk 500/500 9.0 frames/s"
    assert len(lines) < 10


def test_progress_on_a_terminal_shows_the_same():
    screen = Screen(Console(file=io.StringIO(), width=100, highlight=False, force_terminal=True, color_system=None))
    with screen.progress("walking, chunk", 20) as advance:
        advance(5, "9.0 frames/s")
    assert "walking, chunk" in screen.console.file.getvalue()


def test_a_long_line_is_not_cut_and_brackets_are_no_markup():
    screen = plain()
    screen.say("a [bold]path[/bold] " + "x" * 60)
    assert shown(screen) == ["a [bold]path[/bold] " + "x" * 60]
