"""The ablation runner: rows, budgets, interruption, failing rows and the table, with a stand-in for trainer and evaluator."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest
from commands import REPOSITORY
from markdown_tables import unpadded

from tfcq.errors import TrainingInterrupted, UserError
from tfcq.reproduction import report
from tfcq.reproduction.process import Clock, Interrupts, follow
from tfcq.reproduction.run import ENDLESS, Ablation, Budget, Job, saved_step
from tfcq.reproduction.tables import TABLES, WIDTHS, Order

# Prints what tfcq.train prints, keeps its step as a checkpoint's file name, and saves on SIGTERM or Ctrl-C.
TRAINER = """
import json, pathlib, signal, sys, time
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
workdir, total, seconds = pathlib.Path(flags["workdir"]), int(flags["train_steps"]), float(flags.get("seconds", 0.01))
folder = workdir / "checkpoints" / "last"
folder.mkdir(parents=True, exist_ok=True)
with open(workdir / "starts", "a") as file:
    file.write("x")
(workdir / "data.json").write_text(json.dumps({"description": "made up | 8x8x1"}))
steps = [int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.index")]
step, received = max(steps, default=0), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))
print("cqf: 1,234 weights; made up; 1 replica(s)", flush=True)
time.sleep(float(flags.get("start", 0.0)))
while step < total:
    time.sleep(seconds)
    step += 1
    print(f"\\rstep {step}/{total}  {64 / seconds:.1f} images/s  1.0 min left  loss 1  ", end="", flush=True)
    if step == int(flags.get("fail_at", 0)) and not (workdir / "mended").exists():
        print("Traceback", "error: player generator: not finite", sep="\\n", file=sys.stderr)
        sys.exit(1)
    if received or step == total or step % 25 == 0:
        (folder / f"step-{step}.index").touch()
    if received:
        print(f"error: signal {received[0]} at step {step}: state saved", file=sys.stderr)
        sys.exit(128 + received[0])
print("\\nstep", step, flush=True)
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


@pytest.fixture
def commands(tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "evaluator.py").write_text(EVALUATOR)
    return {
        "train": [sys.executable, str(tmp_path / "trainer.py")],
        "evaluate": [sys.executable, str(tmp_path / "evaluator.py")],
    }


@pytest.fixture
def make(commands, tmp_path):
    """Function (budget, plan) -> Ablation under tmp_path/out."""

    def make(budget, **plan):
        return Ablation(tmp_path / "out", {"table": "1"} | plan, budget, commands)

    return make


def job(name, budget, metrics="frechet_distance", **flags):
    evaluate = {"metrics": metrics} if metrics else {}
    return Job(name, budget.flags({}) | flags, evaluate)


def count(workdir, what):
    return len((workdir / what).read_text())


def state(folder):
    return json.loads((folder / "out" / "state.json").read_text())["rows"]


# Rows.


def command_line(*arguments):
    """The tool as a process, which reads its flags as tfcq.train does and trains nothing."""
    return subprocess.run(
        [sys.executable, "-m", "tfcq.reproduce", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def dry_run(*arguments, which="train"):
    """{row: {flag: text}} of what would be trained, or evaluated."""
    done = command_line("--dry_run", "--dataset=digits", *arguments)
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in done.stdout.splitlines():
        if f" tfcq.{which} " not in line:
            continue
        flags = dict(word[2:].split("=", 1) for word in shlex.split(line) if word.startswith("--"))
        rows[pathlib.Path(flags.pop("workdir")).name] = flags
    return rows


@pytest.mark.parametrize("name", TABLES)
def test_every_row_makes_a_valid_config(name):
    rows = dry_run(f"--table={name}", "--image_size=32", "--budget_steps=300", "--batch_size=5")
    assert list(rows) == [row.name for row in TABLES[name].rows]
    for flags in rows.values():
        assert flags["train_steps"] == flags["evaluate_every"] == "300" and flags["batch_size"] == "5"
    assert len({json.dumps(flags) for flags in rows.values()}) == len(rows)  # no two rows are the same model


def test_the_rows_of_table_1_are_the_papers():
    rows = dry_run("--table=1", "--image_size=32", "--budget_minutes=2", "--quality_weight=10")
    assert rows["gan"]["coverage"] == "false" and rows["gan"]["flow_scales"] == "0"
    assert rows["vae"]["quality_weight"] == "0.0" and rows["cq"]["quality_weight"] == "10.0"  # a row's own options stand
    assert rows["cqf"]["flow_scales"] == "1" and rows["cq"]["flow_scales"] == "0"
    assert rows["cq"]["width"] == "65" and "width" not in rows["cqf"]
    assert {row["train_steps"] for row in rows.values()} == {str(ENDLESS)}


def test_each_row_is_measured_by_what_it_can_do():
    arguments = ["--table=1", "--image_size=32", "--budget_steps=2", "--num_samples=9"]
    rows = dry_run(*arguments, which="evaluate")
    both = {"checkpoint": "last", "num_samples": "9"}
    assert rows["gan"] == both | {"metrics": "frechet_distance,classifier_score,kernel_distance"}
    assert rows["vae"] == both | {"metrics": "bits_per_dim,elbo,frechet_distance,classifier_score,kernel_distance"}
    assert set(dry_run(*arguments, "--metrics=elbo", which="evaluate")) == {"vae", "cq", "cqf"}
    latents = ["--table=glf", "--image_size=28", "--budget_steps=300", "--metrics=elbo,latent_likelihood"]
    rows = {name: flags["metrics"] for name, flags in dry_run(*latents, which="evaluate").items()}
    assert {name for name, metrics in rows.items() if metrics == "latent_likelihood"} == {
        "wae_gan", "rae_gmm", "glf", "glf_perceptual"}  # fmt: skip
    assert {name for name, metrics in rows.items() if metrics == "elbo"} == {
        "vae", "two_stage_vae", "vae_flow_prior", "vae_flow_posterior"}  # fmt: skip


def test_narrow_multiplies_the_widths_that_are_not_given():
    table, names = TABLES["2"], ("width", "discriminator_width", "flow_width", "iaf_width")
    large = table.row("cqf_residual_iaf_large_d")
    assert [table.flags(large, {}, 0.25)[name] for name in names] == [8, 16, 8, 8]
    assert [table.flags(large, {"width": 50}, 0.01)[name] for name in names] == [50, 2, 1, 1]
    latent = TABLES["glf"].flags(TABLES["glf"].row("glf"), {}, 0.5)
    assert {name: latent[name] for name in latent if name in WIDTHS} == {
        "autoencoder_width": 32, "hidden_units": 512, "latent_flow_units": 32}  # fmt: skip
    assert table.flags(large, {"discriminator_width": 20})["discriminator_width"] == 40
    assert TABLES["1"].flags(TABLES["1"].row("cq"), {"width": 200})["width"] == 204  # 2 %, where that is more than one


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_numbers_show_the_orders_that_are_expected(name):
    table = TABLES[name]
    for order in table.orders:
        assert order.holds({row.name: row.paper[order.number] for row in table.rows if order.number in row.paper})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset=digits", "--budget_steps=1"], "expected --table=1|2|3a|3b|glf"),
        (["--table=1", "--budget_steps=1"], "expected --dataset="),
        (["--table=1", "--dataset=digits"], "expected one of --budget_minutes and --budget_steps, received neither"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--budget_minutes=1"], "received both"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--rows=cqg"], "received 'cqg'"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--train_steps=5"], "the budget says when a row ends"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--model=cqf"], "leave the flag out"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--flow_scales=2"], "every row of this table sets"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--image_size=30"], "row gan: image_size=30"),
        (
            ["--table=3b", "--dataset=digits", "--budget_steps=1", "--image_size=8", "--latent_size=2"],
            "row scales_4_blocks_1: image_size=8 with flow_scales=4",
        ),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--num_samples=1"], "num_samples: expected at least 2"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--metrics=fdi"], "received 'fdi'"),
        (
            ["--table=1", "--dataset=digits", "--budget_minutes=1", "--learning_rate_schedule=cosine"],
            "learning_rate_schedule=cosine with --budget_minutes",
        ),
        (["--table=glf", "--dataset=digits", "--budget_minutes=1"], "row vae: --learning_rate_drops=0.5:0.5 with --budget_min"),
        (
            ["--table=glf", "--dataset=digits", "--budget_minutes=1", "--learning_rate_drops="],
            "row two_stage_vae: stages of training with --budget_minutes",
        ),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--latent_dim=5"], "no row of this table has such an option"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--row_steps=cqf:0"], "received 'cqf:0'"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--row_steps=cgf:9"], "received 'cgf'"),
        (["--table=1", "--dataset=digits", "--budget_minutes=1", "--row_steps=cqf:9"], "--row_steps with --budget_minutes"),
    ],
)
def test_mistakes_are_one_line(arguments, expected):
    done = command_line(*arguments)
    assert done.returncode == 2 and expected in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_rows_of_several_systems_take_the_options_that_they_have():
    rows = dry_run("--table=glf", "--image_size=28", "--budget_steps=330", "--row_steps=glf:50", "--latent_flow_units=7")
    assert {name for name, row in rows.items() if "latent_flow_units" in row} == {
        "vae_flow_prior", "vae_flow_posterior", "glf", "glf_perceptual"}  # fmt: skip
    assert rows["glf"]["model"] == rows["glf_perceptual"]["model"] == "glf" and rows["vae"]["model"] == "vae"
    assert rows["glf"]["train_steps"] == "50" and rows["vae"]["train_steps"] == "330"
    # 500 epochs of GLO before 50, 400 of the first VAE before 800.
    stages = {name: row["first_stage_steps"] for name, row in rows.items() if "first_stage_steps" in row}
    assert stages == {"glann": "300", "two_stage_vae": "110", "glf": "0", "glf_perceptual": "0"}
    longer = dry_run("--table=glf", "--image_size=28", "--budget_steps=110", "--rows=glann", "--first_stage_steps=9")
    assert longer["glann"]["first_stage_steps"] == "9"
    assert dry_run("--table=glf", "--image_size=28", "--budget_steps=99", "--rows=glf", "--first_stage_steps=9")["glf"][
        "first_stage_steps"] == "0"  # fmt: skip


def test_a_schedule_has_its_end_where_steps_are_given():
    assert Budget(steps=9).flags({"learning_rate_schedule": "linear", "evaluate_every": 3}) == {"train_steps": 9}


# Budgets.


def test_the_clock_starts_at_the_first_progress_and_adds_what_was_spent_before(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(before=5.0)
    for line in ("cqf: 12 weights; digits", "step 0: validation 8.0 bits/dim"):
        assert clock.read(line) is None
        now[0] += 10.0
    assert clock.spent() == 5.0 and clock.left(60.0) is None
    assert clock.read("step 3/1000  12.0 images/s  1.0 min left  loss 2") == 3
    now[0] += 20.0
    assert clock.read("step 9/1000  12.0 images/s  1.0 min left  loss 2") == 9
    assert clock.spent() == 25.0 and clock.left(60.0) == 35.0 and clock.left(None) is None


def test_a_row_trains_for_its_time_without_the_start(make, tmp_path, capfd):
    budget = Budget(minutes=0.8 / 60)
    begin = time.monotonic()
    assert make(budget).run([job("cqf", budget, start=0.7)]) == []
    record = state(tmp_path)["cqf"]
    assert time.monotonic() - begin > 1.5
    assert 0.8 <= record["seconds"] < 3.0 and record["step"] == saved_step(tmp_path / "out" / "cqf")
    assert 0 < record["step"] < 500 and record["weights"] == 1234  # 10 ms a step, and there is no end but SIGTERM
    assert record["evaluation"]["measured"]["fd_pixels"]["value"] == 2.5
    assert "error" not in capfd.readouterr().err  # the end of the budget is none


def test_a_row_trains_for_its_steps_and_is_not_done_twice(make, tmp_path):
    budget = Budget(steps=7)
    for _ in range(2):
        assert make(budget).run([job("cqf", budget)]) == []
    workdir = tmp_path / "out" / "cqf"
    assert state(tmp_path)["cqf"]["step"] == 7
    assert count(workdir, "starts") == count(workdir, "evaluations") == 1


def test_other_metrics_are_measured_without_training(make, tmp_path):
    budget = Budget(steps=2)
    for metrics in ("frechet_distance", "kernel_distance", ""):
        make(budget).run([job("cqf", budget, metrics)])
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
    budget, handler = Budget(minutes=100.0 / 60), signal.getsignal(number)
    jobs, workdir = [job("cq", budget), job("cqf", budget)], tmp_path / "out" / "cq"
    interrupt_after(workdir, 25, number)
    with pytest.raises(TrainingInterrupted) as caught:
        make(budget).run(jobs)
    first = state(tmp_path)
    assert caught.value.exit_status == 128 + number and signal.getsignal(number) == handler
    assert set(first) == {"cq"} and 0.0 < first["cq"]["seconds"] < 50.0
    assert first["cq"]["step"] == saved_step(workdir) >= 25  # the trainer saved before it ended

    ablation, begin = make(budget), time.monotonic()
    ablation.rows["cq"]["seconds"] = 99.8
    assert ablation.run(jobs[:1]) == []
    second = state(tmp_path)
    assert time.monotonic() - begin < 50.0 and 100.0 <= second["cq"]["seconds"] < 150.0  # only what was left
    assert second["cq"]["step"] > first["cq"]["step"] and count(workdir, "starts") == 2


def test_the_seconds_of_steps_that_a_crash_lost_are_given_back(make, tmp_path):
    budget = Budget(minutes=1000.0 / 60)
    ablation, workdir = make(budget), tmp_path / "out" / "cqf"
    ablation.rows["cqf"] = {"step": 100, "seconds": 999.6}  # what the state said when all was killed
    (workdir / "checkpoints" / "last").mkdir(parents=True)
    (workdir / "checkpoints" / "last" / "step-25.index").touch()
    interrupt_after(workdir, 50)
    with pytest.raises(TrainingInterrupted):
        ablation.run([job("cqf", budget)])
    assert 249.9 < state(tmp_path)["cqf"]["seconds"] < 300.0  # a quarter of the steps had been saved


def test_a_second_signal_kills(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with Interrupts() as interrupts:

        def interrupt(line):
            for pause in (0.0, 0.4):
                threading.Timer(pause, os.kill, (os.getpid(), signal.SIGTERM)).start()

        begin = time.monotonic()
        status, _, asked = follow([sys.executable, "-c", deaf], interrupts, interrupt)
        assert status == -signal.SIGKILL and not asked and 0.3 < time.monotonic() - begin < 20.0
        with pytest.raises(TrainingInterrupted):
            interrupts.check(3)


def test_another_plan_is_refused_and_a_broken_state_named(make, tmp_path):
    budget = Budget(steps=1)
    make(budget, narrow=0.5).run([job("cqf", budget, "")])
    with pytest.raises(UserError, match=r"narrow: 0\.5 -> 0\.25.*another --output"):
        make(budget, narrow=0.25)
    (tmp_path / "out" / "state.json").write_text("{")
    with pytest.raises(UserError, match="the state of the ablation cannot be read: .*; remove it, or use another --output"):
        make(budget, narrow=0.5)


def test_an_output_that_is_a_file_is_one_line(make, tmp_path):
    (tmp_path / "out").write_text("")
    budget = Budget(steps=1)
    with pytest.raises(UserError, match="out: cannot be written"):
        make(budget).run([job("cqf", budget)])


# Rows that fail.


def test_a_row_that_fails_is_noted_and_the_others_go_on(make, tmp_path, capfd):
    budget, seen = Budget(steps=60), []
    jobs = [
        job("gan", budget, seconds=0.001, fail_at=40),
        job("vae", budget, "broken", seconds=0.001),
        job("cqf", budget, seconds=0.001),
    ]
    assert make(budget).run(jobs, after_row=lambda: seen.append(1)) == ["gan", "vae"] and len(seen) == 3
    rows = state(tmp_path)
    assert rows["gan"]["failure"] == "train: exit status 1: player generator: not finite"
    assert rows["vae"]["failure"] == "evaluate: exit status 1: metrics: none such"
    assert rows["cqf"]["evaluation"] and "failure" not in rows["cqf"]
    assert "Traceback" in capfd.readouterr().err  # passed on whole

    (tmp_path / "out" / "gan" / "mended").touch()
    assert make(budget).run(jobs) == ["vae"]
    assert "failure" not in state(tmp_path)["gan"] and state(tmp_path)["gan"]["step"] == 60
    assert count(tmp_path / "out" / "vae", "starts") == 1  # what was trained stays


# The table.


def record(distance, bits=None, step=100, **more):
    measured = {"step": step, "checkpoint": "last", "split": "test", "fd_lite": entry(distance, real=1.5)}
    measured |= {"classifier_score_lite": entry(2.0, standard_deviation_over_splits=0.05)}
    if bits is not None:
        likelihood = {"bits_per_dim_standard_error": 0.012, "num_images": 40, "split": "test", "meaning": "a bound"}
        measured["bits_per_dim"] = {"bits_per_dim": bits, "num_importance_samples": 7} | likelihood
        measured["elbo"] = {"bits_per_dim": bits + 0.5} | likelihood
    evaluation = {"flags": {}, "step": step, "measured": measured, "data": "made up | 8x8x1"}
    return {"step": step, "seconds": 90.0, "weights": 12345, "evaluation": evaluation} | more


def entry(value, **more):
    protocol = {"num_generated": 50, "num_real": 30, "split": "test", "extractor": "lite", "checksum": "ab12"}
    return {"value": value, "meaning": "a distance"} | protocol | more


def written(rows, tmp_path, table="1"):
    text = report.write_report(TABLES[table], rows, tmp_path / "out", ["Budget: 3 steps a row."]).read_text()
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    return text


def table_of(text):
    """{row: {heading: cell}} of the Markdown."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {line[0]: dict(zip(lines[0], line)) for line in lines[1:]}


def test_the_table_sets_ours_beside_the_papers(tmp_path):
    failure = "train: exit status 1: a | b"
    rows = {"gan": record(50.0), "cqf": record(20.25, 3.5, 80), "vae": {"step": 3, "seconds": 6.0, "failure": failure}}
    text = written(rows, tmp_path)
    cells = table_of(text)
    assert list(cells) == ["gan", "vae", "cq", "cqf", "real images in their place"]
    cqf = cells["cqf"]
    assert [cqf[name] for name in ("paper: BPD", "paper: IS", "paper: FID")] == ["3.9", "7.1", "28"]
    assert cqf["bits/dim (importance-weighted)"] == "3.5 +- 0.012" and cqf["bits/dim (ELBO)"] == "4 +- 0.012"
    assert cqf["fd_lite"] == "20.25" and cqf["classifier_score_lite"] == "2 +- 0.05"
    assert (cqf["steps"], cqf["minutes"], cqf["weights"], cqf["state"]) == ("80", "1.5", "12,345", "measured")
    assert cells["gan"]["paper: BPD"] == "-" and cells["gan"]["bits/dim (importance-weighted)"] == "n/a"
    assert cells["vae"]["state"] == f"failed: {failure}".replace("|", "/") and cells["vae"]["fd_lite"] == "n/a"
    assert cells["cq"]["state"] == "not run" and cells["cq"]["steps"] == "n/a"
    assert cells["real images in their place"]["fd_lite"] == "1.5"
    assert "their levels do not compare with the paper's" in text.replace("\n", " ")


def test_every_protocol_is_stated(tmp_path):
    rows = {"gan": record(50.0), "cqf": record(20.0, 3.5)}
    text = written(rows, tmp_path)
    assert "- Budget: 3 steps a row.\n- Data: made up \\| 8x8x1." in text
    assert "`fd_lite`: a distance: split=test, num_generated=50, num_real=30, extractor=lite, checksum=ab12" in text
    assert "num_images=40, num_importance_samples=7, checkpoint=last" in text
    rows["gan"]["evaluation"]["measured"]["fd_lite"]["num_generated"] = 9
    text = written(rows, tmp_path)  # rows that were not measured alike are told apart
    assert "`fd_lite` of gan: a distance: split=test, num_generated=9" in text and "`fd_lite` of cqf:" in text
    assert "fd_lite (!)" in table_of(text)["gan"] and "bits/dim (ELBO)" in table_of(text)["gan"]
    assert "- `fd_lite` (!): not measured alike; the rows differ in num_generated." in text
    data = {"dataset": "digits", "image_size": 8, "channels": 1}  # recorded since: other data of one name in two rows
    for name, size in (("gan", 8), ("cqf", 16)):
        rows[name]["evaluation"]["measured"]["fd_lite"] |= {"num_generated": 9, "data": data | {"image_size": size}}
    assert "- `fd_lite` (!): not measured alike; the rows differ in image_size." in written(rows, tmp_path)


def test_orders_are_answered_both_ways(tmp_path):
    good = {"vae": record(152.0, 5.2), "cq": record(130.0, 5.3), "cqf": record(87.8, 3.5)}
    text = written(good, tmp_path)
    assert (
        "- cqf before cq before vae on the Frechet distance: yes (cqf 87.8, cq 130, vae 152); the paper: 28, 58.6, 171"
        in text
    )
    assert "- cqf before cq and vae on the bits/dim: yes (cqf 3.5, cq 5.3, vae 5.2); the paper: 3.9, 4.4, 4.4" in text
    assert "- cqf before gan before cq and vae on the Frechet distance: unknown, without a number of gan;" in text
    bad = good | {"cq": record(160.0, 3.4)}
    text = written(bad, tmp_path)
    assert "on the Frechet distance: no (cqf 87.8, cq 160, vae 152)" in text
    assert "on the bits/dim: no (cqf 3.5, cq 3.4, vae 5.2)" in text
    bits = {"scales_1_blocks_2": record(1.0, 3.5), "scales_2_blocks_2": record(1.0, 3.5)}
    assert "on the bits/dim: no (scales_2_blocks_2 3.5, scales_1_blocks_2 3.5)" in written(bits, tmp_path, "3a")


def test_a_paper_without_bits_per_dim_is_drawn_as_bars(tmp_path):
    rows = {"glf": record(20.0), "vae": record(50.0, 5.2)}
    text = written(rows, tmp_path, "glf")
    cells = table_of(text)
    assert "paper: BPD" not in cells["glf"] and cells["glf"]["paper: FID"] == "21.3" and cells["vae"]["fd_lite"] == "50"
    assert "- glf before vae and vae_flow_posterior and vae_flow_prior on the Frechet distance: unknown" in text


def test_orders_of_a_number_that_is_better_higher():
    order = Order("classifier_score", (("a",), ("b", "c")))
    assert order.holds({"a": 3.0, "b": 2.0, "c": 1.0}) is True
    assert order.holds({"a": 1.5, "b": 2.0, "c": 1.0}) is False
    assert order.holds({"a": 3.0, "b": 2.0}) is None


def test_numbers_of_the_inception_graph_have_their_own_names(tmp_path):
    one = record(20.0, 3.5)
    measured = one["evaluation"]["measured"]
    measured["fid"] = measured.pop("fd_lite")
    measured["prd_f8_lite"] = entry(0.25)  # another metric that was asked for has its column too
    assert report.value_of(one, "frechet_distance") == 20.0
    cells = table_of(written({"cqf": one}, tmp_path))
    assert cells["cqf"]["fid"] == "20" and cells["cqf"]["prd_f8_lite"] == "0.25"


def test_a_table_of_nothing_is_written(tmp_path):
    assert "| cqf | 3.9 | 7.1 | 28 | n/a | n/a | n/a | not run |" in unpadded(written({}, tmp_path))
