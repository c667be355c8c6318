"""Trainings on several workers, which are processes here: the weights of several devices of one, through signals and kills."""

import json
import re
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from clusters import ends_of, start_workers
from commands import REPOSITORY, TINY, last_step, run_here

STEPS = 400
TOLERANCE = 1e-5
"""Of a tensor's largest element: 80 epsilons."""

FLAGS = TINY | {"train_steps": STEPS, "evaluate_every": 200, "checkpoint_every": 100, "log_every": 10, "batch_size": 12}


def arguments(workdir, **flags):
    return ["-m", "tfcq.train", *(f"--{name}={value}" for name, value in ({"workdir": workdir} | FLAGS | flags).items())]


def train(workdir, count=2, **flags):
    """[(exit status, stdout, stderr)] of a training on `count` workers."""
    return ends_of(start_workers([arguments(workdir, **flags)] * count))


def wait_for_step(workdir, step, processes):
    """Waits until the training has taken a step since it was started."""
    while last_step(workdir) < step:
        assert all(process.poll() is None for process in processes), ends_of(processes)
        time.sleep(0.01)


def interrupted(workdir, which, number, step, count=2):
    """As `train`, of a training whose worker `which` gets a signal after a checkpoint of `step` or later."""
    processes = start_workers([arguments(workdir)] * count)
    try:
        wait_for_step(workdir, step, processes)
        processes[which].send_signal(number)
        return ends_of([process for index, process in enumerate(processes) if number != signal.SIGSTOP or index != which])
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def weights(workdir, step=STEPS):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "last" / f"step-{step}"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: np.asarray(reader.get_tensor(name)) for name in names if not name.startswith("save_counter")}


def assert_same_bits(workdir, other):
    mine, theirs = weights(workdir), weights(other)
    assert {name: value.tobytes() for name, value in mine.items()} == {name: value.tobytes() for name, value in theirs.items()}


def rows(workdir):
    """The rows of metrics.jsonl without what the clock says."""
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in read]


def assert_like_two_devices(workdir, other):
    """That a run is the one which two logical devices of one process make of it."""
    options = [f"--{name}={value}" for name, value in FLAGS.items()]
    status, _, errors = run_here("train", *options, f"--workdir={other}", "--logical_devices=2")
    assert (status, errors) == (0, "")
    assert_same_bits(workdir, other)
    assert rows(workdir) == rows(other)
    assert sorted(path.name for path in workdir.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_workers_of_which_one_is_stopped_train_what_two_devices_do(tmp_path):
    ends = interrupted(tmp_path / "run", 1, signal.SIGTERM, 100)
    step = last_step(tmp_path / "run")
    line = f"error: SIGTERM at step {step}: state saved; run the same command again to resume\n"
    assert [(status, errors) for status, _, errors in ends] == [(143, line)] * 2
    assert 100 < step < STEPS and not (tmp_path / "run" / "lock").exists()
    (status, output, errors), (other_status, others_output, others_errors) = train(tmp_path / "run")
    assert (status, errors, other_status, others_errors) == (0, "", 0, "")
    assert "2 replica(s) of 2 workers" in output and f"resumed from step {step}" in output
    assert others_output == "worker 1 of 2: the first worker prints, writes and evaluates\n"
    assert_like_two_devices(tmp_path / "run", tmp_path / "devices")


@pytest.mark.cluster
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("which, number", [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_worker_ends_the_others_and_all_resume(tmp_path, which, number):
    started = time.monotonic()
    ends = interrupted(tmp_path / "run", which, number, 100)
    assert time.monotonic() - started < 600
    step = last_step(tmp_path / "run")
    line = (
        f"error: worker {1 - which} of 2: worker {which} was lost; start all workers again with the same command: they resume "
        f"from step {step}\n"
    )
    status, _, errors = ends[0] if number == signal.SIGSTOP else ends[1 - which]
    assert (status, errors) == (75, line)
    ends = train(tmp_path / "run")
    assert [status for status, *_ in ends] == [0, 0], ends
    assert_like_two_devices(tmp_path / "run", tmp_path / "devices")


@pytest.mark.cluster
@pytest.mark.timeout(3600)
def test_a_run_goes_on_with_other_numbers_of_workers(tmp_path):
    """The layout is no part of a run: 2 workers, then 3, then 1 process; only the rounding of sums differs."""
    layouts = [(2, 100), (3, 200), (1, STEPS)]
    for count, steps in layouts:
        ends = train(tmp_path / "run", count, train_steps=steps)
        assert [(status, errors) for status, _, errors in ends] == [(0, "")] * count
        assert (f"of {count} workers" in ends[0][1]) == (count > 1)
    assert train(tmp_path / "alone", 1)[0][0] == 0
    expected = weights(tmp_path / "alone")
    for name, value in weights(tmp_path / "run").items():
        if value.dtype.kind == "f" and not name.startswith("best_value"):
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3 * np.abs(expected[name]).max(initial=1e-3))
    ends = train(tmp_path / "run", 3, batch_size=8, train_steps=STEPS + 1)
    assert [status for status, *_ in ends] == [2] * 3
    assert "batch_size=8: expected a multiple of the 3 workers" in ends[0][2]


@pytest.mark.cluster
@pytest.mark.timeout(3600)
def test_workers_that_differ_end_in_one_line(tmp_path):
    ends = ends_of(start_workers([arguments(tmp_path / "run"), arguments(tmp_path / "run", seed=1)]))
    line = "error: worker 1 of 2 has another training.seed than the chief: 1 instead of 0; all workers need the same command, "
    assert [(status, errors) for status, _, errors in ends] == [(2, f"{line}versions, images and workdir\n")] * 2
    ends = ends_of(start_workers([arguments(tmp_path / "run"), arguments(tmp_path / "other")]))
    assert [status for status, *_ in ends] == [2, 2]
    for _, _, errors in ends:
        assert "expected the folder in which the chief trains (process " in errors and errors.count("\n") == 1
    assert not (tmp_path / "run").exists() and not (tmp_path / "other").exists()


@pytest.mark.cluster
@pytest.mark.timeout(3600)
def test_trainings_of_one_script_have_the_same_workers(tmp_path):
    """The second goes on with the first one's run; then the chief alone evaluates."""
    script = """if True:
        import sys
        import tfcq
        from commands import config_from
        from tfcq.machine import cluster
        for steps in (100, 200):
            run = tfcq.Run(sys.argv[1], config_from(*sys.argv[2:], f"--train_steps={steps}"))
            print("steps:", run.train().steps_taken)
        if cluster.from_environment().is_chief:
            print("evaluated:", run.evaluate(report=False)["step"])
    """
    flags = [f"--{name}={value}" for name, value in FLAGS.items() if name != "train_steps"]
    ends = ends_of(start_workers([["-c", script, tmp_path / "run", *flags]] * 2))
    assert [status for status, *_ in ends] == [0, 0], ends
    said = [[line for line in output.splitlines() if re.match("steps:|evaluated:", line)] for _, output, _ in ends]
    assert said == [["steps: 100", "steps: 200", "evaluated: 200"], ["steps: 100", "steps: 200"]]


@pytest.mark.cluster
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("count, batch_size, names", [(2, 8, ["all"]), (3, 6, ["cqf_gan", "introvae", "wae_mmd"])])
def test_every_golden_trains_on_workers_as_on_devices(tmp_path, count, batch_size, names):
    found = []
    for name, workers, devices in (("workers", count, 1), ("devices", 1, count)):
        results = tmp_path / f"{name}.npz"
        command = [REPOSITORY / "tests" / "integration" / "golden_worker.py", results, devices, batch_size, *names]
        ends = ends_of(start_workers([command] * workers), timeout=3000)
        assert [status for status, *_ in ends] == [0] * workers, ends
        found.append(dict(np.load(results)))
    received, expected = found
    assert received.keys() == expected.keys()
    for name, value in received.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=TOLERANCE * np.abs(expected[name]).max(), err_msg=name)
