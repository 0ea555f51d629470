"""The progress line, on a terminal and off one."""

import io

import pytest

from swin_dense.engine.progress import ProgressLine, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    time_s = [100.0]
    monkeypatch.setattr("swin_dense.engine.progress.time.monotonic", lambda: time_s[0])
    return time_s


def test_off_a_terminal_a_line_appears_at_most_every_quiet_seconds(now):
    stream = io.StringIO()
    line = ProgressLine(stream, quiet_s=10)
    for second in range(25):
        now[0] = 100 + second
        line.show(f"at {second}")
    assert stream.getvalue() == "at 0\nat 10\nat 20\n"
    line.finish("done")
    assert stream.getvalue().endswith("at 20\ndone\n")


def test_the_step_after_a_finished_one_speaks_at_once(now):
    stream = io.StringIO()
    line = ProgressLine(stream, quiet_s=10)
    line.show("first")
    line.finish("first done")
    line.show("second")
    assert stream.getvalue() == "first\nfirst done\nsecond\n"


def test_on_a_terminal_a_shorter_text_leaves_nothing_of_the_longer_one(now):
    stream = Terminal()
    line = ProgressLine(stream)
    line.show("a long text")
    now[0] += 1
    line.show("short")
    line.finish("end")
    assert stream.getvalue() == "\ra long text\rshort      \rend  \n"


def test_on_a_terminal_no_text_is_wider_than_it(now, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    ProgressLine(stream).show("x" * 50)
    assert stream.getvalue() == "\r" + "x" * 19


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (75, "1:15"), (3600, "60:00"), (-3, "0:00")]
)
def test_clock_by_hand(seconds, text):
    assert clock(seconds) == text
