"""CQF's densities against closed forms in float64, and its answers from seeds."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from scipy import stats

from tfcq.errors import UserError
from tfcq.models.coverage_quality.cqf import CQF
from tfcq.models.coverage_quality.flow_model import DEQUANTIZATION
from tfcq.networks.latents import LatentLayer
from tfcq.randomness import RowNoise, row_seeds

SHAPE = (4, 4, 1)
SIZE = math.prod(SHAPE)


# Densities.


class UniformPixels(CQF):
    """p(y|z) is the density that features have where pixels are uniform on (0, 256): written down, not computed."""

    def _feature_distribution(self, means):
        logit = self.config.pixel_transform == "logit"

        class Density:
            @staticmethod
            def log_prob(features):
                y = tf.cast(features, tf.float64)
                # logit: dx/dl = sigmoid'(l) / 0.9 with x = v / 256; affine: x = (y + 1) / 2.
                value = -tf.nn.softplus(y) - tf.nn.softplus(-y) - math.log(0.9) if logit else -math.log(2.0) + 0.0 * y
                return tf.cast(tf.reduce_sum(value, [1, 2, 3]), tf.float32)

        return Density


@pytest.mark.parametrize("transform", ["logit", "affine"])
def test_a_uniform_density_costs_exactly_8_bits_per_dimension(transform):
    system = tiny.config(pixel_transform=transform, **tiny.ROWS["vae"]).system
    model = UniformPixels(system, SHAPE)
    for variable in model.encoder.head_0_0.variables:  # the posterior is the prior
        variable.assign(tf.zeros_like(variable))
    images = np.stack([np.full(SHAPE, 0), np.full(SHAPE, 255), *tiny.images(SHAPE, 6)]).astype(np.uint8)
    seeds = row_seeds(8, seed=1)
    bound = model.elbo(images, seeds) / (-SIZE * math.log(2.0))
    np.testing.assert_allclose(bound, 8.0, rtol=2e-6)
    for count in (1, 7):
        log_prob = model.log_prob(images, seeds, count)
        np.testing.assert_allclose(log_prob / (-SIZE * math.log(2.0)), 8.0, rtol=2e-6)


@pytest.fixture(scope="module")
def flow_model():
    """A CQF whose flow is no identity, two scales deep, with batch normalisation."""
    model = tiny.compiled(tiny.config(flow_scales=2, flow_normalization="batch"))
    tiny.perturb(model.flow.trainable_variables, 0.2)
    return model


def test_the_log_determinant_is_that_of_the_whole_way_from_pixels(flow_model):
    images, seeds = tiny.images(SHAPE, 3), row_seeds(3)
    noise = RowNoise(seeds).uniform(SHAPE, DEQUANTIZATION)
    _, log_det = flow_model.features(images, RowNoise(seeds))

    class Shift:  # features of images + shift: the noise is where the pixels can be varied
        def __init__(self, uniform):
            self._uniform = uniform

        def uniform(self, row_shape, tag):
            return self._uniform

    with tf.GradientTape() as tape:
        tape.watch(noise)
        features, _ = flow_model.features(images, Shift(noise))
        features = tf.reshape(features, [3, SIZE])
    jacobian = tf.reshape(tape.batch_jacobian(features, noise), [3, SIZE, SIZE])
    sign, expected = np.linalg.slogdet(jacobian.numpy().astype(np.float64))
    assert (sign != 0).all()
    np.testing.assert_allclose(log_det, expected, rtol=1e-4)


class OneLayer:
    """A decoder of one layer of latents, two numbers, whose means are a given function of them."""

    def __init__(self, means):
        self._means, self._layer = means, LatentLayer((2,))

    def infer(self, evidence, noise, tag, training=False, condition=None):
        inferred = self._layer.infer(None, evidence[0], noise.normal((2,), tag))
        return self._means(inferred.latents), [inferred]


class LinearGaussian:
    """y = W z + b + sigma e with orthogonal columns in W, so that the exact posterior is a diagonal Gaussian."""

    sigma = 0.3

    def __init__(self):
        random = np.random.RandomState(0)
        directions, _ = np.linalg.qr(random.standard_normal((SIZE, 2)))
        self.weights, self.bias = directions * [1.5, 0.8], 0.2 * random.standard_normal(SIZE)
        precisions = (self.weights**2).sum(0) + self.sigma**2
        self.projection = self.weights / precisions  # posterior mean = (y - b) projection
        self.deviations = self.sigma / np.sqrt(precisions)

    def model(self, mean_shift=0.0, deviation_factor=1.0):
        """A CQF of it. The posterior is exact, or shifted by so many deviations and widened."""
        model = CQF(tiny.config(latent_form="vector", pixel_transform="affine", **tiny.ROWS["vae"]).system, SHAPE)
        model.log_sigma.assign(math.log(self.sigma))
        weights, bias = tf.constant(self.weights.T, tf.float32), tf.constant(self.bias, tf.float32)
        model.decoder = OneLayer(lambda latents: tf.reshape(latents @ weights + bias, [-1, *SHAPE]))
        dense = keras.layers.Dense(4)
        dense.build((None, SIZE))
        model.encoder = lambda features, training=False, condition=None: [dense(tf.reshape(features, [-1, SIZE]))]
        shift = -self.bias @ self.projection + mean_shift * self.deviations
        log_deviations = np.log(deviation_factor * self.deviations)
        dense.set_weights(
            [np.concatenate([self.projection, np.zeros((SIZE, 2))], 1), np.concatenate([shift, log_deviations])]
        )
        return model

    def log_prob(self, images, seeds):
        """float64 [N], nats per 8-bit image, with the model's own dequantisation noise."""
        noise = RowNoise(seeds).uniform(SHAPE, DEQUANTIZATION).numpy().astype(np.float64)
        features = ((images + noise) / 128.0 - 1.0).reshape(len(images), SIZE)
        covariance = self.weights @ self.weights.T + self.sigma**2 * np.eye(SIZE)
        return stats.multivariate_normal(self.bias, covariance).logpdf(features) - SIZE * math.log(128.0)


def compiled_likelihoods(model):
    """`elbo` and `log_prob`, each traced once for all rows and numbers of samples."""
    images, seeds = tf.TensorSpec((None, *SHAPE), tf.uint8), tf.TensorSpec((None, 2), tf.int32)
    log_prob = tf.function(model.log_prob, input_signature=[images, seeds, tf.TensorSpec((), tf.int32)])
    return tf.function(model.elbo, input_signature=[images, seeds]), log_prob


def test_an_exact_posterior_gives_the_closed_form_for_every_number_of_samples():
    case = LinearGaussian()
    elbo, log_prob = compiled_likelihoods(case.model())
    images, seeds = tiny.images(SHAPE, 200), row_seeds(200, seed=2)
    expected = case.log_prob(images, seeds)
    for count in (1, 2, 20):
        np.testing.assert_allclose(log_prob(images, seeds, count), expected, rtol=2e-5)
    # The KL of the ELBO is exact and its other term is one draw: right in the mean, not at each draw.
    errors = elbo(images, seeds).numpy() - expected
    assert errors.std() > 0.1 and abs(errors.mean()) < 4.0 * errors.std() / math.sqrt(200)


def test_a_wrong_posterior_bounds_from_below_and_more_samples_close_the_gap():
    case = LinearGaussian()
    elbo, log_prob = compiled_likelihoods(case.model(mean_shift=0.7, deviation_factor=1.3))
    images, seeds = np.repeat(tiny.images(SHAPE, 1), 400, axis=0), row_seeds(400, seed=3)
    expected = case.log_prob(images, seeds)
    errors = {"elbo": elbo(images, seeds).numpy() - expected}
    for count in (1, 8, 64):
        errors[count] = log_prob(images, seeds, count).numpy() - expected
    means = {name: error.mean() for name, error in errors.items()}
    spread = {name: error.std() / math.sqrt(400) for name, error in errors.items()}
    # KL(q || posterior) of two independent normals, in closed form.
    gap = 2 * (0.5 * (1.3**2 + 0.7**2 - 1.0) - math.log(1.3))
    assert means["elbo"] == pytest.approx(-gap, abs=4.0 * spread["elbo"])
    assert means[1] == pytest.approx(-gap, abs=4.0 * spread[1])
    assert means["elbo"] < means[8] < means[64]
    assert abs(means[64]) < 0.03 < 0.3 < gap


def test_the_graph_of_log_prob_does_not_grow_with_the_number_of_samples(flow_model):
    images, seeds = tf.constant(tiny.images(SHAPE, 2)), tf.constant(row_seeds(2))

    def nodes(count):
        function = tf.function(lambda images, seeds: flow_model.log_prob(images, seeds, count))
        definition = function.get_concrete_function(images, seeds).graph.as_graph_def()
        return len(definition.node) + sum(len(function.node_def) for function in definition.library.function)

    assert nodes(1) == nodes(1000)


# Seeds.


@pytest.fixture(scope="module")
def answers(flow_model):
    """Compiled endpoints of one model whose samples differ well from one another."""
    tiny.perturb(flow_model.decoder.trainable_variables, 0.5)
    images, seeds = tf.TensorSpec((None, *SHAPE), tf.uint8), tf.TensorSpec((None, 2), tf.int32)
    signatures = {
        "sample": (seeds, tf.TensorSpec((None,), tf.float32)),
        "log_prob": (images, seeds, tf.TensorSpec((), tf.int32)),
        "elbo": (images, seeds),
        "encode": (images, seeds),
        "reconstruct": (images, seeds),
    }
    return {name: tf.function(getattr(flow_model, name), input_signature=spec) for name, spec in signatures.items()}


def calls(answers):
    """{name: function of row numbers}: each row has its image and seed, wherever it stands."""
    images, seeds = tiny.images(SHAPE, 6), row_seeds(6, seed=5)
    temperatures = np.linspace(0.2, 1.2, 6).astype(np.float32)
    return {
        "sample": lambda rows: answers["sample"](seeds[rows], temperatures[rows]),
        "log_prob": lambda rows: answers["log_prob"](images[rows], seeds[rows], 3),
        "elbo": lambda rows: answers["elbo"](images[rows], seeds[rows]),
        "encode": lambda rows: answers["encode"](images[rows], seeds[rows]),
        "reconstruct": lambda rows: answers["reconstruct"](images[rows], seeds[rows]),
    }


@pytest.mark.parametrize("name", ["sample", "log_prob", "elbo", "encode", "reconstruct"])
def test_a_rows_answer_depends_on_that_row_alone(answers, name):
    call = calls(answers)[name]
    rows = np.arange(6)
    together = call(rows).numpy()
    assert len({row.tobytes() for row in together}) == 6  # rows that were all alike would prove nothing
    np.testing.assert_array_equal(call(rows), together)
    tolerance = {"rtol": 0, "atol": 1} if together.dtype == np.uint8 else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(call(rows[::-1])[::-1].numpy().astype(float), together, **tolerance)
    for row in rows:
        np.testing.assert_allclose(call(rows[row : row + 1])[0].numpy().astype(float), together[row], **tolerance)


def test_other_seeds_give_other_draws(answers):
    images = np.repeat(tiny.images(SHAPE, 1), 3, axis=0)
    seeds = np.array([[0, 0], [0, 1], [1, 0]], np.int32)
    for value in (answers["elbo"](images, seeds), answers["log_prob"](images, seeds, 2)):
        assert len(set(value.numpy())) == 3


def test_temperature_scales_the_prior_of_each_row(answers, flow_model):
    seeds = row_seeds(3, seed=9)
    cold = answers["sample"](seeds, np.zeros(3, np.float32)).numpy()
    decoded = flow_model.decode(np.zeros((1, *flow_model.latent_shape), np.float32)).astype(int)
    np.testing.assert_allclose(cold, np.broadcast_to(decoded, cold.shape), atol=1)  # the image of latent 0, for every seed
    mixed = answers["sample"](seeds, np.array([0.0, 0.5, 1.0], np.float32)).numpy()
    for row, temperature in enumerate((0.0, 0.5, 1.0)):
        alone = flow_model.sample(seeds, temperature)[row].astype(float)
        np.testing.assert_allclose(mixed[row], alone, atol=1)
    np.testing.assert_array_equal(flow_model.sample(seeds), flow_model.sample(seeds, 1.0))
    assert (mixed[2] != cold[2]).any()


def test_samples_are_decoded_draws_of_the_prior(flow_model):
    """`sample` at a temperature is `decode` of that many deviations, and `reconstruct` is `decode` of `encode`."""
    seeds, images = row_seeds(4), tiny.images(SHAPE, 4)
    latents = RowNoise(seeds).normal(flow_model.latent_shape, 1)
    np.testing.assert_array_equal(flow_model.sample(seeds, 0.7), flow_model.decode(0.7 * latents))
    np.testing.assert_array_equal(
        flow_model.reconstruct(images, seeds), flow_model.decode(flow_model.encode(images, seeds))
    )


# Precision, XLA.


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_its_densities_are_float32(precision):
    model = tiny.compiled(tiny.config(training={"precision": precision}, flow_couplings=1))
    assert model.decoder.top.layers[0].compute_dtype == precision.removeprefix("mixed_")
    images, seeds = tiny.images(SHAPE), row_seeds(8)
    before = tiny.values(model.trainable_variables)
    half = precision == "mixed_float16"
    for row in tiny.fit(model, images, 12 if half else 3):
        assert row["generator/finite"] == row["discriminator/finite"] == 1.0
        for name, value in row.items():
            # A step of half precision whose gradient overflows is skipped.
            assert np.isfinite(value) or half and name.endswith("/gradient_norm"), name
    # Nothing is left where it was, so steps were taken; the scale found its height by halving.
    assert tiny.changed(before, model.trainable_variables) == {variable.path for variable in model.trainable_variables}
    if half:
        scales = {name: float(optimizer.dynamic_scale) for name, optimizer in model.player_optimizers.items()}
        assert scales["discriminator"] < 2.0**15 and all(scale >= 1.0 for scale in scales.values())
    for variable in model.variables:
        assert variable.dtype in ("float32", "int32"), variable.path
    features, log_det = model.features(images, RowNoise(seeds))
    for value in (features, log_det, model.elbo(images, seeds), model.log_prob(images, seeds), model.pixels(features)):
        assert value.dtype == tf.float32
    assert model.sample(seeds).dtype == tf.uint8


def test_half_precision_is_near_full_precision():
    losses = {}
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        model = tiny.build(tiny.config(training={"precision": precision}))
        losses[precision] = model.elbo(tiny.images(SHAPE), row_seeds(8))
    np.testing.assert_allclose(losses["mixed_float16"], losses["float32"], rtol=2e-3)
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=2e-2)
    assert (losses["mixed_bfloat16"] != losses["float32"]).any()


@pytest.mark.slow
def test_xla_gives_the_same_losses():
    plain = tiny.compiled(tiny.config(flow_couplings=1))
    xla = tiny.compiled(tiny.config(training={"jit_compile": True}, flow_couplings=1))
    batch = tiny.images(SHAPE)
    for row, other in zip(tiny.fit(plain, batch, 2), tiny.fit(xla, batch, 2), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(other[name], row[name], rtol=1e-3, atol=1e-4, err_msg=name)
    for weight, value in zip(xla.weights, tiny.values(plain.weights), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(weight), value, atol=1e-4, err_msg=weight.path)


# Abilities.


def test_a_gan_samples_and_says_what_it_cannot():
    model = tiny.build(tiny.config(**tiny.ROWS["gan"]))
    images, seeds = tiny.images(SHAPE, 2), row_seeds(2)
    assert model.abilities == {"sample", "decode", "interpolate_noise"}
    assert model.sample(seeds).shape == (2, *SHAPE)
    for call in (model.elbo, model.log_prob, model.encode, model.reconstruct):
        with pytest.raises(UserError, match="it supports: decode, interpolate_noise, sample"):
            call(images, seeds)
