"""Noise: rows that do not know their neighbours, replicas that share one draw, distributions as named; seeds of weights."""

import hashlib
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from scipy import stats

from tfcq.randomness import RowNoise, StepNoise, fold, row_seeds

KINDS = ("normal", "uniform")
SHAPE = (3, 2, 1)


def draw(noise, kind, shape=SHAPE, tag=0):
    return getattr(noise, kind)(shape, tag).numpy()


def test_row_seeds_count_from_start():
    seeds = row_seeds(3, seed=7, start=5)
    assert seeds.dtype == np.int32
    np.testing.assert_array_equal(seeds, [[7, 5], [7, 6], [7, 7]])
    np.testing.assert_array_equal(row_seeds(5, 7, 3)[2:], seeds)
    assert row_seeds(0).shape == (0, 2)
    np.testing.assert_array_equal(row_seeds(1, -(2**31), 2**31 - 1), [[-(2**31), 2**31 - 1]])


@pytest.mark.parametrize("arguments", [(1, 2**31), (1, -(2**31) - 1), (1, 0, -1), (2, 0, 2**31 - 1)])
def test_row_seeds_refuse_what_int32_cannot_hold(arguments):
    with pytest.raises(ValueError, match="must fit int32, received seed="):
        row_seeds(*arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [SHAPE, (4, 4, 4)])  # transformed row by row; all rows together
def test_a_row_is_the_same_alone_in_a_batch_and_in_another_order(kind, shape):
    seeds = row_seeds(6, seed=3)
    together = draw(RowNoise(seeds), kind, shape)
    assert together.dtype == np.float32 and together.shape == (6, *shape)
    order = [4, 0, 5, 2]
    np.testing.assert_array_equal(draw(RowNoise(seeds[order]), kind, shape), together[order])
    for row in range(6):
        np.testing.assert_array_equal(draw(RowNoise(seeds[row : row + 1]), kind, shape)[0], together[row])
    assert len(np.unique(together)) == together.size  # no row and no entry repeats another


@pytest.mark.parametrize("kind", KINDS)
def test_row_noise_depends_on_seed_tag_and_path_and_on_nothing_else(kind):
    noise = RowNoise(row_seeds(4, seed=3))
    draws = {
        "itself": draw(noise, kind),
        "tag": draw(noise, kind, tag=1),
        "seed": draw(RowNoise(row_seeds(4, seed=4)), kind),
        "rows": draw(RowNoise(row_seeds(4, seed=3, start=4)), kind),
        "fold 0": draw(noise.fold(0), kind),
        "fold 1": draw(noise.fold(1), kind),
        "fold 1 2": draw(noise.fold(1, 2), kind),
        "fold 2 1": draw(noise.fold(2, 1), kind),
    }
    values = np.concatenate([value.ravel() for value in draws.values()])
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(draw(noise, kind), draws["itself"])  # drawing changed nothing
    np.testing.assert_array_equal(draw(noise.fold(1).fold(2), kind), draws["fold 1 2"])
    np.testing.assert_array_equal(draw(RowNoise(row_seeds(4, seed=3), path=(1, 2)), kind), draws["fold 1 2"])


def assert_distributed(values, distribution):
    """Mean and variance within five standard errors, and Kolmogorov and Smirnov's test; seeds are fixed."""
    values, count = np.asarray(values, np.float64).ravel(), np.size(values)
    mean, variance, kurtosis = (float(value) for value in distribution.stats("mvk"))
    assert abs(values.mean() - mean) < 5.0 * np.sqrt(variance / count)
    assert abs(values.var() - variance) < 5.0 * variance * np.sqrt((kurtosis + 2.0) / count)
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("kind", "distribution"), [("normal", stats.norm()), ("uniform", stats.uniform())])
def test_distributions_within_a_row_across_rows_and_across_a_step(kind, distribution):
    assert_distributed(draw(RowNoise(row_seeds(1, seed=1)), kind, (20000,)), distribution)
    # In a graph, because 2000 rows are slow without.
    across = tf.function(lambda: getattr(RowNoise(row_seeds(2000, seed=2)), kind)((2,), 0))
    assert_distributed(across()[:, 0], distribution)
    steps = StepNoise((5, 0), (1,), num_rows=200)
    assert_distributed(draw(steps, kind, (100,)), distribution)
    uniform = draw(steps, "uniform", (1000,))
    assert uniform.min() >= 0.0 and uniform.max() < 1.0


def test_neighbouring_rows_tags_and_steps_are_uncorrelated():
    rows = draw(RowNoise(row_seeds(3, seed=1)), "normal", (10000,))
    tagged = draw(RowNoise(row_seeds(1, seed=1)), "normal", (10000,), tag=1)
    steps = [draw(StepNoise((1, 0), (step,), 1), "normal", (10000,)) for step in (0, 1)]
    correlation = np.corrcoef(np.concatenate([rows, tagged, *steps]))
    assert np.abs(correlation - np.eye(6)).max() < 5.0 / np.sqrt(10000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("shape", [SHAPE, (4, 4, 4)])  # sliced from the whole draw, and drawn for the replica alone
def test_rows_of_replicas_are_the_rows_of_one_draw(kind, replicas, shape):
    def draw(noise, kind):
        return getattr(noise, kind)(shape, 0).numpy()

    rows = 8 // replicas
    whole = draw(StepNoise((9, 0), (3, 1, 0), num_rows=8), kind)
    parts = [draw(StepNoise((9, 0), (3, 1, 0), rows, replica * rows, 8), kind) for replica in range(replicas)]
    assert parts[0].shape == (rows, *shape)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    folded = [draw(StepNoise((9, 0), (3,), rows, replica * rows, 8).fold(1, 0), kind) for replica in range(replicas)]
    np.testing.assert_array_equal(np.concatenate(folded), whole)


@pytest.mark.parametrize(("kind", "shape"), [("uniform", (5, 5, 3)), ("normal", (4, 4, 8))])
def test_a_replica_draws_its_own_rows_alone(kind, shape):
    graph = tf.function(lambda first: getattr(StepNoise((9, 0), (3,), 2, first, 64), kind)(shape, 0))
    operations = graph.get_concrete_function(tf.constant(4)).graph.get_operations()
    drawn = [one.outputs[0].shape.num_elements() for one in operations if one.type == "StatelessRandomUniformFullIntV2"]
    words = 2 * np.prod(shape) * (2 if kind == "normal" else 1)
    assert words <= max(drawn) <= words + 3, drawn  # the rest of a block of Philox


def test_replicas_of_a_strategy_share_one_draw(two_replicas):
    def step():
        context = tf.distribute.get_replica_context()
        noise = StepNoise((9, 0), (tf.constant(3),), 4, context.replica_id_in_sync_group * 4, 8)
        return noise.normal(SHAPE, 2)

    rows = tf.function(lambda: two_replicas.experimental_local_results(two_replicas.run(step)))()
    whole = draw(StepNoise((9, 0), (3,), num_rows=8), "normal", tag=2)
    np.testing.assert_array_equal(np.concatenate([row.numpy() for row in rows]), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_step_noise_depends_on_seed_step_and_tag(kind):
    draws = [
        draw(StepNoise((9, 0), (3,), 4), kind),
        draw(StepNoise((9, 0), (3,), 4), kind, tag=1),
        draw(StepNoise((9, 0), (4,), 4), kind),
        draw(StepNoise((8, 0), (3,), 4), kind),
        draw(StepNoise((9, 0), (3,), 4).fold(1), kind),
        draw(StepNoise((9, 0), (3, 0), 4), kind),
    ]
    assert len(np.unique(np.concatenate(draws))) == sum(value.size for value in draws)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_and_xla_give_the_bits_of_eager(kind, jit_compile):
    seeds = row_seeds(4, seed=11)

    @tf.function(jit_compile=jit_compile)
    def graph(seeds, step, first_row):
        rows = getattr(RowNoise(seeds).fold(step), kind)(SHAPE, 2)
        batch = getattr(StepNoise((11, 0), (step,), 2, first_row, 4), kind)(SHAPE, 2)
        return rows, batch

    rows, batch = graph(tf.constant(seeds), tf.constant(5), tf.constant(2))
    expected_rows = draw(RowNoise(seeds).fold(5), kind, tag=2)
    expected_batch = draw(StepNoise((11, 0), (5,), 2, 2, 4), kind, tag=2)
    if kind == "uniform" or not jit_compile:
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(batch, expected_batch)
    else:  # the same integers of Philox, but XLA rounds logarithms and cosines in its own way
        np.testing.assert_allclose(rows, expected_rows, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(batch, expected_batch, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [{}, {"first_row": 2, "total_rows": 4}])
def test_noise_that_comes_from_outside_of_xla(rows):
    noise = StepNoise((0, 3), (), 2, **rows)
    graph = tf.function(lambda: noise.uniform(SHAPE, 2), jit_compile=True)
    np.testing.assert_array_equal(graph(), draw(noise, "uniform", tag=2))


def test_any_batch_size_in_one_graph():
    graph = tf.function(
        lambda seeds: RowNoise(seeds).uniform(SHAPE, 0), input_signature=[tf.TensorSpec([None, 2], tf.int32)]
    )
    for count in (1, 5):
        seeds = row_seeds(count)
        np.testing.assert_array_equal(graph(seeds), draw(RowNoise(seeds), "uniform"))


# Printed by the version before rows were drawn together and replicas drew alone: runs resume with the same noise.
BITS = {
    ("row", "normal"): "f9970a5b460972ea",
    ("row", "uniform"): "68bfd6a60940a926",
    ("step", "normal"): "8c91ba1908956c9c",
    ("step", "uniform"): "99fc40be5b6cc20a",
}


@pytest.mark.parametrize(("source", "kind"), BITS)
def test_noise_is_that_of_earlier_versions(source, kind):
    digest = hashlib.blake2b(digest_size=8)
    for shape in (SHAPE, (4, 4, 4)):
        noises = [RowNoise(row_seeds(5, -9, 3)).fold(2)]
        if source == "step":
            noises = [StepNoise((9, 0), (5,), 4, first, 8) for first in (0, 4)]
        for noise in noises:  # in steps of 2**-10: CPUs may round a cosine otherwise
            digest.update(np.round(draw(noise, kind, shape, 4) * 1024).astype(np.int32).tobytes())
    assert digest.hexdigest() == BITS[source, kind]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, np.int64(2**32 + 5)])
def test_rows_refuse_to_fold_what_int32_cannot_hold(number):
    with pytest.raises(ValueError, match=f"int32, received {number}"):  # it would be another number's noise
        RowNoise([[1, 2]]).fold(number)


def test_fold_is_philox_and_folds_every_number_in_order():
    seed = (1, 2)
    assert fold(seed) == seed
    once = tf.random.experimental.stateless_fold_in(seed, 3, alg="philox")
    np.testing.assert_array_equal(fold(seed, 3), once)
    np.testing.assert_array_equal(fold(seed, 3, 4), tf.random.experimental.stateless_fold_in(once, 4, alg="philox"))
    np.testing.assert_array_equal(fold(seed, tf.constant(3)), once)


def of_the_users_generators():
    return random.random(), np.random.rand(), float(tf.random.uniform(())), float(keras.random.uniform(()))


@pytest.mark.parametrize("network", ["plain", "residual"])
def test_weights_follow_from_the_runs_seed_alone_and_building_them_moves_no_generator_of_the_user(network):
    """Discriminators: their layers are given no seeds."""
    config = tiny.config(training={"seed": 7}, discriminator_network=network, **tiny.ROWS["gan"])
    keras.utils.set_random_seed(7)
    weights = tiny.values(tiny.build(config).variables)
    keras.utils.set_random_seed(1)
    of_the_users_generators()
    expected = of_the_users_generators()
    keras.utils.set_random_seed(1)
    of_the_users_generators()
    model = tiny.build(config)
    assert of_the_users_generators() == expected
    assert keras.src.utils.rng_utils.get_random_seed() == 1
    assert tiny.changed(weights, model.variables) == set()


def test_a_process_with_gpus_draws_rows_on_its_cpu():
    """On a GPU each row of the loop took milliseconds: 256 rows of 64 values took 1.2 s, a training step 15 ms."""
    draw = tf.function(lambda seeds: RowNoise(seeds).fold(1).normal((8, 8), 2), autograph=False)
    graph = draw.get_concrete_function(tf.TensorSpec((None, 2), tf.int32)).graph.as_graph_def()
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    loops = [node for nodes in (graph.node, *functions.values()) for node in nodes if node.op in ("While", "StatelessWhile")]
    inside = [node for loop in loops for node in functions[loop.attr["body"].func.name]]
    seeds = [node for name, nodes in functions.items() if "fold_rows" in name for node in nodes]
    assert loops and seeds and any("StatelessRandom" in node.op for node in inside)
    for node in (*loops, *inside, *seeds):
        assert node.op == "Identity" or "CPU:0" in node.device, f"{node.op} {node.name} is on {node.device or 'any device'}"
