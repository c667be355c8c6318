"""Workers find each other before TensorFlow is asked to join them."""

import concurrent.futures
import contextlib
import socket
import threading

import pytest

from tfcq.errors import UserError
from tfcq.machine import peers
from tfcq.machine.cluster import Cluster


@pytest.fixture
def addresses():
    """Three addresses of this machine whose ports are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def test_each_waits_until_all_are_there(addresses):
    there = threading.Barrier(3)

    def start(index):
        missing = peers.wait_for_all(Cluster(addresses, index, "TF_CONFIG"), 60.0, print)
        with socket.create_server(("", int(addresses[index].rpartition(":")[2]))):  # as TensorFlow's, in the same place
            there.wait(60)
        return missing

    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(start, range(3), timeout=60)) == [[], [], []]


def test_one_that_does_not_come_is_named(addresses, monkeypatch):
    monkeypatch.setattr(peers, "_SECONDS_BETWEEN", 0.01)
    clock = iter(range(100))
    monkeypatch.setattr(peers.time, "monotonic", lambda: float(next(clock)))
    reported = []
    with socket.create_server(("127.0.0.1", int(addresses[1].rpartition(":")[2]))):
        missing = peers.wait_for_all(Cluster(addresses, 0, "TF_CONFIG"), 30.0, reported.append)
    assert missing == [addresses[2]]
    assert reported == [[addresses[2]]] * 3  # after 5, 10 and 20 s


@pytest.mark.parametrize(
    "address, message",
    [("one", "expected host:port, received 'one'"), ("one:70000", "its port cannot be used here"), ("taken", "cannot be used")],
)
def test_an_address_that_cannot_be_used_is_one_line(address, message):
    with socket.create_server(("", 0)) as taken:
        address = address if address != "taken" else f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=message):
            peers.wait_for_all(Cluster((address, "127.0.0.1:1"), 0, "TF_CONFIG"), 0.0, print)
