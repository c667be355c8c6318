"""Workers of a training as threads that hand each other texts."""

import concurrent.futures
import threading

from tfcq.engine.workers import Workers


class OneOf(Workers):
    """A worker of `count`, which share by `texts`."""

    def __init__(self, index, count, texts=None, meeting=None):
        super().__init__()
        self.index, self.count, self._texts, self._meeting = index, count, texts, meeting

    def share(self, text):
        self._texts[self.index] = text
        self._meeting.wait(60)
        texts = list(self._texts)
        self._meeting.wait(60)
        return texts


def together(work, count=3):
    """The results, or the errors, of `work(worker)` of `count` workers at the same time."""
    texts, meeting = [""] * count, threading.Barrier(count)

    def of(index):
        try:
            return work(OneOf(index, count, texts, meeting))
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [one.result(timeout=60) for one in [pool.submit(of, index) for index in range(count)]]
