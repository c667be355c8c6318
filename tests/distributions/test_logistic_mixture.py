"""The discretised logistic mixture against sums over all 256 values and a float64 NumPy of its definition."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from tfcq.distributions.logistic_mixture import LOG_SCALES, DiscretizedLogisticMixture, num_parameters

COMPONENTS = 3


def parameters_of(channels, shape=(2, 2, 2), seed=0, spread=1.0):
    random = np.random.RandomState(seed)
    values = spread * random.standard_normal((*shape, COMPONENTS, num_parameters(1, channels) - 1))
    values[..., :channels] = random.uniform(-0.2, 1.2, values[..., :channels].shape)
    values[..., channels : 2 * channels] -= 2.5
    logits = random.standard_normal((*shape, COMPONENTS))
    return np.concatenate([logits, values.reshape(*shape, -1)], axis=-1).astype(np.float32)


def masses(parameters, values):
    """float64: P of values [..., C] given one pixel's parameters, straight from the definition."""
    channels = values.shape[-1]
    parameters = parameters.astype(np.float64)
    weights = special.softmax(parameters[:COMPONENTS])
    rest = parameters[COMPONENTS:].reshape(COMPONENTS, -1)
    total = np.zeros(values.shape[:-1])
    for weight, row in zip(weights, rest):
        means, scales, coefficients = row[:channels], np.exp(np.clip(row[channels : 2 * channels], *LOG_SCALES)), None
        product = np.full(values.shape[:-1], weight)
        for channel in range(channels):
            mean = np.full(values.shape[:-1], means[channel])
            coefficients = np.tanh(row[2 * channels :])
            if channel == 1:
                mean += coefficients[0] * values[..., 0] / 255.0
            elif channel == 2:
                mean += coefficients[1] * values[..., 0] / 255.0 + coefficients[2] * values[..., 1] / 255.0
            place = values[..., channel] / 255.0
            upper = np.where(values[..., channel] == 255, 1.0, special.expit((place + 1 / 510 - mean) / scales[channel]))
            lower = np.where(values[..., channel] == 0, 0.0, special.expit((place - 1 / 510 - mean) / scales[channel]))
            product *= upper - lower
        total += product
    return total


def log_prob_of(parameters, images):
    return DiscretizedLogisticMixture(parameters, images.shape[-1]).log_prob(images)


def all_values(parameters, channel, others):
    """log P of the 256 values of a pixel's channel, the other channels given: one 1x1 image a value."""
    images = np.tile(np.asarray(others, np.uint8), (256, 1))
    images[:, channel] = np.arange(256)
    tiled = np.tile(parameters, (256, 1, 1, 1))
    return log_prob_of(tiled, images[:, None, None, :]).numpy().astype(np.float64)


@pytest.mark.parametrize("spread", [1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_masses_of_a_grey_pixel_sum_to_one(seed, spread):
    parameters = parameters_of(1, (1, 1), seed, spread)
    assert np.exp(all_values(parameters, 0, [0])).sum() == pytest.approx(1.0, abs=2e-5)


@pytest.mark.parametrize("mean", [-40.0, 0.0, 1.0, 40.0])
@pytest.mark.parametrize("log_scale", [-30.0, -7.0, 0.0, 15.0, 100.0])
def test_they_do_where_all_mass_is_at_an_edge_and_where_there_is_hardly_any_scale(mean, log_scale):
    parameters = np.zeros((1, 1, 3 * COMPONENTS), np.float32)
    rest = parameters[..., COMPONENTS:].reshape(1, 1, COMPONENTS, 2)
    rest[..., 0], rest[..., 1] = mean, log_scale
    parameters[..., COMPONENTS:] = rest.reshape(1, 1, -1)
    log_masses = all_values(parameters, 0, [0])
    assert np.isfinite(log_masses).all()
    assert np.exp(log_masses).sum() == pytest.approx(1.0, abs=1e-4)


def test_the_masses_of_colours_sum_to_one_channel_by_channel():
    """Summing over blue, then green, then red: P(r, g) = sum_b P(r, g, b), in float64 and by the 256 values of blue."""
    parameters = parameters_of(3, (1, 1))
    red, green = 40, 200
    of_blue = np.exp(all_values(parameters, 2, [red, green, 0])).sum()
    pixel = parameters[0, 0].astype(np.float64)
    grid = np.stack(np.meshgrid([red], [green], np.arange(256), indexing="ij"), axis=-1).reshape(-1, 3)
    assert of_blue == pytest.approx(masses(pixel, grid).sum(), rel=1e-4)


def test_the_masses_of_all_colours_sum_to_one():
    """Scales of about a level leave the mass to few colours, which are all there: a cube around each component's means."""
    parameters = parameters_of(3, (1, 1))
    rest = parameters[..., COMPONENTS:].reshape(COMPONENTS, -1)  # a view
    rest[:, :3] = [[0.3, 0.4, 0.5], [0.6, 0.2, 0.1], [0.45, 0.5, 0.3]]
    rest[:, 3:6] = -6.0
    sides, total = np.arange(-14, 15), 0.0
    centres = []
    for row in rest.astype(np.float64):
        a, b, c = np.tanh(row[6:])
        red = row[0]
        green = row[1] + a * red
        centres.append(np.round(255 * np.array([red, green, row[2] + b * red + c * green])))
    cubes = [centre + np.stack(np.meshgrid(sides, sides, sides, indexing="ij"), -1).reshape(-1, 3) for centre in centres]
    colours = np.unique(np.clip(np.concatenate(cubes), 0, 255), axis=0).astype(np.uint8)
    for chunk in np.array_split(colours, 20):
        tiled = np.tile(parameters, (len(chunk), 1, 1, 1))
        total += np.exp(log_prob_of(tiled, chunk[:, None, None, :]).numpy().astype(np.float64)).sum()
    assert total == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_log_prob_is_the_definitions(channels):
    parameters = parameters_of(channels)
    images = np.random.RandomState(1).randint(0, 256, (2, 2, 2, channels)).astype(np.uint8)
    images[0, 0, 0], images[1, 1, 1] = 0, 255
    expected = [
        sum(
            np.log(masses(parameters[row, i, j], images[row, i, j][None].astype(np.float64)))[0]
            for i in range(2)
            for j in range(2)
        )
        for row in range(2)
    ]
    found = log_prob_of(parameters, images)
    assert found.dtype == tf.float32 and found.shape == (2,)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_finite_at_extreme_parameters(channels):
    random = np.random.RandomState(0)
    parameters = tf.constant(100.0 * random.standard_normal((8, 4, 4, num_parameters(COMPONENTS, channels))), tf.float32)
    images = random.choice([0, 1, 128, 254, 255], (8, 4, 4, channels)).astype(np.uint8)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = log_prob_of(parameters, images)
    assert np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(log_prob, parameters)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_have_the_masses_of_the_definition(channels):
    """Pearson's chi-square of the last channel's bins given the first ones, and of the first."""
    count, parameters = 20000, parameters_of(channels, (1, 1), seed=2)
    pixel = parameters[0, 0]
    mixture = DiscretizedLogisticMixture(parameters, channels)
    drawn = mixture.sample(count, seed=(1, 2)).numpy()
    assert drawn.dtype == np.uint8 and drawn.shape == (count, 1, 1, channels)
    levels = np.arange(256)
    if channels == 1:
        chances = masses(pixel, levels[:, None].astype(np.float64))
    else:
        # Red alone: the first channel of the mixture, as a grey mixture of its own.
        rest = pixel[COMPONENTS:].reshape(COMPONENTS, -1)[:, [0, 3]]
        chances = masses(np.concatenate([pixel[:COMPONENTS], rest.ravel()]), levels[:, None].astype(np.float64))
    counts = np.bincount(drawn[:, 0, 0, 0], minlength=256)
    bins = np.minimum(np.cumsum(chances) * 20, 19).astype(int)  # of about equal mass
    observed = np.bincount(bins, counts, 20)
    expected = count * np.bincount(bins, chances, 20)
    there = expected > 5
    assert stats.chisquare(observed[there], expected[there] * observed[there].sum() / expected[there].sum()).pvalue > 1e-3
    if channels == 3:
        tiled = np.tile(parameters, (200, 1, 1, 1))
        of_samples = log_prob_of(tiled, drawn[:200]).numpy()
        expected = np.log(masses(pixel, drawn[:200, 0, 0].astype(np.float64)))
        np.testing.assert_allclose(of_samples, expected, rtol=1e-3, atol=1e-3)
        # Green given the commonest reds, which are drawn often enough for a chi-square of their own.
        reds = np.bincount(drawn[:, 0, 0, 0], minlength=256)
        for red in reds.argsort()[-3:]:
            greens = drawn[drawn[:, 0, 0, 0] == red, 0, 0, 1]
            first_two = pixel[COMPONENTS:].reshape(COMPONENTS, -1)
            given = np.zeros((256, COMPONENTS))
            for index, row in enumerate(first_two.astype(np.float64)):
                scale = np.exp(np.clip(row[4], *LOG_SCALES))
                mean = row[1] + np.tanh(row[6]) * red / 255.0
                edges = special.expit(((np.arange(257) - 0.5) / 255.0 - mean) / scale)
                edges[0], edges[-1] = 0.0, 1.0
                scale_of_red = np.exp(np.clip(row[3], *LOG_SCALES))
                upper = 1.0 if red == 255 else special.expit((red / 255 + 1 / 510 - row[0]) / scale_of_red)
                lower = 0.0 if red == 0 else special.expit((red / 255 - 1 / 510 - row[0]) / scale_of_red)
                given[:, index] = np.diff(edges) * (upper - lower) * special.softmax(pixel[:COMPONENTS])[index]
            chances_of_green = given.sum(1) / given.sum()
            bins_of_green = np.minimum(np.cumsum(chances_of_green) * 8, 7).astype(int)
            found = np.bincount(bins_of_green, np.bincount(greens, minlength=256), 8)
            wanted = len(greens) * np.bincount(bins_of_green, chances_of_green, 8)
            many = wanted > 5
            wanted = wanted[many] * found[many].sum() / wanted[many].sum()
            assert stats.chisquare(found[many], wanted).pvalue > 1e-3
        # Blue's mean given red and green, against that of the definition.
        predicted = [
            (masses(pixel, np.concatenate([np.tile(row[:2], (256, 1)), levels[:, None]], 1).astype(np.float64)), row[2])
            for row in drawn[:400, 0, 0]
        ]
        means = np.array([(chances * levels).sum() / chances.sum() for chances, _ in predicted])
        deviations = np.array([blue for _, blue in predicted]) - means
        spread = [(chances * (levels - mean) ** 2).sum() / chances.sum() for (chances, _), mean in zip(predicted, means)]
        assert abs(deviations.sum()) < 4.0 * np.sqrt(np.sum(spread))


def test_the_mode_is_the_likeliest_components_means():
    parameters = parameters_of(3, (1, 2, 2))
    mode = DiscretizedLogisticMixture(parameters, 3).mode().numpy()
    for i in range(2):
        for j in range(2):
            pixel = parameters[0, i, j].astype(np.float64)
            row = pixel[COMPONENTS:].reshape(COMPONENTS, -1)[pixel[:COMPONENTS].argmax()]
            a, b, c = np.tanh(row[6:])
            red = np.clip(np.round(255 * row[0]), 0, 255)
            green = np.clip(np.round(255 * (row[1] + a * red / 255)), 0, 255)
            blue = np.clip(np.round(255 * (row[2] + b * red / 255 + c * green / 255)), 0, 255)
            assert np.abs(mode[0, i, j].astype(int) - [red, green, blue]).max() <= 1


def test_the_same_noise_gives_the_same_images_and_edges_of_the_noise_are_values():
    mixture = DiscretizedLogisticMixture(parameters_of(3), 3)
    random = np.random.RandomState(0)
    noise = random.uniform(size=(2, 2, 2)).astype(np.float32), random.uniform(size=(2, 2, 2, 3)).astype(np.float32)
    # A graph and eager may round otherwise, and then choose another component here and there.
    assert np.mean(mixture.sample_of(*noise).numpy() == tf.function(mixture.sample_of)(*noise).numpy()) > 0.9
    np.testing.assert_array_equal(mixture.sample(3, seed=(1, 2)), mixture.sample(3, seed=(1, 2)))
    zero = mixture.sample_of(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2, 3), np.float32))
    one = np.nextafter(np.float32(1), np.float32(0))
    high = mixture.sample_of(np.full((2, 2, 2), one), np.full((2, 2, 2, 3), one))
    assert zero.dtype == tf.uint8 and np.all(zero[..., 0] <= high[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_other_channels_are_refused(channels):
    mixture = DiscretizedLogisticMixture(parameters_of(channels), channels)
    with pytest.raises(ValueError, match=f"expected images of {channels} channels, received {4 - channels}"):
        mixture.log_prob(np.zeros((2, 2, 2, 4 - channels), np.uint8))


def test_a_slice_of_a_batch_is_its_part():
    parameters, images = parameters_of(3), np.zeros((2, 2, 2, 3), np.uint8)
    part = DiscretizedLogisticMixture(parameters, 3)[1:]
    np.testing.assert_allclose(part.log_prob(images[1:]), log_prob_of(parameters, images)[1:], rtol=1e-6)


@pytest.mark.parametrize(("channels", "count"), [(2, 30), (1, 31), (3, 31), (1, 0)])
def test_wrong_numbers_are_refused(channels, count):
    with pytest.raises(ValueError, match="expected 1 or 3 channels and a multiple of"):
        DiscretizedLogisticMixture(np.zeros((1, 2, 2, count), np.float32), channels)


def test_the_number_of_parameters_is_the_papers():
    assert num_parameters(10, 3) == 100 and num_parameters(10, 1) == 30


def test_no_tensor_has_256_values_to_a_pixel():
    function = tf.function(lambda parameters, images: log_prob_of(parameters, images))
    graph = function.get_concrete_function(
        tf.TensorSpec((2, 4, 4, 100), tf.float32), tf.TensorSpec((2, 4, 4, 3), tf.uint8)
    ).graph
    sizes = [output.shape.num_elements() or 0 for operation in graph.get_operations() for output in operation.outputs]
    assert max(sizes) <= 2 * 4 * 4 * 100
