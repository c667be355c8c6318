"""Checkpoints: every bit comes back, the last and the best are kept, other models' are refused."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models
from checkpoint_cases import SMALL, assert_holds, build, compile_model, fill, message_of, steps_in, values, variables

from tfcq import workdir as workdirs
from tfcq.engine.checkpoints import Checkpoints, restore_model

WHOLE = {"flow_scales": 2, "latent_form": "vector", "network_normalization": "batch"}


def differs(one, other):
    return [mine.tobytes() != theirs.tobytes() for mine, theirs in zip(one, other, strict=True)]


# What comes back.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, model, values, Keras variables that its making made): every network and a flow of two scales."""
    workdir = tmp_path_factory.mktemp("whole")
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, keras.Variable)}
    model = build(seed=1, compiled=False, **WHOLE)
    gc.collect()
    made = [each for each in gc.get_objects() if isinstance(each, keras.Variable) and id(each) not in before]
    contents = fill(compile_model(model, 0.1), 12345, seed=1)
    checkpoints = Checkpoints(workdir, model, keep=3)
    assert checkpoints.save_if_best(3.0625)
    checkpoints.save()
    return workdir, model, contents, made


def test_the_model_tracks_every_variable_that_was_made(whole):
    _, model, _, made = whole
    # Were a layer held where Keras does not look, its variables would be in neither `variables` nor a checkpoint.
    known = {id(variable) for variable in model.variables}
    assert [each.path for each in made if id(each) not in known] == []
    assert len(made) == len(known) > 100
    parts = {"encoder", "decoder", "discriminator", "flow", "log_sigma", "step"}
    assert parts <= {part for variable in model.variables for part in variable.path.split("/")}


def test_every_variable_comes_back_bit_for_bit_in_a_fresh_model(whole):
    workdir, _, contents, _ = whole
    model = build(seed=2, **WHOLE)
    changed = differs(values(model), contents)
    assert all(changed)  # else a variable that is not restored could pass unseen
    checkpoints = Checkpoints(workdir, model, keep=3)
    assert checkpoints.best_value.numpy() == np.inf
    assert checkpoints.restore() == 12345 == model.steps_taken
    assert_holds(model, contents)
    assert checkpoints.best_value.numpy() == 3.0625


def test_every_weight_comes_back_in_an_uncompiled_model(whole):
    workdir, _, contents, _ = whole
    for which in ("best", "last"):
        model = build(seed=3, compiled=False, **WHOLE)
        assert restore_model(model, workdir, which) == (12345, which)
        assert not model.player_optimizers
        assert_holds(model, contents[: len(model.variables)])


def test_training_goes_on_as_if_it_had_never_stopped(tmp_path):
    batch = tf.constant(tiny_models.images((8, 8, 1)))
    model = build(seed=4)
    model.train_step(batch)
    Checkpoints(tmp_path, model, keep=3).save()
    model.train_step(batch)
    other = build(seed=4)
    other.decoder.weights[0].assign(tf.zeros_like(other.decoder.weights[0].value))
    assert Checkpoints(tmp_path, other, keep=3).restore() == 1
    other.train_step(batch)
    assert_holds(other, values(model))


def test_one_replica_and_two_read_each_others_checkpoints(tmp_path, two_replicas):
    one = build()
    contents = fill(one, 7, seed=7)
    Checkpoints(tmp_path, one, keep=3).save()
    with two_replicas.scope():
        two = build(seed=5)
        checkpoints = Checkpoints(tmp_path, two, keep=3)
        assert checkpoints.restore() == 7
    for variable, wanted in zip(variables(two), contents, strict=True):
        for copy in two_replicas.experimental_local_results(variable.value):
            assert copy.numpy().tobytes() == wanted.tobytes(), variable.path
    assert checkpoints.save_if_best(1.5)
    two.step.assign(8)
    checkpoints.save()

    again = build(seed=6)
    checkpoints = Checkpoints(tmp_path, again, keep=3)
    assert checkpoints.restore() == 8 and checkpoints.best_value.numpy() == 1.5
    again.step.assign(7)
    assert_holds(again, contents)


def test_a_loaded_workdir_is_the_float32_model_that_was_saved(tmp_path):
    config = tiny_models.config(8, training={"precision": "mixed_bfloat16"}, **SMALL)
    workdirs.open_for(config, tmp_path)

    class Images:
        image_shape, description, manifest, doubt = (8, 8, 1), "tiny", None, ""

    workdirs.keep_data(tmp_path, Images())
    assert "found none; train first" in message_of(workdirs.load, tmp_path)
    model = build()
    fill(model, 5, seed=5)
    Checkpoints(tmp_path, model, keep=2).save()
    loaded = workdirs.load(tmp_path)
    assert loaded.config_of_run == config
    assert {layer.compute_dtype for layer in loaded.decoder._flatten_layers()} == {"float32"}
    assert loaded.steps_taken == 5
    seeds = tf.constant([[0, 1], [0, 2]])
    np.testing.assert_array_equal(loaded.sample(seeds), model.sample(seeds))


# What is kept.


def test_no_checkpoint_is_step_zero(tmp_path):
    model = build()
    before = values(model)
    assert Checkpoints(tmp_path, model, keep=2).restore() == 0
    assert_holds(model, before)
    assert not (tmp_path / "checkpoints").exists()


def test_only_the_last_are_kept_over_restarts_too(tmp_path):
    model = build()
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    for step in (1, 2, 3):
        model.step.assign(step)
        checkpoints.save()
    assert steps_in(tmp_path) == [2, 3]
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    assert checkpoints.restore() == 3
    for step in (4, 5):
        model.step.assign(step)
        checkpoints.save()
    assert steps_in(tmp_path) == [4, 5]
    assert len(list((tmp_path / "checkpoints" / "last").glob("*.data-*"))) == 2


def test_the_newest_is_the_one_of_the_highest_step_not_of_the_last_letter(tmp_path):
    model = build()
    checkpoints = Checkpoints(tmp_path, model, keep=3)
    for step in (9, 10, 100):
        model.step.assign(step)
        checkpoints.save()
    assert Checkpoints(tmp_path, build(), keep=3).restore() == 100


def test_the_best_is_kept_only_where_it_is_lower(tmp_path):
    model = build()
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    kept = []
    for step, value in enumerate([3.0, 4.0, float("nan"), 3.0, 2.5, float("inf"), 2.75], start=1):
        model.step.assign(step)
        kept.append(checkpoints.save_if_best(value))
        assert steps_in(tmp_path, "best") == [step for step, was in enumerate(kept, start=1) if was][-1:]
    assert kept == [True, False, False, False, True, False, False]
    assert float(checkpoints.best_value.numpy()) == 2.5
    checkpoints.save()

    checkpoints = Checkpoints(tmp_path, build(seed=1), keep=2)
    checkpoints.restore()
    assert not checkpoints.save_if_best(2.5)
    assert steps_in(tmp_path, "best") == [5]
    assert checkpoints.save_if_best(2.4999999)
    assert steps_in(tmp_path, "best") == [7]


def test_restore_model_takes_what_is_asked_for_and_says_what_it_took(tmp_path, capsys):
    model = build()
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    fill(model, 3, seed=3)
    checkpoints.save()
    fresh = build(seed=1, compiled=False)
    assert restore_model(fresh, tmp_path, "last") == (3, "last") and not capsys.readouterr().out
    assert restore_model(fresh, tmp_path, "best") == (3, "last")
    assert capsys.readouterr().out == f"workdir {tmp_path}: no best checkpoint is kept, so the last is taken, of step 3\n"
    fill(model, 4, seed=4)
    checkpoints.save_if_best(1.0)
    best = values(model)
    fill(model, 5, seed=5)
    checkpoints.save()
    last = values(model)
    assert restore_model(fresh, str(tmp_path)) == (4, "best")
    assert_holds(fresh, best[: len(fresh.variables)])
    assert restore_model(fresh, tmp_path, "last") == (5, "last")
    assert_holds(fresh, last[: len(fresh.variables)])
    assert not capsys.readouterr().out
    next((tmp_path / "checkpoints" / "best").glob("*.index")).write_bytes(b"")
    assert restore_model(fresh, tmp_path, "best") == (5, "last")
    assert "the last is taken instead of the best" in capsys.readouterr().out


def test_restore_model_refuses(tmp_path):
    fresh = build(compiled=False)
    assert message_of(restore_model, fresh, tmp_path, "newest") == (
        "checkpoint: expected best or last, received 'newest'"
    )
    for which in ("best", "last"):
        assert f"workdir {tmp_path}: expected a checkpoint" in message_of(restore_model, fresh, tmp_path, which)


def test_a_model_of_other_networks_is_not_half_restored_in_silence(saved):
    workdir, _ = saved
    deeper = build(compiled=False, **(SMALL | {"latent_size": 1}))
    assert "no checkpoint can be read" in message_of(restore_model, deeper, workdir, "last")
    wider = build(compiled=False, **(SMALL | {"width": 5}))
    assert "no checkpoint can be read" in message_of(restore_model, wider, workdir, "last")


def test_a_residual_run_of_an_earlier_version_is_refused_by_the_change(tmp_path):
    """Those runs had other shapes: as much as another width has. What is damaged, or plain, has no such note."""
    options = tiny_models.ROWS["vae"] | {"network": "residual"}
    earlier, plain = build(**options), build(**tiny_models.ROWS["vae"])
    for folder, model in (("residual", earlier), ("plain", plain)):
        model.step.assign(1)
        Checkpoints(tmp_path / folder, model, keep=3).save()
    said = "last: the checkpoints have other weights than this model: those of --network=residual changed after commit 39bd3e7"
    wider = options | {"width": 5}
    assert said in message_of(restore_model, build(compiled=False, **wider), tmp_path / "residual", "last")
    assert said in message_of(Checkpoints(tmp_path / "residual", build(**wider), keep=3).restore)
    (tmp_path / "residual/checkpoints/last").rename(tmp_path / "residual/checkpoints/best")
    assert said.removeprefix("last") in message_of(restore_model, build(compiled=False, **wider), tmp_path / "residual", "best")
    (tmp_path / "residual/checkpoints/best").rename(tmp_path / "residual/checkpoints/last")
    wider = tiny_models.ROWS["vae"] | {"width": 5}
    assert "changed after" not in message_of(restore_model, build(compiled=False, **wider), tmp_path / "plain", "last")
    next((tmp_path / "residual/checkpoints/last").glob("*.index")).write_bytes(b"")
    assert "changed after" not in message_of(restore_model, earlier, tmp_path / "residual", "last")


def test_what_only_the_model_or_only_the_checkpoint_has_is_an_error(tmp_path):
    coverage_and_quality = build(**tiny_models.ROWS["cq"])
    coverage_and_quality.step.assign(1)
    Checkpoints(tmp_path, coverage_and_quality, keep=3).save()
    # Shapes agree wherever both have a variable: the second has a flow besides, the third no discriminator.
    with_flow = build(compiled=False, flow_scales=1)
    assert "no checkpoint can be read" in message_of(restore_model, with_flow, tmp_path, "last")
    without_discriminator = build(**tiny_models.ROWS["vae"])
    assert "no checkpoint can be read" in message_of(Checkpoints(tmp_path, without_discriminator, keep=3).restore)
