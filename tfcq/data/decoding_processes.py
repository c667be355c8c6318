"""Decodes images into a data cache, on all CPUs that this process may use.

Threads would not do: most of Pillow's work on small images holds Python's lock (`sources.LARGE`). The processes are started
anew, since TensorFlow's threads do not survive a fork, and not by `multiprocessing`, which would run the user's own script once
more in each. They import no TensorFlow, write pixels to the file themselves, and end when the process that started them does.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Sequence

import numpy as np

from tfcq.data.cache_file import CacheFile
from tfcq.data.decoding import decode
from tfcq.data.sources import RawReader, digest_of
from tfcq.data.transforms import Transform, to_channels
from tfcq.data.unfit import UnfitImage
from tfcq.errors import UserError, signal_name

Unfit = tuple[int, tuple[int, ...] | None, UnfitImage]
"""The index of an image, its (h, w, c) if only the settings are at fault, and what is wrong with it."""

CHUNK = 64
"""How many images a process decodes at a time."""

WORTH_A_PROCESS = 512
"""From so many images on, another process saves more than the half second of CPU that its start takes."""

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def decode_all(
    file: CacheFile, raw: RawReader, rows: np.ndarray, indices: np.ndarray, transform: Transform
) -> Generator[tuple[int, list[Unfit]], None, None]:
    """Decodes images into rows of a file.

    Args:
        file: a writable CacheFile.
        raw: the images.
        rows: the row for each image, int64 [n].
        indices: the images, int64 [n].
        transform: what they become.

    Yields:
        (how many images have been decoded now, those that are unfit) for each `CHUNK` of them.

    Raises:
        UserError: an image that cannot be read, for a reason that is not its own; a process that was killed.
        OSError: the file cannot be written.
    """
    starts = range(0, len(indices), CHUNK)
    tasks = ((start, raw.portable(indices[start:start + CHUNK]), rows[start:start + CHUNK]) for start in starts)
    count = min(num_cpus(), len(indices) // WORTH_A_PROCESS)
    if count > 1:
        answers = _in_processes(count, file.path, transform, tasks, len(starts))
    else:
        answers = ((start, decode_some(file, images, rows, transform)) for start, images, rows in tasks)
    for start, unfit in answers:
        yield min(CHUNK, len(indices) - start), [(int(indices[start + place]), *rest) for place, *rest in unfit]


def decode_some(file: CacheFile, raw: RawReader, rows: Iterable[int], transform: Transform) -> list[Unfit]:
    """Decodes all images of `raw` into `rows`; returns those that are unfit."""
    unfit: list[Unfit] = []
    for index, row in enumerate(rows):
        shape = None
        try:
            digest, image = raw.look(index)
            shape = image.shape
            transform.check(shape, raw.name(index))
        except UnfitImage as error:
            unfit.append((index, shape, error.alone()))
            continue
        file.write(int(row), bytes.fromhex(digest), image.shape, transform(image[None])[0])
    return unfit


def num_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Encoded(RawReader):
    """Encoded images in memory: what a container's reader hands to another process.

    Args:
        contents: the bytes of each image, or the UnfitImage that says why there are none.
        names: their names in messages.
        channels: 1 or 3, to which all images are converted; None: they stay as they are.
    """

    def __init__(self, contents: Sequence[bytes | UnfitImage], names: Sequence[str], channels: int | None) -> None:
        self.contents, self.names, self.declared_channels = contents, names, channels

    def __len__(self):
        return len(self.contents)

    def name(self, index: int) -> str:
        return self.names[index]

    key = name

    def content(self, index: int) -> bytes:
        content = self.contents[index]
        if isinstance(content, UnfitImage):
            raise content
        return content

    def read(self, index: int) -> np.ndarray:
        image = decode(io.BytesIO(self.content(index)), self.name(index))
        return to_channels(image[None], self.declared_channels)[0] if self.declared_channels else image

    def look(self, index: int) -> tuple[str, np.ndarray]:
        return digest_of(self.content(index)), self.read(index)

    def _some(self, indices):
        return Encoded([self.contents[index] for index in indices], [self.names[index] for index in indices],
                       self.declared_channels)


def _in_processes(count, path, transform, tasks, num_tasks):
    """Yields (start, answer) of each task, (start, images, rows), in the order in which they are done."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    lock = threading.Lock()

    def serve(process):
        try:
            _send(process, (path, transform))
            while True:
                with lock:  # a generator serves one thread at a time
                    task = next(tasks, None)
                if task is None:
                    return
                start, images, rows = task
                _send(process, (images, rows))
                answers.put((start, pickle.load(process.stdout)))
        except Exception as error:
            answers.put((None, error))

    processes: list[subprocess.Popen] = []
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(count))
        stack.callback(lambda: [_end(process) for process in processes])  # threads that wait for an answer end, too
        for _ in range(count):
            processes.append(_started())
            threads.submit(serve, processes[-1])
        for _ in range(num_tasks):
            start, answer = answers.get()
            if isinstance(answer, EOFError | BrokenPipeError):
                raise _killed(processes) from answer
            if isinstance(answer, Exception):
                raise answer
            yield start, answer


def _started():
    # -P: a folder that the command happens to run in adds no modules; PYTHONPATH: those that this process finds.
    environment = os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path)}
    return subprocess.Popen([sys.executable, "-P", "-m", "tfcq.data.decoding_processes"], env=environment,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end(process):
    process.kill()  # it has nothing to lose
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()


def _send(process, value):
    pickle.dump(value, process.stdin)
    process.stdin.flush()


def _killed(processes):
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    status = next((process.returncode for process in processes if process.returncode), None)
    how = signal_name(-status) if status and status < 0 else f"exit status {status}"
    return UserError(f"data_cache: a process that decodes images has ended ({how}), perhaps for lack of memory; start again, "
                     "which goes on where it ended, or give --data_cache=none")


def main() -> None:
    """Decodes what comes through stdin, until it is closed; answers through stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that started this one, too
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers may reach the pipe
    path, transform = pickle.load(sys.stdin.buffer)
    file = CacheFile(path, writable=True)
    while True:
        try:
            images, rows = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: list[Unfit] | Exception
        try:
            answer = decode_some(file, images, rows, transform)
        except (OSError, UserError) as error:
            answer = error
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    main()
