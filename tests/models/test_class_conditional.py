"""Models of images given their class: Bayes's rule, densities, the start, and that classes are learned."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq.errors import UserError
from tfcq.flows.image_flow import ImageFlow
from tfcq.flows.latent_flow import LatentFlow
from tfcq.models.base import GenerativeModel
from tfcq.models.class_conditional import ClassConditional
from tfcq.networks.projection import ClassProjection
from tfcq.randomness import RowNoise, row_seeds

SHAPE = (4, 4, 1)
PRIOR = np.log([0.5, 0.2, 0.3])  # tiny.CLASSES
QUICK = {"flow_scales": 1, "flow_couplings": 1, "flow_blocks": 0, "quality_weight": 0.0, "latent_form": "vector"}
"""Of CQF: every part of a likelihood, in as few layers as there may be, and no discriminator."""


class Table(ClassConditional):
    """log p(x | y) is a number of the image's first pixel and of the class."""

    table = np.array([[-1.0, -2.0, -4.0], [-3.0, -0.5, -0.5]])

    def __init__(self):
        super().__init__(SHAPE, name="table")
        self.set_classes(tiny.CLASSES)

    @property
    def abilities(self):
        return self.abilities_of_classes | {"sample"}

    def log_prob_given(self, images, seeds, num_importance_samples, condition):
        return tf.reduce_sum(tf.gather(tf.constant(self.table, tf.float32), tf.cast(images[:, 0, 0, 0], tf.int32)) * condition, 1)

    def draw_given(self, noise, temperature, condition):
        return tf.cast(tf.argmax(condition, axis=-1), tf.uint8)[:, None, None, None] * tf.ones(SHAPE, tf.uint8)


def table_images():
    images = np.zeros((4, *SHAPE), np.uint8)
    images[1::2, 0, 0, 0] = 1
    return images


def test_class_probabilities_are_those_of_bayes_rule():
    model, images = Table(), table_images()
    answer = model.class_probabilities(images)
    # By hand for the first pixel 0: 0.5 e^-1, 0.2 e^-2, 0.3 e^-4, divided by their sum.
    parts = np.array([0.5 * np.exp(-1), 0.2 * np.exp(-2), 0.3 * np.exp(-4)])
    np.testing.assert_allclose(answer["probabilities"][0], parts / parts.sum(), rtol=1e-6)
    np.testing.assert_allclose(answer["probabilities"], scipy.special.softmax(model.table[[0, 1, 0, 1]] + PRIOR, -1), rtol=1e-6)
    np.testing.assert_allclose(answer["log_prob_given_class"], model.table[[0, 1, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(model.log_prob_given_class(images, [2, 1, 0, 1]), [-4.0, -0.5, -1.0, -0.5])
    np.testing.assert_allclose(model.log_prob_given_class(images, 1), [-2.0, -0.5, -2.0, -0.5])


def test_the_bound_of_all_classes_is_the_log_of_the_sum_and_its_terms_add_up():
    model, given = Table(), np.array([[-5.0, -6.0, -5.5], [-1.0, -9.0, -2.0]], np.float32)  # [images, classes]
    kl = np.abs(given) / 3

    def of_class(condition):
        bound, part = (tf.reduce_sum(values * condition, -1) for values in (given, kl))
        return {"elbo": bound, "kl": part, "reconstruction": -bound - part}

    terms = model.marginal_bound(of_class, np.zeros(2))
    np.testing.assert_allclose(terms["elbo"], scipy.special.logsumexp(given + PRIOR, -1), rtol=1e-6)
    np.testing.assert_allclose(-terms["kl"] - terms["reconstruction"] - terms["class_kl"], terms["elbo"], rtol=1e-6)
    share = scipy.special.softmax(given + PRIOR, -1)
    np.testing.assert_allclose(terms["class_kl"], (share * (np.log(share) - PRIOR)).sum(-1), rtol=1e-5)


def test_classes_are_drawn_as_often_as_they_are_trained_on():
    model, count = Table(), 600
    drawn = model.sample(count)[:, 0, 0, 0]
    shares = np.bincount(drawn, minlength=3) / count
    # Three standard errors of a share of one half: 0.062.
    np.testing.assert_allclose(shares, list(tiny.CLASSES.values()), atol=0.062)


def test_numbers_of_no_class_are_refused():
    model = Table()
    for classes in (3, [0, 1, 2, 3], -1):
        with pytest.raises(UserError, match="classes"):
            model.log_prob_given_class(table_images(), classes)
    with pytest.raises(UserError, match="a class for each image, or one with seeds"):
        model.sample_class(1)
    assert model.sample_class([2, 0])[:, 0, 0, 0].tolist() == [2, 0]
    assert model.sample_class(1, row_seeds(3)).tolist() == np.ones((3, *SHAPE)).tolist()


@pytest.mark.parametrize("system", ["glf", "cqf"])
def test_the_option_and_the_classes_belong_together(system):
    config = tiny.config(model=system, class_conditional=True)
    with pytest.raises(UserError, match="classes: expected {name of a class: its probability}, received None"):
        tfcq.models.build(config, SHAPE)
    with pytest.raises(UserError, match="classes: expected none without class_conditional"):
        tfcq.models.build(tiny.config(model=system), SHAPE, tiny.CLASSES)
    with pytest.raises(UserError, match="class_conditional"):
        tiny.config(model="vae", class_conditional=True)


def one_hot(classes, dtype):
    return tf.one_hot(classes, 3, dtype=dtype)


def log_det_by_autodiff(function, values):
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = function(values)
    jacobian = tape.batch_jacobian(outputs, values)
    size = int(np.prod(values.shape[1:]))
    return np.linalg.slogdet(jacobian.numpy().reshape(-1, size, size))[1]


def test_the_latent_flow_given_a_class_is_a_density_by_autodiff():
    flow = LatentFlow(5, 1, 4, 2, seed=1, dtype="float64", condition_size=3)
    for variable in flow.trainable_variables:
        variable.assign(variable + 0.5 * np.random.RandomState(2).standard_normal(variable.shape))
    latents = tf.constant(np.random.RandomState(0).standard_normal((6, 5)))
    densities = []
    for classes in ([0] * 6, [1] * 6, [0, 1, 2, 2, 1, 0]):
        condition = one_hot(classes, tf.float64)
        bijector = flow.bijector(condition=condition)
        noise = bijector.inverse(latents)
        np.testing.assert_allclose(flow.bijector(condition=condition).forward(noise), latents, atol=1e-9)
        log_det = log_det_by_autodiff(lambda values, given=condition: flow.bijector(condition=given).inverse(values), latents)
        expected = -0.5 * (noise.numpy() ** 2 + np.log(2 * np.pi)).sum(-1) + log_det
        densities.append(flow.distribution(condition=condition).log_prob(latents).numpy())
        np.testing.assert_allclose(densities[-1], expected, rtol=1e-8)
    assert np.abs(densities[0] - densities[1]).min() > 1e-3
    np.testing.assert_allclose(densities[2][[0, 1]], [densities[0][0], densities[1][1]], rtol=1e-9)  # a row its own class


def test_the_image_flow_given_a_class_is_a_bijection_by_autodiff():
    flow = ImageFlow(scales=2, couplings=1, blocks=1, width=4, seed=1, condition_size=3, dtype="float64")
    flow.build((None, *SHAPE))
    for number, variable in enumerate(flow.trainable_variables):
        variable.assign(variable + 0.3 * np.random.RandomState(number).standard_normal(variable.shape))
    images = tf.constant(np.random.RandomState(0).standard_normal((3, *SHAPE)))
    condition = one_hot([0, 1, 2], tf.float64)
    features, log_det = flow.inverse_and_log_det(images, condition=condition)
    back, back_log_det = flow.forward_and_log_det(features, condition=condition)
    np.testing.assert_allclose(back, images, atol=1e-9)
    np.testing.assert_allclose(back_log_det, -log_det, rtol=1e-9)
    np.testing.assert_allclose(
        log_det, log_det_by_autodiff(lambda values: flow.inverse_and_log_det(values, condition=condition)[0], images), rtol=1e-7
    )
    np.testing.assert_allclose(flow.bijector(condition=condition).inverse_log_det_jacobian(images, 3), log_det, rtol=1e-9)
    others, _ = flow.inverse_and_log_det(images, condition=one_hot([1, 2, 0], tf.float64))
    assert np.abs(others - features).max() > 1e-3


def test_a_projection_adds_the_inner_product_with_the_vector_of_the_class():
    projection, features = ClassProjection(3, 2), np.float32([[1, 2], [3, 4]])
    assert not projection(features, one_hot([0, 2], tf.float32)).numpy().any()
    projection.vectors.assign([[1.0, 0.0], [5.0, 5.0], [0.0, -2.0]])
    np.testing.assert_array_equal(projection(features, one_hot([0, 2], tf.float32)), [1.0, -8.0])


@pytest.mark.parametrize("options", [{}, {"discriminator_network": "residual"}])
def test_the_discriminator_of_classes_is_the_plain_one_and_a_projection(options):
    model = tiny.build(tiny.config(class_conditional=True, **tiny.ROWS["gan"], **options))
    images, condition = tf.random.stateless_normal((4, *SHAPE), [1, 2]), model.one_hot(tf.constant([0, 2]))
    judge = model._judge_of(condition)  # two groups of two images
    np.testing.assert_allclose(judge(images), model.discriminator(images), rtol=1e-6)
    tiny.perturb(model.class_projection.trainable_variables)
    features = images
    for layer in model.discriminator.layers[:-2]:
        features = layer(features)
    vectors = model.class_projection.vectors.numpy()[[0, 2, 0, 2]]
    expected = model.discriminator(images) + (features.numpy() * vectors).sum(-1)
    np.testing.assert_allclose(judge(images), expected, rtol=1e-5)


@pytest.mark.parametrize("options", [
    {"model": "glf"}, QUICK,
    pytest.param({"network": "residual", "flow_scales": 0, "quality_weight": 0.0}, marks=pytest.mark.long),
], ids=["glf", "cqf", "residual"])  # fmt: skip
def test_at_the_start_no_class_matters_and_the_model_is_the_one_without_classes(options):
    config = tiny.config(class_conditional=True, **options)
    plain = tiny.build(tiny.config(**options))
    model, images = tiny.build(config), tiny.images(SHAPE, 2)
    names = {variable.path: variable for variable in plain.variables}
    for variable in model.variables:
        if variable.path in names:
            np.testing.assert_array_equal(variable, names[variable.path], err_msg=variable.path)
    given = model.class_probabilities(images)["log_prob_given_class"]
    np.testing.assert_allclose(given, np.repeat(given[:, :1], 3, 1), rtol=1e-6)
    method = "log_prob" if "likelihood" in plain.abilities else None
    expected = plain.log_prob(images) if method else plain.latent_likelihood(images)["latent_log_prob"]
    np.testing.assert_allclose(given[:, 0], expected, rtol=1e-5)
    found = model.log_prob(images) if method else model.latent_likelihood(images)["latent_log_prob"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(model.sample_class(1, row_seeds(2)), plain.sample(row_seeds(2)))


@pytest.mark.parametrize("options", [{"model": "glf"}, QUICK], ids=["glf", "cqf"])
def test_the_likelihood_is_the_sum_over_the_classes(options):
    model = tiny.build(tiny.config(class_conditional=True, **options))
    tiny.perturb(model.trainable_variables, 0.2)
    images, seeds = tiny.images(SHAPE, 2), row_seeds(2)
    given = np.stack([model.log_prob_given_class(images, number, seeds, 1) for number in range(3)], -1)
    assert np.ptp(given, -1).min() > 1e-3
    answer = model.class_probabilities(images, seeds, 1)
    np.testing.assert_allclose(answer["log_prob_given_class"], given, rtol=1e-5)
    if "likelihood" in model.abilities:
        found = model.log_prob(images, seeds, 1)
        terms = model.elbo_terms(images, seeds)
        parts = {name: value for name, value in terms.items() if name not in ("elbo", "log_det") and "/" not in name}
        np.testing.assert_allclose(terms["log_det"] - sum(parts.values()), terms["elbo"], rtol=1e-4)
    else:
        found = model.latent_likelihood(images, seeds)["latent_log_prob"]
    np.testing.assert_allclose(found, scipy.special.logsumexp(given + PRIOR, -1), rtol=1e-5)
    # `sample` draws the class of a row by its seed, and is then the image of that class.
    classes = model.draw_classes(RowNoise(row_seeds(4))).numpy().argmax(-1)
    drawn = model.sample_class(classes, row_seeds(4))
    np.testing.assert_array_equal(model.sample(4), drawn)
    assert (model.sample_class((classes + 1) % 3, row_seeds(4)) != drawn).any()


def test_glf_encodes_images_once_for_all_classes_and_answers_the_same_bits(monkeypatch):
    model, images, seeds = tiny.build(tiny.config(model="glf", class_conditional=True)), tiny.images(SHAPE, 4), row_seeds(4)
    tiny.perturb(model.trainable_variables, 0.2)
    given = np.stack([model.log_prob_given_class(images, number, seeds) for number in range(3)], -1)
    encoded, encode = [], model.posterior_mean
    monkeypatch.setattr(model, "posterior_mean", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    np.testing.assert_array_equal(model.class_probabilities(images, seeds)["log_prob_given_class"], given)
    assert encoded == [4]


LATENT_LAYERS = [
    {"latent_form": "vector"},
    pytest.param({"network": "residual", "posterior": "iaf", "iaf_layers": 1, "latent_blocks": 1}, marks=pytest.mark.long),
]


@pytest.mark.parametrize("options", LATENT_LAYERS, ids=["vector", "iaf"])
def test_images_of_a_given_class_go_through_its_flow_and_back(options):
    """Given the class, images are decoded as the flow of the class alone says; at the start as without classes."""
    small = QUICK | options
    plain, model = (tiny.build(tiny.config(**small, **more)) for more in ({}, {"class_conditional": True}))
    images, others, seeds = tiny.images(SHAPE, 3), tiny.images(SHAPE, 3, seed=1), row_seeds(3)
    share, spherical = np.float32([0.0, 0.5, 1.0]), np.array([False, True, False])
    # Before any training no class matters.
    np.testing.assert_allclose(model.encode_given_class(images, 1, seeds), plain.encode(images, seeds), rtol=1e-5, atol=1e-6)
    rebuilt = model.reconstruct_given_class(images, 1, seeds).astype(int)
    assert np.abs(rebuilt - plain.reconstruct(images, seeds)).max() <= 1
    tiny.perturb(model.trainable_variables, 0.2)
    classes = np.int32([0, 2, 1])
    latents = model.encode_given_class(images, classes, seeds)
    assert np.abs(latents - model.encode_given_class(images, (classes + 1) % 3, seeds)).max() > 1e-3
    # The definition: the decoder's features, through the flow in the direction of images, of each row's own class.
    for row, number in enumerate(classes):
        features = model.decoder.decode(latents[row : row + 1])
        unbounded = model.flow.bijector(condition=model.one_hot(tf.constant([number]))).forward(features)
        pixels = np.clip(np.floor(model.transform.forward(unbounded)), 0, 255)
        assert np.abs(model.decode_given_class(latents, classes)[row] - pixels[0]).max() <= 1
    np.testing.assert_array_equal(
        model.reconstruct_given_class(images, classes, seeds), model.decode_given_class(latents, classes)
    )
    between = model.interpolate_given_class(images, others, classes, share, spherical, seeds)
    for row, end in ((0, images), (2, others)):
        np.testing.assert_array_equal(between[row], model.reconstruct_given_class(end, classes, seeds)[row])
    for method in ("encode", "reconstruct"):
        with pytest.raises(UserError, match=f"does not support {method}; .*{method}_given_class"):
            getattr(model, method)(images)


@pytest.mark.parametrize("system, steps", [("glf", 200), pytest.param("cqf", 150, marks=pytest.mark.long)])
def test_a_model_learns_two_classes_that_differ(system, steps):
    """Dark and bright images: samples of a class are of its brightness, and every image is classified."""
    random = np.random.RandomState(0)
    classes = np.arange(64) % 2
    images = (random.randint(0, 60, (64, 8, 8, 1)) + 190 * classes[:, None, None, None]).astype(np.uint8)
    small = {"hidden_units": 64, "latent_flow_units": 16}
    if system == "cqf":
        small = {"quality_weight": 0.0, "flow_scales": 0, "width": 8}
    config = tiny.config(8, model=system, class_conditional=True, training={"batch_size": 32, "learning_rate": 1e-2}, **small)
    model = tfcq.models.build(config, (8, 8, 1), {"dark": 0.5, "bright": 0.5})
    with pytest.raises(UserError, match=r"fit\(y\): cqf|fit\(y\): glf"):
        model.fit(images)
    with pytest.raises(UserError, match=r"classes: expected int \[64\] in 0..1"):
        model.fit(images, classes + 1, verbose=0)
    with pytest.raises(UserError, match=r"fit\(x\): expected a label beside each image of the tf.data.Dataset, or y"):
        model.fit(tf.data.Dataset.from_tensor_slices(images))
    pairs = tf.data.Dataset.from_tensor_slices((images, classes)).batch(32)
    model.fit(pairs, steps_per_epoch=steps, verbose=0)  # one epoch, as each begins anew with Keras's own work
    means = [model.sample_class([number] * 16, seed=3).mean() for number in (0, 1)]
    assert means[0] < 80 and means[1] > 170, means
    assert (model.class_probabilities(images)["probabilities"].argmax(-1) == classes).all()


def test_other_models_have_no_classes():
    assert not GenerativeModel.class_names
    with pytest.raises(UserError, match="does not support sample_class"):
        tiny.build(tiny.config(model="glf")).sample_class([0])
