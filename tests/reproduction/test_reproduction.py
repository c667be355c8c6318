"""The ablation runner: budgets, interruption and failing rows, with a stand-in for trainer and evaluator."""

import json
import os
import signal
import sys
import threading
import time

import pytest
from commands import REPOSITORY

from tfcq import reproduce
from tfcq.errors import TrainingInterrupted, UserError
from tfcq.reproduction.process import Interrupts, follow
from tfcq.reproduction.run import Ablation, Budget, Job
from tfcq.reproduction.tables import TABLES
from tfcq.reproduction.timing import steps_in
from tfcq.workdir import saved_step

# Reports its progress as tfcq.train does, keeps its step as a checkpoint's file name, and saves on SIGTERM or Ctrl-C.
TRAINER = f"""
import json, pathlib, signal, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from tfcq.errors import TrainingDiverged, TrainingInterrupted
from tfcq.training.progress import Reporter
""" + """
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
workdir, total, seconds = pathlib.Path(flags["workdir"]), int(flags["train_steps"]), float(flags.get("seconds", 0.01))
if "refused" in flags:
    sys.exit("error: refused: expected another flag")
folder = workdir / "checkpoints" / "last"
folder.mkdir(parents=True, exist_ok=True)
with open(workdir / "starts", "a") as file:
    file.write("x")
(workdir / "data.json").write_text(json.dumps({"description": "made up | 8x8x1"}))
steps = [int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.index")]
step, received = max(steps, default=0), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))
while "meets" in flags and not (workdir.parent / flags["meets"] / "starts").exists():
    time.sleep(0.01)
print("training", flush=True)
print("a warning", file=sys.stderr)
try:
    with Reporter(workdir, step, total, 1234, 64, {"loss": "loss"}) as reporter:
        reporter.start()
        time.sleep(float(flags.get("start", 0.0)))
        while step < total:
            time.sleep(seconds)
            step += 1
            reporter.took(step, {"loss": 1.0})
            if step == int(flags.get("fail_at", 0)) and not (workdir / "mended").exists():
                raise TrainingDiverged("player generator: not finite")
            if received or step == total or step % 25 == 0:
                (folder / f"step-{step}.index").touch()
            if received:
                time.sleep(float(flags.get("saving", 0.0)))
                if len(received) > 1:
                    sys.exit("error: asked twice")
                raise TrainingInterrupted(received[0], step)
except TrainingDiverged as error:
    print("Traceback", f"error: {error}", "a library: goodbye", sep="\\n", file=sys.stderr)
    sys.exit(1)
except TrainingInterrupted as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
"""
EVALUATOR = """
import json, pathlib, sys
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
workdir = pathlib.Path(flags["workdir"])
with open(workdir / "evaluations", "a") as file:
    file.write("x")
if flags["metrics"] == "broken":
    sys.exit("error: metrics: none such")
(workdir / "metrics.json").write_text(json.dumps({"step": 1, "checkpoint": "last", "fd_pixels": {"value": 2.5}}))
"""

TIMER = """
import json, pathlib, sys
result, rows = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
with open(pathlib.Path(__file__).parent / "timings", "a") as file:
    print(*rows, file=file)
if "broken" in rows:
    sys.exit("error: out of memory")
times = {name: flags.get("ms", [10.0]) for name, flags in rows.items()}
result.write_text(json.dumps({"machine": "a machine", "ms_per_step": times}))
"""


@pytest.fixture
def commands(tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "evaluator.py").write_text(EVALUATOR)
    (tmp_path / "timer.py").write_text(TIMER)
    return {
        "train": [sys.executable, str(tmp_path / "trainer.py")],
        "evaluate": [sys.executable, str(tmp_path / "evaluator.py")],
        "time": [sys.executable, str(tmp_path / "timer.py")],
    }


@pytest.fixture
def make(commands, tmp_path):
    """Function (plan) -> Ablation under tmp_path/out."""

    def make(**plan):
        return Ablation(tmp_path / "out", {"table": "1"} | plan, commands)

    return make


def job(name, budget, metrics="frechet_distance", **flags):
    evaluate = {"metrics": metrics} if metrics else {}
    return Job(name, budget.flags({}, name) | flags, evaluate)


def count(workdir, what):
    return len((workdir / what).read_text())


def state(folder):
    return json.loads((folder / "out" / "state.json").read_text())["rows"]


# Budgets.


def test_minutes_are_as_many_steps_as_take_them():
    assert steps_in(60, [1000.0]) == 3600 and steps_in(1, [7000.0]) == 9 and steps_in(0.01, [7000.0]) == 1
    steps = steps_in(10, [100.0, 400.0], 0.25)  # 600 s of 325 ms a step
    assert steps == 1846 and steps * (0.25 * 0.1 + 0.75 * 0.4) == pytest.approx(600.0, abs=0.4)
    assert steps_in(10, [100.0, 400.0], 0.25, first_stage_steps=2000) == 2000 + 1000  # 200 s, then 400 s
    with pytest.raises(UserError, match="a first stage of 1000 steps takes 3.33 of 1 minutes; expected fewer "):
        steps_in(1, [200.0, 100.0], 1 / 3, first_stage_steps=1000)


@pytest.mark.parametrize(
    ("row", "given", "ms_per_step", "steps"),
    [
        ("wae_gan", {}, [50.0, 100.0], 200 + 500),  # --pretraining_steps, by default 200: 10 s, then 50 s
        ("wae_gan", {"pretraining_steps": 600}, [50.0, 100.0], 600 + 300),
        ("wae_gan", {"first_stage_steps": 100}, [50.0, 100.0], 200 + 500),  # which it does not have
        ("glann", {"first_stage_steps": 600}, [50.0, 100.0], 600 + 300),
        ("glann", {}, [90.0, 50.0], 1000),  # a quarter of the steps
        ("vae", {"first_stage_steps": 100}, [100.0], 600),
        ("glf", {"first_stage_steps": 100}, [100.0], 600),
        ("wae_gan", {"pretraining_steps": 1200}, [50.0, 100.0], None),
    ],
)
def test_stages_of_a_row_together_take_its_minutes(row, given, ms_per_step, steps):
    class Timed:
        def time(self, rows, steps_of):
            return {name: steps_of(name, ms_per_step) for name in rows}

    arguments = Budget(minutes=1), TABLES["glf"], given, [Job(row, {}, {})], Timed()
    if steps is None:
        with pytest.raises(UserError, match="^row wae_gan: a first stage of 1200 steps takes 1 of 1 minutes; "):
            reproduce._in_minutes(*arguments)
    else:
        assert reproduce._in_minutes(*arguments).timed == {row: pytest.approx(steps, abs=1)}


def test_the_steps_of_rows_are_timed_once_and_then_fixed(make, tmp_path, capfd):
    rows = {"cq": {"ms": [20.0]}, "glann": {"ms": [10.0, 30.0]}}

    def steps_of(name, milliseconds):
        return round(600.0 / sum(milliseconds))

    assert make().time(rows, steps_of) == {"cq": 30, "glann": 15}
    budget = Budget(minutes=0.01, timed=make().time({"cq": {"ms": [999.0]}}, steps_of))  # on a machine that is busy now
    ablation = make()
    assert ablation.run([job("cq", budget)]) == [] and state(tmp_path)["cq"]["step"] == 30
    assert state(tmp_path)["cq"]["ms_per_step"] == [20.0] and ablation.timing["cq"]["machine"] == "a machine"
    assert make().time(rows | {"cqf": {}}, steps_of) == {"cq": 30, "glann": 15, "cqf": 60}
    assert (tmp_path / "timings").read_text().splitlines() == ["cq glann", "cqf"]
    with pytest.raises(UserError, match="cannot be timed: exit status 1: out of memory; expected --budget_steps"):
        make().time({"broken": {}}, steps_of)


def test_a_row_trains_for_its_steps_and_is_not_done_twice(make, tmp_path):
    budget = Budget(steps=7)
    for _ in range(2):
        assert make().run([job("cqf", budget)]) == []
    workdir = tmp_path / "out" / "cqf"
    assert state(tmp_path)["cqf"]["step"] == 7
    assert count(workdir, "starts") == count(workdir, "evaluations") == 1


def test_other_metrics_are_measured_without_training(make, tmp_path):
    budget = Budget(steps=2)
    for metrics in ("frechet_distance", "kernel_distance", ""):
        make().run([job("cqf", budget, metrics)])
    workdir = tmp_path / "out" / "cqf"
    assert (count(workdir, "starts"), count(workdir, "evaluations")) == (1, 2)
    assert "evaluation" not in state(tmp_path)["cqf"]  # nothing was asked for the last time


# Interruption.


def interrupt_after(workdir, step, number=signal.SIGTERM):
    """Sends this process the signal once the row's checkpoint has that step."""

    def wait():
        for _ in range(3000):
            if saved_step(workdir) >= step:
                return os.kill(os.getpid(), number)
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_ablation_goes_on_with_what_is_left(make, tmp_path, number):
    budget, handler = Budget(steps=200), signal.getsignal(number)
    jobs, workdir = [job("cq", budget, seconds=0.05), job("cqf", budget)], tmp_path / "out" / "cq"
    interrupt_after(workdir, 25, number)
    with pytest.raises(TrainingInterrupted) as caught:
        make().run(jobs)
    first = state(tmp_path)
    assert caught.value.exit_status == 128 + number and signal.getsignal(number) == handler
    assert set(first) == {"cq"} and first["cq"]["seconds"] > 0.0
    assert 200 > first["cq"]["step"] == saved_step(workdir) >= 25  # the trainer saved before it ended

    quick = [job("cq", budget)]
    assert make().run(quick) == []
    second = state(tmp_path)
    assert second["cq"]["seconds"] > first["cq"]["seconds"] and second["cq"]["step"] == 200
    assert count(workdir, "starts") == 2 and "cqf" not in second


def test_the_seconds_of_steps_that_a_crash_lost_are_given_back(make, tmp_path):
    budget = Budget(steps=1000)
    ablation, workdir = make(), tmp_path / "out" / "cqf"
    ablation.rows["cqf"] = {"step": 100, "seconds": 999.6}  # what the state said when all was killed
    (workdir / "checkpoints" / "last").mkdir(parents=True)
    (workdir / "checkpoints" / "last" / "step-25.index").touch()
    interrupt_after(workdir, 50)
    with pytest.raises(TrainingInterrupted):
        ablation.run([job("cqf", budget)])
    assert 249.9 < state(tmp_path)["cqf"]["seconds"] < 300.0  # a quarter of the steps had been saved


@pytest.mark.parametrize("name", ["TF_CONFIG", "SLURM_STEP_ID", "TFCQ_WORKERS"])
def test_what_is_run_belongs_to_no_cluster(monkeypatch, name):
    """Otherwise it would wait for workers that nobody starts."""
    monkeypatch.setenv(name, "2")
    with Interrupts() as interrupts:
        assert follow(["sh", "-c", f"exit ${{{name}:-0}}"], interrupts)[0] == 0


def test_a_second_signal_kills(tmp_path):
    up, timers = tmp_path / "up", []
    deaf = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(up)!r}, 'w'); time.sleep(60)"
    with Interrupts() as interrupts:

        def interrupt():
            if up.exists() and not timers:
                timers.extend(threading.Timer(pause, os.kill, (os.getpid(), signal.SIGTERM)) for pause in (0.0, 0.4))
                for timer in timers:
                    timer.start()

        begin = time.monotonic()
        status, _ = follow([sys.executable, "-c", deaf], interrupts, interrupt)
        assert status == -signal.SIGKILL and 0.3 < time.monotonic() - begin < 20.0
        with pytest.raises(TrainingInterrupted):
            interrupts.check(3)


def test_another_plan_is_refused_and_a_broken_state_named(make, tmp_path):
    budget = Budget(steps=1)
    make(narrow=0.5).run([job("cqf", budget, "")])
    with pytest.raises(UserError, match=r"narrow: 0\.5 -> 0\.25.*another --output"):
        make(narrow=0.25)
    (tmp_path / "out" / "state.json").write_text("{")
    with pytest.raises(UserError, match="the state of the ablation cannot be read: .*; remove it, or use another --output"):
        make(narrow=0.5)


def test_rows_that_the_clock_stopped_are_refused(make, tmp_path):
    """Before steps were timed, --budget_minutes ended a row by the clock, under a plan of the same minutes."""
    (tmp_path / "out").mkdir()
    old = {"plan": {"table": "1", "budget": {"minutes": 2.0, "steps": None}}, "rows": {"cqf": {"step": 70, "seconds": 120.0}}}
    (tmp_path / "out" / "state.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match="another ablation .*timed.*another --output") as caught:
        make(budget=Budget(minutes=2.0).plan())
    assert "\n" not in str(caught.value)
    steps = {"minutes": None, "steps": 9}  # whose folders stay valid
    assert Budget(steps=9).plan() == steps
    assert Budget(steps=9, row_steps={"vae": 3}).plan() == steps | {"row_steps": {"vae": 3}}


def test_an_output_that_is_a_file_is_one_line(make, tmp_path):
    (tmp_path / "out").write_text("")
    budget = Budget(steps=1)
    with pytest.raises(UserError, match="out: cannot be written"):
        make().run([job("cqf", budget)])


# Several rows at a time.


def test_rows_at_once_are_trained_beside_each_other(make, tmp_path, capfd):
    budget, seen = Budget(steps=30), []
    jobs = [job("gan", budget, meets="cq"), job("cq", budget, meets="gan"), job("cqf", budget, fail_at=20)]
    assert make().run(jobs, after_row=lambda: seen.append(1), at_once=2) == ["cqf"] and len(seen) == 3
    rows = state(tmp_path)
    assert list(rows) == ["gan", "cq", "cqf"] and all(rows[name]["shared"] and rows[name]["evaluation"] for name in ("gan", "cq"))
    written = capfd.readouterr()
    assert {"gan: training", "cq: training", "cqf: training"} <= set(written.out.splitlines())
    assert "cqf: Traceback" in written.err.splitlines()
    (tmp_path / "out" / "cqf" / "mended").touch()
    assert make().run(jobs) == [] and state(tmp_path)["cqf"]["shared"]  # 20 of its steps were


def test_a_signal_lets_each_of_the_rows_save(make, tmp_path, capfd):
    budget = Budget(steps=400)
    jobs = [job("cq", budget, seconds=0.02, saving=0.1), job("gan", budget, seconds=0.02, saving=1.0), job("cqf", budget)]
    interrupt_after(tmp_path / "out" / "cq", 25)
    with pytest.raises(TrainingInterrupted) as caught:
        make().run(jobs, at_once=2)
    rows = state(tmp_path)
    assert caught.value.exit_status == 128 + signal.SIGTERM and set(rows) == {"cq", "gan"}
    assert "asked twice" not in capfd.readouterr().err
    for name, row in rows.items():
        assert "failure" not in row and 0 < row["step"] == saved_step(tmp_path / "out" / name) < 400


def test_an_error_ends_the_rows_beside_it(make, tmp_path):
    def report():
        raise UserError("no space left")

    jobs = [job("cq", Budget(steps=30)), job("gan", Budget(steps=3000), meets="cq"), job("cqf", Budget(steps=30))]
    with pytest.raises(UserError, match="no space left"):
        make().run(jobs, after_row=report, at_once=2)
    rows = state(tmp_path)
    assert set(rows) == {"cq", "gan"} and rows["cq"]["evaluation"]
    assert "failure" not in rows["gan"] and rows["gan"]["step"] == saved_step(tmp_path / "out" / "gan") < 3000


# Rows that fail.


def test_a_row_that_fails_is_noted_and_the_others_go_on(make, tmp_path, capfd):
    budget, seen = Budget(steps=60), []
    jobs = [
        job("gan", budget, seconds=0.001, fail_at=40),
        job("vae", budget, "broken", seconds=0.001),
        job("cqf", budget, seconds=0.001),
        job("cq", budget, refused=1),
    ]
    assert make().run(jobs, after_row=lambda: seen.append(1)) == ["gan", "vae", "cq"] and len(seen) == 4
    rows = state(tmp_path)
    assert rows["gan"]["failure"] == "train: exit status 1: player generator: not finite"
    assert rows["cq"]["failure"] == "train: exit status 1: refused: expected another flag"
    assert rows["vae"]["failure"] == "evaluate: exit status 1: metrics: none such"
    assert rows["cqf"]["evaluation"] and "failure" not in rows["cqf"]
    assert "Traceback" in capfd.readouterr().err  # passed on whole

    (tmp_path / "out" / "gan" / "mended").touch()
    assert make().run(jobs[:3]) == ["vae"]
    assert "failure" not in state(tmp_path)["gan"] and state(tmp_path)["gan"]["step"] == 60
    assert count(tmp_path / "out" / "vae", "starts") == 1  # what was trained stays
