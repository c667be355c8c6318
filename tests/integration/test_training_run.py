"""`tfcq.train` from a Config to a workdir, on real digits: what lies in the folder, and what trains."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfcq
from tfcq import data
from tfcq import workdir as workdirs
from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.evaluation.likelihood import LikelihoodEvaluator
from tfcq.evaluation.pictures import Pictures
from tfcq.evaluation.run import evaluate
from tfcq.grids import grid
from tfcq.images import write_png
from tfcq.randomness import row_seeds
from tfcq.training import callbacks, loggers, progress
from tfcq.training.run import train
from tfcq.workdir.tensorboard import name_of

SMALL = {"latent_size": 4, "flow_couplings": 1}


def config(row="vae", **training):
    return tiny.config(8, training=training, **SMALL, **tiny.ROWS[row])


def events(folder):
    """{name: {step: value}} of the scalars below a TensorBoard folder, and the tags of its images."""
    scalars, pictures = {}, set()
    for path in pathlib.Path(folder).iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    pictures.add(value.tag)
                else:
                    scalars.setdefault(name_of(value.tag), {})[event.step] = float(tf.make_ndarray(value.tensor))
    return scalars, pictures


def listing(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in pathlib.Path(folder).rglob("*")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A CQF with two layers of latents, two discriminator turns and a schedule, trained four steps: (config, workdir, model)."""
    folder = tmp_path_factory.mktemp("run") / "cqf"
    settings = tiny.config(
        8,
        training={
            "train_steps": 4,
            "evaluate_every": 2,
            "checkpoint_every": 2,
            "learning_rate_schedule": "cosine",
            "warmup_steps": 1,
            "clip_norm": 100.0,
        },
        discriminator_steps=2,
        **(SMALL | {"latent_size": 2}),  # two layers of latents
    )
    return settings, folder, train(settings, folder)


# What a run leaves.


def test_the_workdir_says_what_was_trained_on_what(run):
    settings, folder, model = run
    assert workdirs.read_config(folder) == settings
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["tensorflow"] == tf.__version__ and environment["devices"]
    facts = json.loads((folder / "data.json").read_text())
    assert facts["image_shape"] == [8, 8, 1] and "digits" in facts["description"]
    assert model.steps_taken == 4 and model.image_shape == (8, 8, 1)
    ended = progress.read(folder)
    assert (ended.state, ended.step, ended.train_steps, ended.weights) == ("done", 4, 4, model.count_params())
    assert ended.losses.keys() == {"elbo_bits_per_dim", "discriminator loss", "generator loss"} and 0.0 < ended.seconds < 600.0


def test_each_evaluation_is_a_row_and_the_last_is_metrics_json(run):
    _, folder, _ = run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    for row in rows:
        assert row["split"] == "validation" and row["seed"] == 0 and row["elbo"]["num_images"] == 16
        assert row["elbo"]["nats"] == pytest.approx(-row["elbo"]["bits_per_dim"] * 64 * math.log(2.0))
    assert json.loads((folder / "metrics.json").read_text()) == rows[-1]


def test_tensorboard_has_every_term_norm_and_rate(run):
    settings, folder, model = run
    scalars, pictures = events(folder / "tensorboard" / "train")
    discriminator = ["cross_entropy", "real_logits", "generated_logits", "gradient_penalty"]
    discriminator += ["accuracy_real", "accuracy_generated"]
    generator = ["sigma", "quality", "quality_weight"]
    bound = {"elbo_bits_per_dim", "elbo_nats", *(f"elbo/{term}" for term in ("kl", "kl/0", "kl/1", "reconstruction", "log_det"))}
    expected = {f"discriminator/{name}" for name in [*discriminator, "loss", "gradient_norm", "learning_rate"]}
    expected |= {f"generator/{name}" for name in [*generator, "loss", "gradient_norm", "learning_rate"]}
    assert scalars.keys() - {"images_per_second"} == expected | bound and not pictures
    for tag, values in scalars.items():
        if tag != "images_per_second":
            assert list(values) == [1, 2, 3, 4] and np.isfinite(list(values.values())).all(), tag
    nats = {name.removeprefix("elbo/"): scalars[name][3] for name in bound}
    assert nats["elbo_nats"] == pytest.approx(nats["log_det"] - nats["reconstruction"] - nats["kl"], rel=1e-5)
    assert nats["elbo_bits_per_dim"] == pytest.approx(-nats["elbo_nats"] / (64 * math.log(2.0)), rel=1e-5)
    assert nats["kl"] == pytest.approx(nats["kl/0"] + nats["kl/1"], rel=1e-5)  # of each layer of latents
    assert scalars["generator/loss"][3] == pytest.approx(100.0 * scalars["generator/quality"][3] - nats["elbo_nats"], rel=1e-5)
    # The rate of the step that follows: warm-up from step 0, then half a cosine over steps 1 to 4.
    for step, share in {
        1: 1.0,
        2: 0.5 * (1 + math.cos(math.pi / 3)),
        3: 0.5 * (1 + math.cos(2 * math.pi / 3)),
        4: 0.0,
    }.items():
        for player in ("discriminator", "generator"):
            assert scalars[f"{player}/learning_rate"][step] == pytest.approx(2e-3 * share, abs=1e-9), (player, step)

    scalars, pictures = events(folder / "tensorboard" / "validation")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert pictures == {"grids/samples", "grids/reconstructions", "grids/real_images"}
    assert scalars.keys() == bound  # in the charts of training
    for row in rows:
        assert scalars["elbo_bits_per_dim"][row["step"]] == pytest.approx(row["elbo"]["bits_per_dim"], rel=1e-6)
        assert scalars["elbo_nats"][row["step"]] == pytest.approx(row["elbo"]["nats"], rel=1e-6)
        parts = {name: scalars[f"elbo/{name}"][row["step"]] for name in ("log_det", "reconstruction", "kl")}
        total = parts["log_det"] - parts["reconstruction"] - parts["kl"]
        assert total == pytest.approx(row["elbo"]["nats"], rel=1e-5)
        assert row["elbo"]["terms"].items() >= {name: pytest.approx(value, rel=1e-6) for name, value in parts.items()}.items()


def test_pictures_are_of_fixed_seeds(run):
    settings, folder, model = run
    names = {path.name for path in (folder / "samples").iterdir()}
    grids = {f"{kind}-{step:08d}.png" for kind in ("samples", "reconstructions") for step in (0, 2, 4)}
    assert names == grids | {"real_images.png"}
    real = tf.io.decode_png((folder / "samples" / "real_images.png").read_bytes()).numpy()
    np.testing.assert_array_equal(real, grid(data.load(settings.data).images("validation", range(4))))
    last = tf.io.decode_png((folder / "samples" / "samples-00000004.png").read_bytes()).numpy()
    np.testing.assert_array_equal(last, Pictures(model).sample_grid(4, seed=0))


def test_one_number_of_training_and_validation_is_one_chart_and_charts_are_grouped(run):
    _, folder, _ = run
    tags = {}
    for name in ("train", "validation"):
        accumulator = EventAccumulator(str(folder / "tensorboard" / name)).Reload()
        tags[name] = {tag for tag in accumulator.Tags()["tensors"] if not tag.startswith("grids/")}
    density = {tag for tag in tags["train"] if tag.startswith("density/")}
    assert tags["validation"] == density >= {"density/elbo_bits_per_dim", "density/elbo/kl"}
    assert tags["train"] - density >= {
        *("loss/generator/loss", "optimizer/generator/gradient_norm", "optimizer/discriminator/learning_rate"),
        "players/discriminator/accuracy_real",
    }


def test_the_configuration_is_in_tensorboard_as_text_and_hyperparameters(run):
    settings, folder, _ = run
    accumulator = EventAccumulator(str(folder / "tensorboard")).Reload()
    (text,) = accumulator.Tensors("configuration")
    shown = tf.make_ndarray(text.tensor_proto).item().decode()
    assert "`--model=cqf`" in shown and "| training.train_steps | **4** | " in shown
    assert f"| training.batch_size | **{settings.training.batch_size}** |" in shown
    assert "| training.seed | 0 |  |" in shown  # the default
    assert len([path for path in (folder / "tensorboard").iterdir() if path.is_file()]) == 1


def test_checkpoints_are_the_last_and_the_best(run):
    _, folder, model = run
    steps = sorted(path.name for path in (folder / "checkpoints" / "last").glob("*.index"))
    assert steps == ["step-2.index", "step-4.index"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]
    best = min(rows, key=lambda row: row["elbo"]["bits_per_dim"])
    assert [path.name for path in (folder / "checkpoints" / "best").glob("*.index")] == [f"step-{best['step']}.index"]
    assert workdirs.load(folder, "best").steps_taken == best["step"]
    loaded = workdirs.load(folder, "last")
    assert not tiny.changed(tiny.values(model.variables), loaded.variables)


def test_the_last_line_of_progress_says_whose_loss_is_whose(tmp_path, capsys):
    model = train(config("cqf", train_steps=2), tmp_path)
    line = next(line for line in capsys.readouterr().out.splitlines() if "step 2/2 " in line)
    for label in ("elbo_bits_per_dim", *(f"{player.name} loss" for player in model.players())):
        assert line.count(f" {label} ") == 1, line


def test_a_finished_run_is_left_alone(run, capsys):
    settings, folder, model = run
    before = listing(folder)
    again = train(settings, folder)
    assert "nothing to do: 4 steps are done and train_steps=4" in capsys.readouterr().out
    after = listing(folder)
    assert before.keys() == after.keys()
    assert all((folder / name).is_dir() for name in after if before[name] != after[name])  # whether they can be written was tried
    assert not tiny.changed(tiny.values(model.variables), again.variables)


def test_another_configuration_is_refused_with_the_difference(run):
    settings, folder, _ = run
    other = tiny.config(8, discriminator_steps=2, **(SMALL | {"flow_couplings": 2}))
    before = listing(folder)
    with pytest.raises(UserError, match=r"system.flow_couplings: 1 -> 2.*expected the same flags to resume"):
        train(other, folder)
    assert listing(folder) == before


# Every row of Table 1, and two devices.


@pytest.mark.parametrize("row", ["gan", pytest.param("vae", marks=pytest.mark.long), pytest.param("cq", marks=pytest.mark.long)])
def test_rows_of_table_1_train_evaluate_and_sample(row, tmp_path):
    model = train(config(row, train_steps=2, learning_rate=1e-3), tmp_path)
    assert model.steps_taken == 2
    loaded = workdirs.load(tmp_path)
    assert Pictures(loaded).sample_grid(3).dtype == np.uint8
    if row == "gan":
        assert "elbo" not in json.loads((tmp_path / "metrics.json").read_text())
        assert {path.name[:7] for path in (tmp_path / "samples").iterdir()} == {"samples", "real_im"}
        with pytest.raises(UserError, match="does not support likelihood; it supports: decode, interpolate_noise, sample"):
            evaluate(tmp_path, ["elbo"])
    else:
        assert 1.0 < evaluate(tmp_path, ["elbo"], num_images=16)["elbo"]["bits_per_dim"] < 20.0


def test_a_model_of_latents_is_told_and_recorded_while_it_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tfcq.models.autoencoders.glf.GLF.training_note", "a part stays random")
    settings = tiny.config(8, model="glf", training={"train_steps": 2})
    model = train(settings, tmp_path)
    row = json.loads((tmp_path / "metrics.json").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert "" not in lines and lines.count("warning: a part stays random") == 1
    assert [line for line in lines if line.startswith("step 2: validation ")] == [
        f"step 2: validation latent_log_prob {row['latent_log_prob']['value']:.4g}, reconstruction_error "
        f"{row['reconstruction_error']['value']:.4g} (16 images)"
    ]
    images = data.load(settings.data).images("validation", range(16))
    expected = model.latent_likelihood(images, row_seeds(16))
    for name, values in expected.items():
        assert row[name]["value"] == pytest.approx(float(np.mean(values)), rel=1e-4)


def test_two_devices_train_what_one_does(tmp_path):
    alone = train(config(train_steps=2), tmp_path / "one")
    both = train(config(train_steps=2, logical_devices=2, distribution="mirrored"), tmp_path / "two")
    assert both.distribute_strategy.num_replicas_in_sync == 2
    for weight, value in zip(workdirs.load(tmp_path / "two").variables, tiny.values(alone.variables), strict=True):
        np.testing.assert_allclose(weight.value, value, rtol=1e-4, atol=1e-6, err_msg=weight.path)
    rows = [json.loads((tmp_path / name / "metrics.json").read_text())["elbo"]["nats"] for name in ("one", "two")]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.parametrize("devices", [{}, {"logical_devices": 2, "distribution": "mirrored"}], ids=["one", "two"])
def test_samples_are_measured_during_training_where_it_is_asked_for(devices, tmp_path, capsys):
    asked = {"eval_metrics": "frechet_distance,ms_ssim", "eval_samples": 24, "eval_features": "pixels", "best_metric": "density"}
    train(config("gan", train_steps=2, evaluate_every=1, **asked, **devices), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2] and "fd_pixels" not in rows[0]
    values = [row["fd_pixels"]["value"] for row in rows[1:]]
    assert values[0] != values[1] and min(values) > 0  # the samples are the weights' of the step
    assert rows[1]["fd_pixels"]["num_generated"] == 24 and rows[1]["fd_pixels"]["split"] == "validation"
    scalars, _ = events(tmp_path / "tensorboard" / "validation")
    assert scalars["fd_pixels"] == pytest.approx({1: values[0], 2: values[1]}) and set(scalars["ms_ssim"]) == {1, 2}
    best = max(rows[1:], key=lambda row: row["density_pixels"]["value"])  # the first of equal ones
    model = workdirs.load(tmp_path)
    assert (model.checkpoint_of_run, model.steps_taken) == ("best", best["step"])
    value = best["density_pixels"]["value"]
    assert model.chosen_by == f"density_pixels (24 images generated) {value:.5g} on the validation split (higher is better)"
    said = capsys.readouterr().out
    assert "fd_pixels: " in said and f"step {best['step']}: grids in {tmp_path}/samples, best so far by density_pixels" in said
    with pytest.raises(UserError, match=r"eval_metrics: expected some of .*, received 'fidd'"):
        config(eval_metrics="frechet_distance,fidd")


def test_a_training_on_all_images_measures_its_samples_on_the_test_images(tmp_path, capsys):
    settings = tiny.config(
        8,
        data={"num_validation": "none"},
        training={
            "train_steps": 2, "evaluate_every": 1, "eval_metrics": "frechet_distance", "eval_split": "test",
            "eval_samples": 24, "eval_features": "pixels",
        },
        **SMALL,
        **tiny.ROWS["vae"],
    )  # fmt: skip
    model = train(settings, tmp_path)
    said = capsys.readouterr().out
    assert "warning: frechet_distance compares 24 generated images (eval_samples) with 24 test images: " in said
    assert "below 2,048" in said and "validation 0 (none)" in said
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"], "elbo" in row) for row in rows] == [(step, "test", False) for step in (0, 1, 2)]
    assert [row["fd_pixels"]["split"] for row in rows[1:]] == ["test"] * 2
    scalars, _ = events(tmp_path / "tensorboard" / "validation")
    assert scalars["test/fd_pixels"] == pytest.approx({row["step"]: row["fd_pixels"]["value"] for row in rows[1:]})
    assert scalars.keys() == {"test/fd_pixels"}
    dataset, pictures = data.load(settings.data), Pictures(model)
    assert (dataset.num_images("train"), dataset.num_images("validation")) == (1797 - 179, 0)
    shown = tf.io.decode_png((tmp_path / "samples" / "reconstructions-00000002.png").read_bytes()).numpy()
    np.testing.assert_array_equal(shown, pictures.reconstruction_grid(dataset.images("train", range(2)), 0))
    run = tfcq.Run(tmp_path)
    assert run.model().checkpoint_of_run == "last"  # no checkpoint is the best without a number to choose it by
    for call in (lambda: run.evaluate("elbo", split="validation"), lambda: run.picture("reconstruct", 4, split="validation")):
        with pytest.raises(UserError, match="^split: expected train or test, received validation, of which the run has no"):
            call()
    longer = dataclasses.replace(settings, training=dataclasses.replace(settings.training, train_steps=3, eval_split="train"))
    train(longer, tmp_path)
    assert workdirs.read_metrics(tmp_path)[-1]["fd_pixels"]["split"] == "train"


def test_devices_must_share_the_batch(tmp_path):
    with pytest.raises(UserError, match="batch_size=7: expected a multiple of the 2 devices"):
        train(config(batch_size=7, logical_devices=2), tmp_path)
    with pytest.raises(UserError, match="micro_batches=2: expected a divisor of 3, a replica's images"):
        train(config(batch_size=6, micro_batches=2, logical_devices=2), tmp_path)


# What stops a run.


def test_an_image_that_breaks_during_an_evaluation_is_named_whichever_data_set_it_is_of(run, tmp_path, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):
        write_png(images / f"{number}.png", np.full((8, 8, 1), number, np.uint8))
    monkeypatch.setattr("tfcq.data.dataset.MEMORY_LIMIT", 0)
    summary = LikelihoodEvaluator.summary

    def summary_then_break(*arguments):
        for path in images.iterdir():
            path.write_bytes(path.read_bytes()[:40])
        return summary(*arguments)

    monkeypatch.setattr(LikelihoodEvaluator, "summary", summary_then_break)  # of the first data set, the run's own
    with pytest.raises(UserError, match=rf"{images}/\d+.png: "):
        evaluate(run[1], "elbo", report=False, likelihood_dataset=f"folder:{images}", num_images=4, data_cache="none")


def test_scalars_are_means_over_the_steps_between_rows(tmp_path):
    writer = loggers.Loggers([loggers.TensorBoard(tmp_path)])
    scalars = callbacks.Scalars(writer, every=3, images_per_step=8)
    model = tiny.compiled(tiny.config(**tiny.ROWS["vae"]), learning_rate=0.125)
    scalars.set_model(model)
    scalars.on_train_begin()
    for step, value in enumerate([1.0, 2.0, 6.0, 4.0, 4.0, 1.0, 100.0]):
        scalars.on_train_batch_end(step, {"generator/loss": value, "generator/finite": 1.0})
    writer.close()
    found, _ = events(tmp_path / "tensorboard" / "train")
    assert found["generator/loss"] == {3: 3.0, 6: 3.0}
    assert found["generator/learning_rate"] == {3: 0.125, 6: 0.125}
    assert "generator/finite" not in found and found["images_per_second"].keys() == {3, 6}


def test_scalars_are_means_over_the_steps_that_have_them(tmp_path):
    writer = loggers.Loggers([loggers.TensorBoard(tmp_path)])
    scalars = callbacks.Scalars(writer, every=5, images_per_step=8)
    scalars.set_model(tiny.compiled(tiny.config(**tiny.ROWS["vae"])))
    scalars.on_train_begin()
    for step in range(5):  # a stage of training ends after two
        scalars.on_train_batch_end(step, {f"{'first' if step < 2 else 'second'}/loss": step + 1.0})
    writer.close()
    found, _ = events(tmp_path / "tensorboard" / "train")
    assert found["first/loss"] == {5: 1.5} and found["second/loss"] == {5: 4.0}


def test_the_best_checkpoint_is_of_the_last_stage(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(Checkpoints, "save_if_best", lambda self, value, by: tried.append(value))
    settings = tiny.config(
        8, model="two_stage_vae", first_stage_steps=2, training={"train_steps": 4, "evaluate_every": 1}
    )
    train(settings, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert tried == [row["elbo"]["bits_per_dim"] for row in rows if row["step"] > 2] and len(rows) == 5


@pytest.mark.parametrize("name", ["adamax", "adam"])
def test_the_optimizer_and_its_rates_are_the_configurations(name, tmp_path):
    """Seen from its first update of a constant gradient sign: both rules then move each weight by the rate."""
    settings = config("cq", train_steps=1, optimizer=name, learning_rate=1e-3, discriminator_learning_rate=5e-3)
    model = train(settings, tmp_path)
    kinds = {player: type(optimizer).__name__.lower() for player, optimizer in model.player_optimizers.items()}
    assert kinds == {"discriminator": name, "generator": name}
    fresh = tiny.compiled(settings)
    for part, rate in ((lambda m: m.decoder, 1e-3), (lambda m: m.discriminator, 5e-3)):
        moved = [
            np.abs(new.value - old.value).max()
            for new, old in zip(part(model).trainable_variables, part(fresh).trainable_variables, strict=True)
        ]
        np.testing.assert_allclose(max(moved), rate, rtol=1e-3)
