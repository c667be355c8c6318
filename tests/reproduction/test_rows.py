"""The rows of the papers' tables: their flags, what they are measured by, and mistakes on the command line."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
from commands import REPOSITORY, config_from

from tfcq.command_line.configuration import config_of
from tfcq.reproduction.rows import WIDTHS
from tfcq.reproduction.run import ENDLESS, Budget
from tfcq.reproduction.tables import TABLES


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
def test_no_row_has_an_option_of_its_own_without_effect(name):
    """tfcq.train would warn of it."""
    for row in TABLES[name].rows:
        flags = TABLES[name].flags(row, {})
        assert not config_of(flags | {"train_steps": 10**6}).unused().keys() & flags.keys(), row.name


@pytest.mark.parametrize("name", TABLES)
def test_every_row_makes_a_valid_config(name):
    size = 48 if name == "4" else 32
    rows = dry_run(f"--table={name}", f"--image_size={size}", "--budget_steps=300", "--batch_size=5")
    assert list(rows) == [row.name for row in TABLES[name].rows]
    for flags in rows.values():
        assert flags["train_steps"] == flags["evaluate_every"] == "300" and flags["batch_size"] == "5"
    assert len({json.dumps(flags) for flags in rows.values()}) == len(rows)  # no two rows are the same model


def test_the_rows_of_table_1_are_the_papers():
    rows = dry_run("--table=1", "--image_size=32", "--budget_minutes=2", "--quality_weight=10")
    assert rows["gan"]["coverage"] == "false" and rows["gan"]["flow_scales"] == "0"
    assert rows["vae"]["quality_weight"] == "0.0" and rows["cq"]["quality_weight"] == "10.0"  # a row's own options stand
    assert rows["cqf"]["flow_scales"] == "1" and rows["cq"]["flow_scales"] == "0"
    assert rows["cq"]["width_scale"] == "1.01" and "width_scale" not in rows["cqf"]
    assert {name for name, row in rows.items() if row.get("pixel_transform") == "affine"} == {"vae", "cq"}
    # The standard CNN of Miyato et al. 2018.
    parts = ("network", "network_normalization", "discriminator_network", "latent_levels", "num_validation")
    assert {tuple(row[part] for part in parts) for row in rows.values()} == {
        ("standard", "batch", "standard", "0", "1000")}  # fmt: skip
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
    table, names = TABLES["2"], ("width", "discriminator_width", "flow_width")
    large = table.row("cqf_residual_iaf_large_d")
    assert [table.flags(large, {}, 0.25)[name] for name in names] == [8, 16, 8]
    assert [table.flags(large, {"width": 50}, 0.01)[name] for name in names] == [50, 2, 1]
    latent = TABLES["glf"].flags(TABLES["glf"].row("glf"), {}, 0.5)
    assert {name: latent[name] for name in latent if name in WIDTHS} == {
        "autoencoder_width": 32, "hidden_units": 512, "latent_flow_units": 32}  # fmt: skip
    assert table.flags(large, {"discriminator_width": 20})["discriminator_width"] == 40
    assert TABLES["1"].flags(TABLES["1"].row("cq"), {"width_scale": 1.2})["width_scale"] == pytest.approx(1.212)


def test_narrow_multiplies_no_width_that_has_no_effect():
    rows = dry_run("--table=glf", "--image_size=32", "--budget_steps=300", "--narrow=0.5", "--autoencoder_network=dcgan")
    assert all("hidden_units" not in row and row["autoencoder_width"] == "32" for row in rows.values())


def test_rows_that_stand_in_two_tables_are_the_same_models():
    for name in ("gan", "cqf"):
        first, second = (TABLES[table].flags(TABLES[table].row(name), {}) for table in ("1", "2"))
        assert first == second
    without = TABLES["3b"].flags(TABLES["3b"].row("no_flow"), {})
    one = TABLES["3b"].flags(TABLES["3b"].row("scales_1_blocks_2"), {})
    assert {key for key in without if without[key] != one.get(key)} == {"flow_scales", "pixel_transform"}


@pytest.mark.parametrize(("name", "flagfile"), [("large_d", "stl10_48_cqf"), ("two_scales", "stl10_48_cqf_two_scales")])
def test_the_rows_of_table_4_are_the_models_of_the_flagfiles(name, flagfile):
    text = (REPOSITORY / "configs" / f"{flagfile}.cfg").read_text(encoding="utf-8")
    tuned = [line[2:].partition("=")[0] for line in text.rpartition("\n#")[2].splitlines()[1:]]
    row = config_of(TABLES["4"].flags(TABLES["4"].row(name), {"dataset": "stl10", "train_split": "unlabelled"}))
    file = config_from(f"--flagfile={REPOSITORY / 'configs' / flagfile}.cfg")
    assert (row.data, row.training.batch_size) == (file.data, file.training.batch_size)
    systems = [{key: value for key, value in vars(one.system).items() if key not in tuned} for one in (row, file)]
    assert systems[0] == systems[1]


def test_the_rows_of_lambda_differ_in_nothing_else():
    table = TABLES["lambda"]
    rows = [table.flags(row, {}) for row in table.rows]
    assert [row.pop("quality_weight") for row in rows] == [0.0, 1.0, 10.0, 100.0]
    cqf = TABLES["1"].flags(TABLES["1"].row("cqf"), {})
    assert all(row == cqf for row in rows)


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_numbers_show_the_orders_that_are_expected(name):
    table = TABLES[name]
    for order in table.orders:
        assert order.holds({row.name: row.paper[order.number] for row in table.rows if order.number in row.paper})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset=digits", "--budget_steps=1"], "expected --table=1|2|3a|3b|4|lambda|glf|glf_mnist|glf_cifar10|"),
        (["--table=1", "--budget_steps=1"], "expected --dataset="),
        (["--table=1", "--dataset=digits"], "expected one of --budget_minutes and --budget_steps, received neither"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--budget_minutes=1"], "received both"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--rows=cqg"], "received 'cqg'"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--train_steps=5"], "the budget decides when a row ends"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--model=cqf"], "leave the flag out"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--flow_scales=2"], "every row of this table sets"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--image_size=30"], "row gan: image_size=30"),
        (
            ["--table=3b", "--dataset=digits", "--budget_steps=1", "--image_size=8", "--latent_size=2"],
            "row scales_4_blocks_1: image_size=8 with flow_scales=4",
        ),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--num_samples=1"], "num_samples: expected at least 2"),
        (["--table=1", "--dataset=digits", "--budget_steps=1", "--metrics=fdi"], "received 'fdi'"),
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
    # GLO has a quarter of the steps; the first VAE has 400 epochs before the second's 800.
    stages = {name: row["first_stage_steps"] for name, row in rows.items() if "first_stage_steps" in row}
    assert stages == {"glann": "82", "two_stage_vae": "110", "glf": "0", "glf_perceptual": "0"}
    longer = dry_run("--table=glf", "--image_size=28", "--budget_steps=110", "--rows=glann", "--first_stage_steps=9")
    assert longer["glann"]["first_stage_steps"] == "9"
    assert dry_run("--table=glf", "--image_size=28", "--budget_steps=99", "--rows=glf", "--first_stage_steps=9")["glf"][
        "first_stage_steps"] == "0"  # fmt: skip


def test_the_budget_is_the_length_of_a_run():
    assert Budget(steps=9).flags({"evaluate_every": 3}) == {"train_steps": 9}
    timed = Budget(minutes=2, timed={"glann": 330})
    assert timed.flags({}, "glann", 10 / 11) == {"train_steps": 330, "evaluate_every": 330, "first_stage_steps": 300}
    assert timed.steps_of("vae") is None and timed.flags({}, "vae")["train_steps"] == ENDLESS
