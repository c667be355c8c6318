"""One training as a process whose reader and terminal go away, and which is killed: it saves or goes on, and loses nothing."""

import json
import os
import pathlib
import pty
import re
import signal
import time

import pytest
from commands import TINY, command, last_step, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FLAGS = TINY | {
    "train_steps": 100000,  # more than it comes to
    "checkpoint_every": 70,
    "evaluate_every": 100,
    "log_every": 10,
}


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def steps_in_tensorboard(workdir, name, tag):
    events = EventAccumulator(str(workdir / "tensorboard" / name), size_guidance={"tensors": 0})
    events.Reload()
    return [event.step for event in events.Tensors(tag)]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_goes_away_nothing_is_lost_or_doubled(tmp_path):
    workdir, processes = tmp_path / "run", []

    def begin(*arguments, **options):
        processes.append(start(*arguments, **options))
        return processes[-1]

    try:
        # Told to stop while TensorFlow is imported: nothing is there yet.
        process = begin(command("train", workdir=workdir, **FLAGS))
        wait_for(lambda: "tensorflow" in pathlib.Path(f"/proc/{process.pid}/maps").read_text(), process)
        process.terminate()
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 143 and re.fullmatch(r"error: SIGTERM\b.*\n", errors), errors
        assert not workdir.exists()

        # Its reader leaves after a line, as `| head -n 1` does.
        process = begin(command("train", workdir=workdir, **FLAGS))
        assert process.stdout.readline().startswith("cqf: ")
        process.stdout.close()
        process.stdout = None
        wait_for(lambda: last_step(workdir) >= 140, process)
        # A second training in the same folder, while the first one rests.
        process.send_signal(signal.SIGSTOP)
        refused = begin(command("train", workdir=workdir))
        message = refused.communicate(timeout=400)[1]
        assert refused.returncode == 2 and re.fullmatch(
            rf"error: workdir {workdir}: another training runs in it \(process {process.pid} on .*\n", message
        ), message
        # The first one's terminal hangs up.
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGHUP)
        errors = process.communicate(timeout=400)[1]
        step = last_step(workdir)
        assert process.returncode == 129
        assert errors == f"error: SIGHUP at step {step}: state saved; run the same command again to resume\n"

        # Its terminal goes away while hang-ups are ignored, as with nohup: writing is an EIO then.
        master, slave = pty.openpty()
        shell = ["bash", "-c", 'trap "" HUP; exec "$0" "$@"', *command("train", workdir=workdir)]
        process = begin(shell, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        os.read(master, 10)
        os.close(master)
        wait_for(lambda: last_step(workdir) >= step + 140, process)
        # Killed as it is, with whatever it was writing, and after a step that is measured but not saved.
        wait_for(lambda: rows(workdir)[-1] > last_step(workdir), process)
        process.kill()
        process.wait(timeout=60)
        assert (workdir / "lock").exists()

        # With all streams closed, to the end, which moves on: the workdir alone is enough.
        end = 100 * (max(rows(workdir)) // 100 + 2)
        shell = ["bash", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *command("train", workdir=workdir, train_steps=end)]
        process = begin(shell)
        process.communicate(timeout=400)
        assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()

    # That the weights are those of a run that was left alone: test_life_cycle.py and test_commands.py.
    assert last_step(workdir) == end and rows(workdir) == list(range(0, end + 1, 100))
    assert steps_in_tensorboard(workdir, "validation", "grids/samples") == rows(workdir)
    assert steps_in_tensorboard(workdir, "train", "loss/generator/loss") == list(range(10, end + 1, 10))
    assert not (workdir / "lock").exists() and not list(workdir.rglob("*.partial"))
    (change,) = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
    assert change["changes"] == {"training.train_steps": [FLAGS["train_steps"], end]}


def rows(workdir):
    """Steps of the rows of metrics, of which the last may be half written."""
    lines = (workdir / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line)["step"] for line in lines]
