"""Reads --model_config_file again and again, and serves what it says."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from absl import logging

from .errors import RequestError, UsageError
from .versions import read_model_config

if TYPE_CHECKING:
    from tensorflow_serving.config import model_server_config_pb2

    from .manager import ModelManager


class ConfigPoller:
    """Looks at the file regularly, on a thread of its own. What was served goes on where the file is wrong.

    Args:
        manager: the `ModelManager`.
        path: the file.
        served: the `ModelServerConfig` that was read from it last.
        seconds: the pause between two looks, > 0.
    """

    def __init__(
        self, manager: ModelManager, path: str, served: model_server_config_pb2.ModelServerConfig, seconds: float
    ) -> None:
        self._manager, self._path, self._seconds = manager, path, seconds
        self._seen = served
        self._complaint: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="config-poll", daemon=True)

    def start(self) -> None:
        """Begins polling."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end, without waiting for a load that has begun."""
        self._stopped.set()

    def look(self) -> None:
        """Looks at the file once. A configuration that cannot be served is logged, and tried again only when the file changes."""
        try:
            config = read_model_config(self._path)
            if config == self._seen:
                self._complaint = None  # what could not be read can be now
                return
            self._seen = config
            self._manager.configure(config)
            logging.info("%s: the new configuration is served", self._path)
            self._complaint = None
        except (UsageError, RequestError) as error:
            if str(error) != self._complaint:
                logging.warning("%s is not served, what was goes on: %s", self._path, error)
            self._complaint = str(error)

    def _run(self):
        while not self._stopped.wait(self._seconds):
            try:
                self.look()
            except Exception:
                logging.exception("reading %s failed; the next turn tries again", self._path)
