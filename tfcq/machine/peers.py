"""Waits until the other machines of a cluster can be reached. No TensorFlow.

TensorFlow itself waits for them without end and without letting Python run: no signal would be heard, and no line would name
the one that is missing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from tfcq.errors import UserError
from tfcq.machine.cluster import Cluster

_SECONDS_BETWEEN = 0.5


def wait_for_all(cluster: Cluster, seconds: float, report: Callable[[list[str]], object]) -> list[str]:
    """Waits until every other worker has been reached at its address, while this one can be reached at its own.

    Args:
        cluster: the workers.
        seconds: how long at most.
        report: called with the addresses that have not answered yet: after 5 s, then after twice as long each time.

    Returns:
        The addresses that did not answer; [] if all did.

    Raises:
        UserError: this worker's port is taken, or not one.
    """
    missing = [address for number, address in enumerate(cluster.workers) if number != cluster.index]
    own = cluster.workers[cluster.index]
    started, reported = time.monotonic(), 5.0
    with contextlib.closing(_listener(own)):
        while missing:
            missing = [address for address in missing if not _answers(address)]
            passed = time.monotonic() - started
            if passed >= seconds:
                break
            if missing and passed >= reported:
                report(missing)
                reported *= 2.0
            if missing:
                time.sleep(_SECONDS_BETWEEN)
    return missing


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        return host.strip("[]"), int(port)
    except ValueError as error:
        raise UserError(f"workers: expected host:port, received {address!r}") from error


def _listener(address: str) -> socket.socket:
    """A socket that others can connect to; TensorFlow listens there next."""
    _, port = _parts(address)
    try:
        return socket.create_server(("", port), reuse_port=True)
    except (OSError, OverflowError) as error:
        raise UserError(f"worker {address}: its port cannot be used here: {error}; expected a free one") from error


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):  # not yet there, or its name is not known yet
        socket.create_connection(_parts(address), timeout=5.0).close()
        return True
    return False
