"""Output to a terminal of some width, to a file, to a pipe that nobody reads any more, or to a closed stream."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

_SECONDS = {"terminal": 0.5, "notebook": 0.5, "file": 30.0}  # between two updates of the progress shown
_SEARCH_SECONDS = 3.0  # before the first line of a search
_COLUMNS = 80  # of a bar with its numbers, at most
_ROWS = 20  # rows of the terminal, for tqdm: it draws nothing if it finds too few, as when their number is unknown
_LEAST_BAR = 6  # columns; a shorter bar shows nothing
_on_terminal: ProgressBar | None = None  # the bar that is shown in the terminal's last line


class ProgressBar:
    """Shows the progress of some work: in a terminal and in a notebook by a tqdm bar, elsewhere by a line every 30 s.

    In a notebook without ipywidgets it is one line that is rewritten, as in a terminal.

    In a terminal the line is at most 80 columns wide, and one bar is shown at a time: the last one. tqdm draws it. This class
    adds what tqdm lacks: lines without carriage returns for logs, numbers that are shown whole or not at all (tqdm cuts them in
    the middle), a single row even if another bar is open (tqdm stacks them), and no work for updates that are not shown (`due`).

    Args:
        total: number of units of work.
    """

    def __init__(self, total: int):
        self._total = total
        self._bar: Any = None
        self._place = _place()
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next update."""
        return time.monotonic() - self._shown >= _SECONDS[self._place]

    def show(self, done: int, parts: list[str], last: bool = False) -> None:
        """Shows that `done` of the total are done, with as many of `parts` as fit into the line of a terminal.

        Args:
            done: number of units done, of the total.
            parts: texts, the most important first; each is shown whole or not at all, as half a number misleads. A log or a
                notebook shows all of them.
            last: whether this is the last update: the bar stays on the screen.
        """
        global _on_terminal
        self._shown = time.monotonic()
        if self._place == "file":
            print("  ".join(parts), flush=True)
            return
        text, width = "  ".join(parts), None
        if self._place == "terminal":
            # The last column stays free: some terminals go to the next line as soon as it is written.
            width = min(_COLUMNS, shutil.get_terminal_size().columns - 1)
            text = _fitting(parts, width)
            if _on_terminal is not self:
                clear()
                _on_terminal = self
        has_bar = width is None or width - len(text) - 2 >= _LEAST_BAR
        self._draw(done, text, "{desc}  {bar}" if has_bar else "{desc}", width)
        if last:
            self._close(leave=True)

    def close(self) -> None:
        """Removes the bar: the work is done, and its results are printed next."""
        if self._bar is not None:  # a bar of 0 units counts as false
            self._bar.n = self._total
            self._close(leave=False)

    def _draw(self, done, text, bar_format, width):
        if self._bar is None:
            self._bar = _bars()(
                total=self._total,
                initial=done,
                desc=text,
                bar_format=bar_format,
                ncols=width,
                nrows=_ROWS,
                position=0,
                file=sys.stdout,
            )
            return
        self._bar.n, self._bar.desc, self._bar.bar_format, self._bar.ncols = done, text, bar_format, width
        self._bar.refresh()

    def _close(self, leave):
        global _on_terminal
        bar, self._bar = self._bar, None
        if _on_terminal is self:
            _on_terminal = None
        bar.leave = leave
        bar.close()


def _place():
    """Where progress is shown: "terminal", "notebook" or "file"."""
    if sys.stdout is not None and sys.stdout.isatty():
        return "terminal"
    from tqdm import auto, std

    if auto.notebook_tqdm is not std.tqdm:
        return "notebook"
    # Jupyter without ipywidgets: it starts a line anew at a carriage return, as a terminal does.
    return "terminal" if "ipykernel" in sys.modules else "file"


@functools.cache
def _bars():
    """tqdm's class of bars for a terminal or a notebook; imported when the first one is shown."""
    from tqdm import auto

    class Bar(auto.tqdm):
        monitor_interval = 0  # no thread of tqdm: bars are drawn when they are due

    return Bar


def _fitting(parts, width):
    """The first of `parts` that fit into `width` columns, as one text."""
    line = parts[0][:width]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


class ImageProgress:
    """A `ProgressBar` of images: how many are done, and how fast.

    Args:
        name: name of the work, such as "reading".
        total: number of images.
    """

    def __init__(self, name: str, total: int):
        self._name, self._total = name, total
        self._start, self._bar = time.monotonic(), ProgressBar(total)

    def __call__(self, done: int) -> None:
        """Updates the bar when it is due: `done` images have been done since the start. Removes it when all are done."""
        if done >= self._total:
            self._bar.close()
        elif self._bar.due():
            rate = done / (time.monotonic() - self._start)
            self._bar.show(done, [f"{self._name}: {done}/{self._total} images", f"{rate:.1f} images/s"])


class SearchProgress:
    """Shows how much has been found by a search that takes longer than some seconds; how much there is, is unknown.

    Args:
        name: name of the work, such as "looking for images in DIR".
    """

    def __init__(self, name: str):
        self._name, self._bar = name, ProgressBar(0)
        self._next = time.monotonic() + _SEARCH_SECONDS

    def __call__(self, found: int) -> None:
        """Shows that so many have been found, when that is due: the first time after 3 s."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS[_place()]
        self._bar.show(0, [f"{self._name}: {found} so far"])

    def close(self) -> None:
        """Removes the line: the search has ended."""
        self._bar.close()


class StageProgress:
    """A `ProgressBar` of work in stages of unequal length: which one runs, shown in a terminal as soon as it begins.

    Args:
        name: name of the work, such as "exporting".
        total: number of stages.
    """

    def __init__(self, name: str, total: int):
        self._name, self._total, self._begun = name, total, 0
        self._bar = ProgressBar(total)

    def begin(self, stage: str) -> None:
        """Shows that a stage begins, and with it that those before are done."""
        if self._bar.due() or _place() != "file":
            self._bar.show(self._begun, [f"{self._name} {self._begun + 1}/{self._total}: {stage}"])
        self._begun += 1

    def close(self) -> None:
        """Removes the bar: the work has ended."""
        self._bar.close()


def say(text: str) -> None:
    """Prints a line that stays, after removing a bar from the terminal."""
    clear()
    print(text, flush=True)


def clear() -> None:
    """Removes the bar from the terminal, so that the next text starts on an empty line; the next update draws it again.

    A notebook's bar is not text, and stays.
    """
    if _on_terminal is not None:
        _on_terminal._close(leave=False)


def open_standard_streams() -> None:
    """Opens the null device for each of stdin, stdout and stderr that is closed.

    Otherwise the next file that is opened would get its number, and receive what is written to the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def discard(stream: TextIO) -> None:
    """Redirects a stream whose reader is gone to the null device, including what it has buffered."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextlib.contextmanager
def outlived_stdout() -> Iterator[None]:
    """A context in which printing never fails: for work whose results are files.

    Work is not lost because nobody can read its output any more (`| head`, a closed terminal, a log on a full disk).
    """
    before = sys.stdout
    sys.stdout = _Outliving(before)  # type: ignore[assignment]  # the other methods are the stream's, by __getattr__
    try:
        yield
    finally:
        sys.stdout = before


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A context in which nothing is printed to stdout: another process prints it."""
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        yield


class _Outliving:
    """A text stream whose errors of writing are ignored."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        return self._or_discard(self._stream.write, text)

    def flush(self):
        return self._or_discard(self._stream.flush)

    def _or_discard(self, method, *arguments):
        try:
            return method(*arguments)
        except BlockingIOError:  # a slow reader of a non-blocking stream: the text is dropped
            return None
        except OSError:
            discard(self._stream)
            return method(*arguments) if arguments else None

    def __getattr__(self, name):
        return getattr(self._stream, name)
