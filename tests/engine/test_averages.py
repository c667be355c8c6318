"""The running mean of the weights: its recursion, its place in a step, checkpoints, and who uses it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import workdir
from tfcq.engine.averages import WeightAverages
from tfcq.engine.checkpoints import Checkpoints, restore_model
from tfcq.randomness import row_seeds


def test_the_recursion_is_the_exponential_mean_with_a_decay_that_rises():
    variable, shadow, done = keras.Variable(np.float32(5.0)), tf.Variable(5.0), tf.Variable(0)
    averages = WeightAverages([variable], decay=0.6)
    reference = tf.train.ExponentialMovingAverage(0.6, num_updates=done)  # its count is of the updates before
    reference.apply([shadow])  # starts at the value
    for number, value in enumerate([1.0, 3.0, -2.0, 8.0, 0.5, 7.0] * 4, 1):
        variable.assign(value)
        shadow.assign(value)
        done.assign(number - 1)
        averages.update(tf.constant(number))
        reference.apply([shadow])
        np.testing.assert_allclose(averages.values[0], reference.average(shadow), rtol=1e-5)


def test_in_place_gives_back_what_was_there_even_after_an_error():
    variable = keras.Variable(np.float32(5.0))
    averages = WeightAverages([variable])
    averages.values[0].assign(2.0)
    with pytest.raises(RuntimeError), averages.in_place():
        assert float(variable) == 2.0
        raise RuntimeError
    assert float(variable) == 5.0 and float(averages.values[0]) == 2.0


@pytest.fixture(scope="module")
def trained():
    model = tiny.build(tiny.config(training={"ema_decay": 0.9}, flow_couplings=1, flow_blocks=0))
    model.compile({player.name: keras.optimizers.Adamax(0.01) for player in model.players()}, ema_decay=0.9)
    history = []  # the first after the data-dependent initialisation
    keep = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: history.append(tiny.values(model.trainable_variables)),
        on_train_batch_end=lambda batch, logs: history.append(tiny.values(model.trainable_variables)),
    )
    batches = tf.data.Dataset.from_tensors(tiny.images(model.image_shape)).repeat()
    model.fit_batches(batches, steps_per_epoch=5, verbose=0, callbacks=[keep])
    return model, history


def test_training_keeps_the_mean_of_the_weights_after_each_step(trained):
    model, (expected, *history) = trained
    for number, values in enumerate(history, 1):
        decay = min(0.9, number / (9.0 + number))
        expected = [decay * mean + (1.0 - decay) * value for mean, value in zip(expected, values)]
    for average, mean in zip(model.averages.values, expected, strict=True):
        np.testing.assert_allclose(average, mean, rtol=1e-4, atol=1e-6)
    assert any(np.abs(average - value).max() > 1e-3 for average, value in zip(expected, history[-1]))


def test_a_checkpoint_keeps_it_for_training_and_load_takes_it(trained, tmp_path):
    model, _ = trained
    config = tiny.config(training={"ema_decay": 0.9}, flow_couplings=1, flow_blocks=0)
    from tfcq import data

    dataset = data.load(config.data)
    workdir.open_for(config, tmp_path)
    workdir.keep_data(tmp_path, dataset)
    Checkpoints(tmp_path, model, 2).save()
    loaded = workdir.load(tmp_path)
    for variable, average in zip(loaded.trainable_variables, model.averages.values, strict=True):
        np.testing.assert_array_equal(variable, average)
    other = tiny.build(config)
    other.compile({player.name: keras.optimizers.Adamax(0.01) for player in other.players()}, ema_decay=0.9)
    assert Checkpoints(tmp_path, other, 2).restore() == 5
    for one, two in zip(
        [*other.averages.values, *other.variables], [*model.averages.values, *model.variables], strict=True
    ):
        np.testing.assert_array_equal(tf.convert_to_tensor(one), tf.convert_to_tensor(two))
    seeds = row_seeds(2)
    with model.averages.in_place():
        expected = model.sample(seeds)
    np.testing.assert_allclose(loaded.sample(seeds).astype(float), expected, atol=1)


def test_replicas_keep_one_mean(two_replicas):
    models = []
    for scope in (tf.distribute.get_strategy().scope, two_replicas.scope):
        with scope():
            model = tiny.build(tiny.config(**tiny.ROWS["vae"]))
            model.compile({player.name: keras.optimizers.SGD(1e-4) for player in model.players()}, ema_decay=0.9)
            models.append(model)
        tiny.fit(model, tiny.images(model.image_shape), 2)
    for alone, both in zip(models[0].averages.values, models[1].averages.values, strict=True):
        for replica in two_replicas.experimental_local_results(both):
            np.testing.assert_allclose(replica, alone, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def normalized():
    """A model with batch normalisation after three steps whose moving statistics are not those of its averaged weights."""
    config = tiny.config(network_normalization="batch", training={"ema_decay": 0.9}, flow_couplings=1, flow_blocks=0)
    model = tiny.compiled(config)
    model.averages = model.running_means(0.9)
    tiny.fit(model, tiny.images(model.image_shape), 3)
    return config, model


def test_the_statistics_of_batch_normalisation_have_running_means_too(normalized):
    _, model = normalized
    statistics = [one for one in model.non_trainable_variables if "/moving_" in one.path]
    assert len(statistics) == len(model.averages.statistics) > 0
    history = [tiny.values(statistics)]
    expected = tiny.values(model.averages.statistics)
    for number in range(4, 7):
        tiny.fit(model, tiny.images(model.image_shape), 1)
        decay = min(0.9, number / (9.0 + number))
        history.append(tiny.values(statistics))
        expected = [decay * mean + (1.0 - decay) * value for mean, value in zip(expected, history[-1])]
    for average, mean in zip(model.averages.statistics, expected, strict=True):
        np.testing.assert_allclose(average, mean, rtol=1e-4, atol=1e-6)
    with model.averages.in_place():
        for variable, mean in zip(statistics, expected, strict=True):
            np.testing.assert_allclose(variable, mean, rtol=1e-4, atol=1e-6)
    for variable, value in zip(statistics, history[-1], strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_checkpoint_of_an_earlier_version_has_no_means_of_statistics(normalized, tmp_path):
    config, model = normalized
    kept = model.averages.statistics
    del model.averages.statistics
    model.averages.statistics = model.averages._no_dependency([])
    Checkpoints(tmp_path, model, 2).save()
    model.averages.statistics = kept
    written = [name for name, _ in tf.train.list_variables(f"{tmp_path}/checkpoints/last/step-{model.steps_taken}")]
    assert any("averages/values" in name for name in written) and not any("averages/statistics" in name for name in written)
    ways = lambda other: Checkpoints(tmp_path, other, 2).restore(), lambda other: restore_model(other, tmp_path, "last")
    for restore in ways:
        other = tiny.compiled(config)
        other.averages = other.running_means(0.9)
        restore(other)
        for one, two in zip(other.variables, model.variables, strict=True):
            np.testing.assert_array_equal(tf.convert_to_tensor(one), tf.convert_to_tensor(two))
        statistics = [one for one in other.non_trainable_variables if "/moving_" in one.path]
        for average, statistic in zip(other.averages.statistics, statistics, strict=True):
            np.testing.assert_array_equal(average, tf.convert_to_tensor(statistic))
        Checkpoints(tmp_path / "again", other, 2).save()  # they are tracked again
        assert any(
            "averages/statistics" in name
            for name, _ in tf.train.list_variables(f"{tmp_path}/again/checkpoints/last/step-{other.steps_taken}")
        )
