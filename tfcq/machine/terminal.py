"""Standard output as it may be: a terminal of some width, a file, a pipe that nobody reads any more, or closed."""

import contextlib
import os
import shutil
import sys
import time

_SECONDS = {True: 0.5, False: 30.0}  # between two lines: on a terminal, elsewhere
_columns_shown = 0  # of the line that the cursor is in, by `ProgressLine`


class ProgressLine:
    """Says how far something is: in one line of a terminal, rewritten and cut to its width; elsewhere by a new line each 30 s."""

    def __init__(self):
        self._terminal = sys.stdout is not None and sys.stdout.isatty()
        self._printed = time.monotonic()

    def due(self):
        """Whether it is time to show another."""
        return time.monotonic() - self._printed >= _SECONDS[self._terminal]

    def show(self, parts, last=False):
        """Shows the first `parts` (texts) that fit into a line beside each other, all of them where it is no terminal.

        Args:
            parts: list of str, the most important first; each is shown whole or not at all, as half a number misleads.
            last: whether the line stays on the terminal.
        """
        global _columns_shown
        self._printed = time.monotonic()
        if not self._terminal:
            print("  ".join(parts), flush=True)
            return
        # The last column stays free: some terminals go to the next line as soon as it is written.
        width = shutil.get_terminal_size().columns - 1
        line = parts[0][:width]
        for part in parts[1:]:
            if len(line) + 2 + len(part) > width:
                break
            line += f"  {part}"
        blanks = " " * (min(_columns_shown, width) - len(line))  # over what a longer line left
        print(f"\r{line}{blanks}", end="\n" if last else "", flush=True)
        _columns_shown = 0 if last else len(line)


class ImageProgress:
    """Says how many images of so many are done, and how fast; a `ProgressLine`.

    Args:
        name: what is done with them, such as "reading".
        total: number of images.
    """

    def __init__(self, name, total):
        self._name, self._total = name, total
        self._start, self._line = time.monotonic(), ProgressLine()

    def __call__(self, done):
        """`done` images are done, all since the start; a terminal shows nothing of it any more when all are."""
        if done >= self._total:
            clear()  # the result is printed next
        elif self._line.due():
            rate = done / (time.monotonic() - self._start)
            self._line.show([f"{self._name}: {done}/{self._total} images", f"{rate:.1f} images/s"])


def say(text):
    """Prints a line that stays, in the place of a line of progress where a terminal shows one."""
    clear()
    print(text, flush=True)


def clear():
    """Takes a line of progress off the terminal, so that the next text does not stand behind it."""
    global _columns_shown
    if _columns_shown:
        width = shutil.get_terminal_size().columns - 1
        print("\r" + " " * min(_columns_shown, width), end="\r", flush=True)
        _columns_shown = 0


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
