"""--init_from: a run begins with the weights of another, to the bit, and with nothing else of it."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import workdir as workdirs
from tfcq.config import SYSTEMS, Config, TrainingConfig
from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.training import callbacks
from tfcq.training.run import train


def config(model="cqf", init_from="", training=None, image_size=8, data=None, **system):
    options = {"train_steps": 2, "evaluate_every": 100, "checkpoint_every": 100, "validation_images": 8, "grid_images": 2}
    options |= {"init_from": str(init_from)} | (training or {})
    small = {"latent_size": 4, "flow_couplings": 1, "flow_blocks": 0} if model == "cqf" else {}
    small |= {"first_stage_steps": 1} if model in ("glann", "two_stage_vae") else {}
    return tiny.config(image_size, data, options, model, **small | system)


def values(model):
    """The bytes of all weights but the step."""
    return [tf.convert_to_tensor(one).numpy().tobytes() for one in model.variables if one is not model.step]


class _Seen(BaseException):
    """Ends a training before its first step."""


def begun(settings, folder):
    """The model of a run when its first step is due: what initialises a model has been done."""
    seen = []

    def on_train_begin(self, logs=None):
        seen.append(self.model)
        raise _Seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.FirstStep, "on_train_begin", on_train_begin)
        with pytest.raises(_Seen):
            train(settings, folder)
    return seen[0]


@pytest.fixture(scope="module")
def of(tmp_path_factory):
    """Function (model) -> folder of a run with weights that no initialisation makes, after one step."""
    made = {}

    def of(name, **options):
        key = name, *sorted(options.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("other") / name
            size = 16 if name == "vae_bijective_prior" else 8
            tiny.make_workdir(made[key], config(name, image_size=size, **options))
        return made[key]

    return of


@pytest.mark.parametrize("name", ["cqf", "glf", "glann"])
def test_the_first_weights_are_those_of_the_other_run_to_the_bit(of, tmp_path, name, capsys):
    other = of(name)
    training = {"seed": 7, "learning_rate": 1e-4, "optimizer": "adam", "ema_decay": 0.9}
    model = begun(config(name, other, training), tmp_path / "run")
    source = workdirs.load(other)
    ours = [one for one in model.variables if one.path.rsplit("/", 1)[-1] not in ("codes", "matched_noise")]
    theirs = dict(zip([one.path for one in ours], source.variables, strict=True))
    for one in ours:
        if one is not model.step:
            there = tf.convert_to_tensor(theirs[one.path]).numpy()
            assert tf.convert_to_tensor(one).numpy().tobytes() == there.tobytes(), one.path
    assert model.steps_taken == 0 and source.steps_taken == 1
    for average, weight in zip(model.averages.values, model.averaged_variables(), strict=True):
        assert tf.convert_to_tensor(average).numpy().tobytes() == tf.convert_to_tensor(weight).numpy().tobytes()
    for optimizer in model.player_optimizers.values():
        assert all(not np.any(tf.convert_to_tensor(one).numpy()) for one in optimizer.variables if "momentum" in one.path)
        assert int(optimizer.iterations.numpy()) == 0
    assert f"first weights: those of {other}, last checkpoint, step 1, of SHA-256 " in capsys.readouterr().out


def test_it_is_recorded_and_a_run_that_goes_on_does_not_read_the_other(of, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(of("glf"), other)
    source = workdirs.load(other)
    digest = hashlib.sha256(b"".join(values(source))).hexdigest()
    settings = config("glf", other)
    train(settings, tmp_path / "run")
    assert workdirs.read_config(tmp_path / "run").training.init_from == str(other)
    (row,) = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    facts = {"init_from": str(other), "checkpoint": "last", "step": 1, "running_mean": False, "digest": digest}
    assert (row["step"], row["changes"]) == (0, {"weights": [None, facts]})
    shutil.rmtree(other)
    longer = dataclasses.replace(settings.training, train_steps=3)
    assert begun(dataclasses.replace(settings, training=longer), tmp_path / "run").steps_taken == 2
    none = dataclasses.replace(settings, training=dataclasses.replace(longer, init_from=""))
    with pytest.raises(UserError, match="training.init_from: .* -> ''; expected the same flags"):
        train(none, tmp_path / "run")


def test_the_best_checkpoint_and_the_running_mean_are_taken(tmp_path):
    settings = config("glf", training={"ema_decay": 0.9})
    model = tiny.make_workdir(tmp_path / "other", config("glf"))
    model.averages = model.running_means(0.9)
    tiny.perturb(model.averages.values, seed=1)
    model.step.assign(3)
    best = Checkpoints(tmp_path / "other", model, 2)
    assert best.save_if_best(4.0)
    mean = [one.numpy().tobytes() for one in model.averages.values]
    model.step.assign(4)
    tiny.perturb(model.trainable_variables, seed=2)
    Checkpoints(tmp_path / "other", model, 2).save()
    workdirs.open_for(config("glf"), tmp_path / "other", 4)
    (tmp_path / "other" / "config.json").write_text(settings.absolute().to_json())
    started = begun(config("glf", tmp_path / "other"), tmp_path / "run")
    assert [tf.convert_to_tensor(one).numpy().tobytes() for one in started.averaged_variables()] == mean
    (row,) = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    facts = row["changes"]["weights"][1]
    assert (facts["checkpoint"], facts["step"], facts["running_mean"]) == ("best", 3, True)


def test_two_replicas_begin_with_them(of, tmp_path, two_replicas):
    other = of("glf")
    from tfcq.training import first_weights

    settings = config("glf", other)
    with two_replicas.scope():
        model = tiny.build(settings)
    weights = first_weights.read(first_weights.other_run(settings, tmp_path / "run"), model)
    with two_replicas.scope():
        weights.assign_to(model)
    for one, there in zip(model.variables, workdirs.load(other).variables, strict=True):
        if one is not model.step:
            for copy in two_replicas.experimental_local_results(one.value):
                assert copy.numpy().tobytes() == tf.convert_to_tensor(there).numpy().tobytes()


@pytest.mark.parametrize("name", ["introvae", "wae_gan"])
def test_there_is_no_pretraining(of, tmp_path, name):
    other = of(name, **({"margin": "30.0"} if name == "introvae" else {}))
    settings = config(name, other, pretraining_steps=1000)
    model = begun(settings, tmp_path / "run")
    assert model.stage_starts == (0,) and "pretraining" not in [one.name for one in model.players()]
    assert "vae" not in [one.name for one in model.players()]
    assert settings.unused()["pretraining_steps"] == "first weights of its own (init_from)"
    with pytest.raises(UserError, match="pretraining_steps: expected fewer than train_steps=2"):
        config(name, pretraining_steps=1000)
    if name == "introvae":
        assert float(tf.convert_to_tensor(model.margin)) == 30.0  # margin=auto: that of the other run
        own = begun(config(name, other, margin="5.0"), tmp_path / "own")
        assert float(tf.convert_to_tensor(own.margin)) == 5.0


def test_a_run_in_its_pretraining_has_no_margin_to_begin_with(of, tmp_path):
    with pytest.raises(UserError, match="init_from with margin=auto: expected a run whose pre-training is over"):
        train(config("introvae", of("introvae")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"latent_dim": 5}, "expected a run of the same networks, received one with other weights: encoder/outputs/kernel"
         r" \[6, 3\] instead of \[6, 5\], .* and \d+ more; give this run the options of networks of that one$"),
        ({"latent_flow_blocks": 3}, r".* other weights: latent_flow/permutation_2 none instead of \[3\], .* more;"),
        ({"image_size": 16}, "expected a run of images of 16x16x1, received one of 8x8x1$"),
        ({"data": {"color": "rgb"}}, "expected a run of images of 8x8x3, received one of 8x8x1$"),
        ({"model": "vae"}, "expected a run of model=vae, received one of model=glf$"),
    ],
)  # fmt: skip
def test_other_networks_are_refused_with_the_weights_that_differ(of, tmp_path, settings, line):
    with pytest.raises(UserError, match=f"init_from {of('glf')}: {line}"):
        train(config(**{"model": "glf", "init_from": of("glf")} | settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused_also_if_there_are_as_many(of, tmp_path):
    """A class's weights are of its number: with another order, one class would begin with the weights of another."""
    other = shutil.copytree(of("glf", class_conditional=True), tmp_path / "other")
    facts = json.loads((other / "data.json").read_text())
    facts["classes"]["names"] = facts["classes"]["names"][::-1]
    (other / "data.json").write_text(json.dumps(facts))
    line = "expected a run of the same classes in their order, 0, 1, .*, 9, received one of 9, 8, .*, 0$"
    with pytest.raises(UserError, match=f"init_from {other}: {line}"):
        train(config("glf", other, class_conditional=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_that_are_no_other_run(tmp_path):
    for folder, line in ((tmp_path / "none", "expected the folder of a trained run, found no config.json in it"),
                         (tmp_path / "run", "expected the folder of another run, received the workdir itself")):
        with pytest.raises(UserError, match=f"init_from {folder}: {line}"):
            train(config("glf", folder), tmp_path / "run")
    workdirs.open_for(config("glf"), tmp_path / "empty")
    with pytest.raises(UserError, match="empty: "):
        train(config("glf", tmp_path / "empty"), tmp_path / "run")


def test_a_fit_in_memory_refuses_it():
    model = tiny.build(config("glf", "runs/other"))
    with pytest.raises(UserError, match="fit: init_from is of tfcq.Run.train"):
        model.fit(tiny.images((8, 8, 1)))


def test_the_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = Config(training=TrainingConfig(init_from="runs/a")).absolute().training
    assert training.init_from == str(tmp_path / "runs" / "a") and Config().absolute().training.init_from == ""


@pytest.mark.long
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_begins_with_them(of, tmp_path, name):
    options = {"margin": "30.0"} if name == "introvae" else {}
    other = of(name, **options)
    size = 16 if name == "vae_bijective_prior" else 8
    model = begun(config(name, other, image_size=size, **options), tmp_path / "run")
    inherited = values(workdirs.load(other))
    attached = {id(one) for one in (getattr(model, "codes", None), getattr(model, "matched_noise", None))}
    assert [tf.convert_to_tensor(one).numpy().tobytes() for one in model.variables
            if one is not model.step and id(one) not in attached] == inherited
