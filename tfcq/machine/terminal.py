"""Standard output as it may be: a terminal of some width, a file, a pipe that nobody reads any more, or closed."""

import contextlib
import functools
import os
import shutil
import sys
import time

_SECONDS = {"terminal": 0.5, "notebook": 0.5, "file": 30.0}  # between two looks at how far something is
_COLUMNS = 80  # of a bar with its numbers, at most
_ROWS = 20  # of the terminal, for tqdm: it draws nothing where it believes them too few, as where nobody knows their number
_LEAST_BAR = 6  # columns; a shorter one says nothing
_on_terminal = None  # the `ProgressBar` in whose line the cursor is


class ProgressBar:
    """Shows how far something is: in a terminal and in a notebook by a bar of tqdm's, elsewhere by a line each 30 s.

    The line of a terminal is at most 80 columns wide and has one bar at a time: the last that was shown. tqdm draws it. What
    tqdm does not do is here: lines without carriage returns for logs, numbers that are shown whole or not at all (it cuts them
    in the middle), a line of one row whatever else has a bar (it stacks them), and no work for what is not shown (`due`).

    Args:
        total: how much there is to do.
    """

    def __init__(self, total: int):
        self._total, self._bar = total, None
        self._place = _place()
        self._shown = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to show it again."""
        return time.monotonic() - self._shown >= _SECONDS[self._place]

    def show(self, done: int, parts: list[str], last: bool = False) -> None:
        """Shows that `done` of the total are done, and of `parts` the first that fit into the line, in a terminal.

        Args:
            done: of the total.
            parts: texts, the most important first; each is shown whole or not at all, as half a number misleads. Elsewhere
                than in a terminal all are shown.
            last: whether it is the last time: the bar stays where it is.
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
        """Takes the bar away: all is done, and what has come of it is printed next."""
        if self._bar:
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

    return "file" if auto.notebook_tqdm is std.tqdm else "notebook"


@functools.cache
def _bars():
    """tqdm's class of bars for a terminal or a notebook; imported where one is shown."""
    from tqdm import auto

    class Bar(auto.tqdm):
        monitor_interval = 0  # no thread beside this one: bars are drawn when they are due

    return Bar


def _fitting(parts, width):
    line = parts[0][:width]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


class ImageProgress:
    """A `ProgressBar` of images: how many of so many are done, and how fast.

    Args:
        name: what is done with them, such as "reading".
        total: number of images.
    """

    def __init__(self, name: str, total: int):
        self._name, self._total = name, total
        self._start, self._bar = time.monotonic(), ProgressBar(total)

    def __call__(self, done: int) -> None:
        """`done` images are done, all since the start; nothing is shown of it any more when all are."""
        if done >= self._total:
            self._bar.close()
        elif self._bar.due():
            rate = done / (time.monotonic() - self._start)
            self._bar.show(done, [f"{self._name}: {done}/{self._total} images", f"{rate:.1f} images/s"])


def say(text: str) -> None:
    """Prints a line that stays, in the place of a bar where a terminal shows one."""
    clear()
    print(text, flush=True)


def clear() -> None:
    """Takes a bar off the terminal, so that the next text does not stand behind it; it comes again when it is next shown.

    A notebook's bar is no text, and stays.
    """
    if _on_terminal is not None:
        _on_terminal._close(leave=False)


def open_standard_streams():
    """Gives closed stdin, stdout and stderr the null device, or the next files to be opened would be taken for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def discard(stream):
    """Sends what a stream still holds, and what comes, to the null device: its reader is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextlib.contextmanager
def outlived_stdout():
    """While it lasts, printing fails nowhere: for work whose results are files.

    What nobody can read any more (`| head`, a terminal that went away, a log on a full disk) is not worth losing the work.
    """
    before, sys.stdout = sys.stdout, _Outliving(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = before


class _Outliving:
    """A text stream that nobody needs to read."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        return self._or_discard(self._stream.write, text)

    def flush(self):
        return self._or_discard(self._stream.flush)

    def _or_discard(self, method, *arguments):
        try:
            return method(*arguments)
        except BlockingIOError:  # a slow reader, which did not ask to be waited for
            return None
        except OSError:
            discard(self._stream)
            return method(*arguments) if arguments else None

    def __getattr__(self, name):
        return getattr(self._stream, name)
