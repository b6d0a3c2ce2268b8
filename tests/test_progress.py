"""The line that tells how far `enumerate_minima` is: where it is shown, what it says, and that nothing of it stays."""

import io
import sys
import types

import pytest

import enumerator as en
from enumerator import progress
from enumerator.progress import ProgressLine, duration_text, shown

PAIR = en.Landscape(2, 2)


class Stream(io.StringIO):
    """A stream that is a terminal or not; `screen` is what its last line shows."""

    encoding = "utf-8"

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def screen(self) -> str:
        line, place = "", 0
        for character in self.getvalue():
            if character == "\r":
                place = 0
            else:
                line, place = line[:place] + character + line[place + 1 :], place + 1
        return line


@pytest.fixture
def clock(monkeypatch):
    """Time, which passes when a test says so."""
    time = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: time.now)
    return time


def stderr(monkeypatch, is_terminal: bool) -> Stream:
    stream = Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize(
    ("asked", "is_terminal", "is_shown"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True), (True, True, True)],
)
def test_it_is_shown_on_a_terminal_or_where_it_is_asked_for(monkeypatch, asked, is_terminal, is_shown):
    stream = stderr(monkeypatch, is_terminal)
    found = en.enumerate_minima(PAIR, starts=10, progress=asked)
    assert found.starts.num_rows == 10
    assert ("0 of 10 starts" in stream.getvalue()) == is_shown
    assert stream.screen.strip() == "" and "\n" not in stream.getvalue()
    assert bool(stream.getvalue()) == is_shown


def test_it_is_shown_in_a_notebook_and_not_in_a_plain_ipython(monkeypatch):
    for shell, is_shown in (
        (types.SimpleNamespace(kernel=object()), True),
        (types.SimpleNamespace(), False),
        (None, False),
    ):
        stderr(monkeypatch, is_terminal=False)
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda shell=shell: shell
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        with shown(None, 10) as told:
            assert isinstance(told, ProgressLine) == is_shown


def test_without_a_stderr_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with shown(None, 10) as told:
        assert told is None


def test_a_function_is_told_of_all_starts_and_nothing_is_drawn(monkeypatch):
    stream, told = stderr(monkeypatch, True), []
    en.enumerate_minima(PAIR, starts=10, progress=told.append)
    assert sum(told) == 10 and stream.getvalue() == ""


def test_the_results_are_those_of_a_silent_run(monkeypatch):
    stderr(monkeypatch, True)
    watched, silent = (en.enumerate_minima(PAIR, starts=20, progress=asked) for asked in (True, False))
    assert watched.starts == silent.starts


def test_what_it_says(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream = Stream(True)
    with ProgressLine(4000, stream) as line:
        assert stream.screen == "─" * 24 + " 0 of 4,000 starts, 0 s, no results yet"
        clock.now += 4
        line(100)
        assert stream.screen.split(" ", 1)[1] == "100 of 4,000 starts, 4 s, time left not known yet"
        # The first results and what they took, the compilation, leave no trace in the rate.
        clock.now += 5
        line(1900)
        assert stream.screen.rstrip() == "━" * 12 + "─" * 12 + " 2,000 of 4,000 starts, 380/s, 5 s left"
    assert stream.screen.strip() == ""


def test_a_shorter_line_leaves_nothing_of_a_longer_one(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream = Stream(True)
    with ProgressLine(1000, stream) as line:
        clock.now += 1
        line(10)
        longest = stream.screen
        clock.now += 10
        line(890)
        assert stream.screen.rstrip().endswith("1 s left") and len(stream.screen.rstrip()) < len(longest)


def test_it_is_drawn_ten_times_a_second_at_most(clock):
    stream = Stream(True)
    with ProgressLine(10**6, stream) as line:
        for _ in range(1000):
            clock.now += 1e-3
            line(1)
        # At the beginning, and in each tenth of the second.
        assert 8 <= stream.getvalue().count("\r") <= 11
        assert line.done == 1000


def test_a_line_never_wraps(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Stream(True)
    with ProgressLine(1000, stream) as line:
        clock.now += 1
        line(500)
        assert len(stream.screen) == 29


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "nonsense", None])
def test_a_terminal_of_few_characters_has_a_bar_too(encoding):
    stream = Stream(True)
    stream.encoding = encoding
    with ProgressLine(2, stream) as line:
        line.done = 1
        assert line.text().startswith("############............ 1 of 2 starts")


def test_an_interrupted_run_leaves_nothing(monkeypatch):
    stream = Stream(True)
    with pytest.raises(KeyboardInterrupt), ProgressLine(10, stream):
        raise KeyboardInterrupt
    assert stream.screen.strip() == ""


@pytest.mark.parametrize("wrong", [3, "yes", 0.5])
def test_what_is_no_progress_is_named(wrong):
    with pytest.raises(en.InputError, match="`progress` must be a function of a number of starts, True or False, got"):
        en.enumerate_minima(PAIR, progress=wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90061, "25:01:01")],
)
def test_durations_in_words(seconds, text):
    assert duration_text(seconds) == text
