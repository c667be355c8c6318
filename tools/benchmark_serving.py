"""Measures how many rows a second the local server answers, and the model in process, and prints a Markdown table a signature.

    PYTHONPATH=. python tools/benchmark_serving.py --model_base_path=exports/cqf

Every cell is the median of the rounds; in a round each cell is measured once, so that a busy minute meets all of them alike. The
clients are threads of as many processes as there are cores, each with a `tfcq.Client` of its own. With batching means
--batching_parameters_file. In process means threads that call `Servable.predict`, without any protocol.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError

MODEL = "model"
WAYS = [(place, batching) for place in ("in process", "gRPC", "REST") for batching in (False, True)]
BEGIN_SECONDS = 600.0  # in which all clients must have asked once
Inputs = dict[str, np.ndarray]
Specs = dict[str, tuple[str, list[Any]]]
_barriers: list[Any] = []


def define(flags: Flags) -> None:
    """The flags of this tool."""
    batching = pathlib.Path(__file__).resolve().parents[1] / "serving" / "batching.config"
    flags.group("The measurement")
    flags.string("model_base_path", None, "The folder of an exported model's versions", "DIR")
    flags.several("signatures", ["sample", "likelihood"], "The signatures that are asked")
    flags.several("clients", ["1", "8", "64"], "How many clients ask at a time")
    flags.several("rows", ["1", "64"], "How many rows a request has")
    flags.integer("rounds", 3, "How many times each cell is measured", minimum=1)
    flags.number("seconds", 2.0, "How long each cell is measured in a round", minimum=0.01)
    flags.string("batching_parameters_file", str(batching), "How requests are joined", "FILE")


def random_inputs(specs: Specs, num_rows: int, seed: int) -> Inputs:
    """Arrays [num_rows, ...] for a signature's inputs {name: (dtype, shape)}; sizes that may vary are 1."""
    random, inputs = np.random.default_rng(seed), {}
    for name, (dtype, shape) in specs.items():
        size = [num_rows, *(one or 1 for one in shape[1:])]
        if np.issubdtype(dtype, np.floating):
            inputs[name] = random.random(size).astype(dtype)
        else:
            inputs[name] = random.integers(0, 2 if dtype == "bool" else 256, size).astype(dtype)
    return inputs


def rows_per_second(asks: list[Callable[[], object]], num_rows: int, seconds: float, begin: Callable[[], object]) -> float:
    """Rows that all of these answer in a second, each on a thread of its own, again and again.

    Args:
        asks: each sends one request and waits for the answer.
        num_rows: of a request.
        seconds: how long new requests are sent; those that run then are counted, with their time.
        begin: waits until all may begin.

    Raises:
        Exception: the first error of a request; its rate would mean nothing.
    """
    counts, errors = [0] * len(asks), []

    def work(number):
        try:
            while time.perf_counter() < end and not errors:
                asks[number]()
                counts[number] += 1
        except Exception as error:
            errors.append(error)

    asks[0]()  # connects, and traces what is not traced yet
    begin()
    start = time.perf_counter()
    end = start + seconds
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) * num_rows / (time.perf_counter() - start)


def keep_barriers(barriers: list[Any]) -> None:
    """Gives a new process of clients the barriers at which so many of them begin together, for 1, 2, ... of them."""
    global _barriers
    _barriers = barriers


def ask_by_clients(
    address: str, way: str, signature: str, specs: Specs, plan: tuple[int, int, int, int], seconds: float
) -> float:
    """As `rows_per_second`, in a process of clients; `plan`: its clients, rows of a request, its number, number of processes."""
    from tfcq import Client

    num_clients, num_rows, number, num_processes = plan
    barrier = _barriers[num_processes - 1]
    connect = Client.grpc if way == "gRPC" else Client.rest
    clients = [connect(address, model=MODEL) for _ in range(num_clients)]
    inputs = [random_inputs(specs, num_rows, 1000 * number + one) for one in range(num_clients)]
    asks = [functools.partial(one.predict, signature, given) for one, given in zip(clients, inputs)]
    try:
        return rows_per_second(asks, num_rows, seconds, lambda: barrier.wait(BEGIN_SECONDS))
    except Exception as error:  # as text: not every exception can pass to another process
        barrier.abort()
        raise UserError(f"{type(error).__name__}: {error}") from None


@contextlib.contextmanager
def client_processes() -> Iterator[Callable[..., float]]:
    """Processes of clients, as many as there are cores; gives a function that measures a cell by them."""
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    barriers = [context.Barrier(number) for number in range(1, cores + 1)]
    with concurrent.futures.ProcessPoolExecutor(cores, context, keep_barriers, (barriers,)) as pool:

        def measure(
            address: str, way: str, signature: str, specs: Specs, num_clients: int, num_rows: int, seconds: float
        ) -> float:
            number = min(num_clients, cores)
            counts = [num_clients // number + (one < num_clients % number) for one in range(number)]
            plans = [(count, num_rows, one, number) for one, count in enumerate(counts)]
            try:
                waiting = [pool.submit(ask_by_clients, address, way, signature, specs, plan, seconds) for plan in plans]
                return sum(one.result() for one in waiting)
            except UserError as error:
                raise UserError(f"{way}, {num_clients} clients, {num_rows} rows: {error}") from error

        yield measure


@contextlib.contextmanager
def server(base_path: str, *flags: str) -> Iterator[dict[str, str]]:
    """A local server in a process of its own: {way: its address}."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    command = [sys.executable, "-m", "tfcq.serve", f"--model_name={MODEL}", f"--model_base_path={base_path}", *flags]
    command += [f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise UserError("the server did not start; see its message")
        yield {"gRPC": f"127.0.0.1:{ports[0]}", "REST": f"http://127.0.0.1:{ports[1]}"}
    finally:
        process.terminate()
        process.wait()


def table(signature: str, rates: dict[tuple, list[float]], cells: list[tuple[int, int]]) -> str:
    """The Markdown table of a signature, from {(clients, rows, way, batching): rates of the rounds}."""
    titles = [f"{way}, batching" if batching else way for way, batching in WAYS]
    lines = [f"`{signature}`, rows a second:", "", f"| clients | rows | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for clients, rows in cells:
        medians = [statistics.median(rates[clients, rows, *way]) for way in WAYS]
        lines.append(f"| {clients} | {rows} | {' | '.join(f'{median:.4g}' for median in medians)} |")
    return "\n".join(lines)


def main(flags: Flags) -> None:
    """Starts the servers, measures, and prints the tables."""
    if not flags.model_base_path:
        raise UserError("--model_base_path: expected the folder of an exported model's versions, received none")
    base = os.path.abspath(os.path.expanduser(flags.model_base_path))
    versions = [int(name) for name in os.listdir(base) if name.isdecimal()]
    if not versions:
        raise UserError(f"--model_base_path={base}: expected folders of versions, found none; `tfcq export` makes one")
    from tfcq.serving.server.batching_parameters import BatchingParameters
    from tfcq.serving.server.loading import Loader, LoadOptions

    file = os.path.abspath(flags.batching_parameters_file)
    path = os.path.join(base, str(max(versions)))
    loaders = {False: Loader(LoadOptions()), True: Loader(LoadOptions(BatchingParameters.of_file(file, file)))}
    servables = {batching: loader(path) for batching, loader in loaders.items()}
    cells = [(int(clients), int(rows)) for rows in flags.rows for clients in flags.clients]
    batching_flags = ("--enable_batching", f"--batching_parameters_file={file}")
    with client_processes() as measure, server(base) as plain, server(base, *batching_flags) as batched:
        addresses = {False: plain, True: batched}
        for signature in flags.signatures:
            declared = servables[False].input_specs(signature)
            specs = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in declared.items()}
            rates: dict[tuple, list[float]] = {(*cell, *way): [] for cell in cells for way in WAYS}
            for _ in range(flags.rounds):
                for (clients, rows, way, batching), found in rates.items():
                    if way == "in process":
                        inputs = [random_inputs(specs, rows, one) for one in range(clients)]
                        asks = [functools.partial(servables[batching].predict, signature, given) for given in inputs]
                        found.append(rows_per_second(asks, rows, flags.seconds, lambda: None))
                    else:
                        address = addresses[batching][way]
                        found.append(measure(address, way, signature, specs, clients, rows, flags.seconds))
            print(table(signature, rates, cells), end="\n\n", flush=True)


COMMAND = Command("tools/benchmark_serving.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
