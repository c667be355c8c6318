"""Workers of a training as processes of this machine."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys

from commands import REPOSITORY


def start_workers(commands, **options):
    """The `subprocess.Popen`s of a cluster's workers, the chief first: of `python ARGUMENTS ...` for each of `commands`."""
    count = len(commands)
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    folders = [REPOSITORY, REPOSITORY / "tests", REPOSITORY / "tests" / "conformance"]
    shared = {"PYTHONPATH": os.pathsep.join(map(str, folders)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    shared["http_proxy"] = "http://127.0.0.1:9"  # nobody is there: workers must reach each other without it
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options

    def start(index, arguments):
        place = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = os.environ | shared | {"TF_CONFIG": json.dumps(place)} if count > 1 else os.environ | shared
        return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, **streams)

    return [start(*each) for each in enumerate(commands)]


def free_ports(count):
    """Ports that nobody listens on, below those that Linux gives to outgoing connections, one of which could take them."""
    sockets = []
    while len(sockets) < count:
        with contextlib.suppress(OSError):
            sockets.append(socket.create_server(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000))))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ends_of(processes, timeout=400):
    """[(exit status, stdout, stderr)] of processes, once all of them have ended."""
    said = [process.communicate(timeout=timeout) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]
