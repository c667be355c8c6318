"""What every public method of every system refuses, before any network runs: wrong types, ranges, shapes, numbers of rows."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import endpoints
from tfcq.config import SYSTEMS
from tfcq.errors import UserError
from tfcq.exporting.signatures import ServingModule
from tfcq.randomness import row_seeds

SIZES = {"vae_bijective_prior": 16, "srvae": 8, "introvae": 8, "soft_introvae": 8}
OPTIONS = {"srvae": {"prior_scales": 1}}
N = 3


def build(name):
    channels = 3 if name in ("srvae", "introvae") else 1
    return tiny.build(tiny.config(SIZES.get(name, 4), model=name, **OPTIONS.get(name, {})), channels)


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def srvae():
    return build("srvae")


def right(model, method):
    """Arguments that `method` takes."""
    random = np.random.RandomState(0)

    def array(one):
        shape = (N, *(one.row_shape(model) or ()))
        if one.dtype == "uint8":
            return random.randint(0, 256, shape).astype(np.uint8)
        if one.dtype == "float32":
            return random.uniform(0.1, 0.9, shape).astype(np.float32)
        return row_seeds(N) if one.row == (2,) else np.zeros(shape, bool)

    arguments = endpoints.METHODS[method][1]
    return {name: 2 if name == "num_importance_samples" else array(endpoints.INPUTS[name]) for name in arguments}


IMAGES = {
    "in [0, 1]": (lambda x: x / np.float32(255), r"received float32 \[3, .*\] with values 0.* to .*; np.rint\(255 \* "),
    "in [-1, 1]": (lambda x: x / np.float32(127.5) - 1, r"with values -.*; np.rint\(127.5 \* "),
    "floats of 8 bits": (lambda x: x.astype(np.float64), r"received float64 .*; np.rint\("),
    "int64": (lambda x: x.astype(np.int64), r'received int64 .*\.astype\("uint8"\)'),
    "int64 + 300": (lambda x: x.astype(np.int64) + 300, "received int64 .* with values 3.*; 8-bit images are whole numbers"),
    "an eager tensor of floats": (lambda x: tf.constant(x, tf.float32), "received float32"),
    "NaN": (lambda x: x * np.float32("nan"), "with NaN or infinity"),
    "bools": (lambda x: x > 128, "received bool"),
    "one alone": (lambda x: x[0], r"received uint8 \[.*\[None\] is a batch of one image"),
    "channels first": (lambda x: x.transpose(0, 3, 1, 2), "received uint8"),
    "another size": (lambda x: x[:, 1:], "received uint8"),
    "more channels": (lambda x: x.repeat(2, -1), "received uint8"),
    "flat": (lambda x: x.reshape(N, -1), r"\.reshape\(-1, "),
    "none": (lambda x: x[:0], r"received uint8 \[0, .*; pass at least one image"),
    "a list with 300": (lambda x: (x.astype(int) * 0 + 300).tolist(), "received int64"),
    "a ragged list": (lambda x: [[1, 2], [3]], "received list, which is not an array of numbers"),
    "no array": (lambda x: None, "received NoneType"),
    "text": (lambda x: "images", "received str"),
    "a data set": (lambda x: tf.data.Dataset.from_tensors(x), "received .*Dataset, which is not an array"),
}
WRONG = {
    "images": IMAGES,
    "seeds": {
        "too few": (lambda x: x[:2], r"expected 3 rows, as many as \w+, received 2; tfcq.row_seeds\(3\) makes them"),
        "too many": (lambda x: np.concatenate([x, x]), "expected 3 rows, .* received 6"),
        "one": (lambda x: 7, "received int 7"),
        "flat": (lambda x: x[:, 0], r"expected int32 \[N, 2\], received int32 \[3\]"),
        "floats": (lambda x: x + 0.5, "received float64"),
        "beyond int32": (lambda x: x + np.int64(2**31), "received int64"),
    },
    "latents": {
        "NaN": (lambda x: x * np.float32("nan"), "finite, received float32 .* with NaN or infinity"),
        "infinite in float32": (lambda x: x.astype(np.float64) * 1e300, "finite, received float64"),
        "integers": (lambda x: x.astype(np.uint8), "received uint8"),
        "another shape": (lambda x: x[..., :1].repeat(7, -1), "received float32"),
        "one alone": (lambda x: x[0], r"\[None\] is one row"),
        "none": (lambda x: x[:0], "pass at least one row"),
    },
    "temperature": {
        "negative": (lambda x: -0.5, "expected one number or float32 .N. of at least 0, finite, received float -0.5"),
        "a negative one": (lambda x: np.float32([1, 1, -1]), "with values -1 to 1"),
        "NaN": (lambda x: float("nan"), "received float nan"),
        "two": (lambda x: x[:2], r"expected 3 rows, as many as \w+, received 2; pass one for each"),
        "a column": (lambda x: x[:, None], r"received float32 \[3, 1\]"),
        "text": (lambda x: "hot", "received str"),
    },
    "share": {
        "beyond": (lambda x: 1.5, "expected one number or float32 .N. in 0..1, finite, received float 1.5"),
        "before": (lambda x: x - 1, "in 0..1"),
        "two": (lambda x: x[:2], r"expected 3 rows, as many as \w+, received 2; pass one for each"),
    },
    "spherical": {"numbers": (lambda x: x.astype(np.float32), "expected bool"), "one number": (lambda x: 1, "received int 1")},
    "num_importance_samples": {
        "none": (lambda x: 0, "expected an int of at least 1, received int 0"),
        "half": (lambda x: 2.5, "received float 2.5"),
        "several": (lambda x: np.array([1, 2]), r"received int64 \[2\]"),
        "text": (lambda x: "10", "received str"),
    },
}
WRONG |= {"other_images": IMAGES, "compressed": IMAGES, "noise": WRONG["latents"]}
ROWS = {"two": 2, "too few": 2, "too many": 6}
WRONG |= {"first_seeds": WRONG["seeds"], "second_seeds": WRONG["seeds"]}


def public_methods(model):
    return [name for name, (ability, _) in endpoints.METHODS.items() if ability in model.abilities and hasattr(model, name)]


def test_the_table_has_the_methods_as_they_are(model):
    for name in public_methods(model):
        arguments = endpoints.METHODS[name][1]
        assert tuple(inspect.signature(getattr(model, name)).parameters)[: len(arguments)] == arguments, name
    assert model.abilities <= {ability for ability, _ in endpoints.METHODS.values()} == set(endpoints.ENDPOINTS)


def test_every_wrong_kind_is_refused_by_every_method(model, monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError("a network ran")

    for part in ("encoder", "decoder", "flow", "code_network", "outer_encoder", "inner_encoder", "prior_flow"):
        if getattr(model, part, None) is not None:
            monkeypatch.setattr(type(getattr(model, part)), "__call__", run)
    for name in public_methods(model):
        arguments = right(model, name)
        for argument, cases in ((argument, WRONG[argument]) for argument in arguments):
            for case, (spoil, wanted) in cases.items():
                wrong = arguments | {argument: spoil(arguments[argument])}
                if case in ROWS and argument == endpoints.blamed_last(arguments)[0]:  # the others are then blamed
                    wanted = f"expected {ROWS[case]} rows, as many as {argument}, received 3"
                with pytest.raises(UserError, match=f"^{name}\\([a-z_]+\\): .*{wanted}") as raised:
                    getattr(model, name)(**wrong)
                assert "\n" not in str(raised.value), (name, argument, case)


def test_the_example_of_the_issue(srvae):
    images = tiny.images(srvae.image_shape, 16)
    with pytest.raises(UserError) as raised:
        srvae.log_prob(images / np.float32(255), row_seeds(16))
    high = images.max() / 255
    assert str(raised.value) == (
        f"log_prob(images): expected uint8 [N, 8, 8, 3] in 0..255, received float32 [16, 8, 8, 3] with values 0 to {high:.4g}; "
        'np.rint(255 * images).astype("uint8") if these are fractions of 255'
    )


def test_what_says_the_same_gives_the_same():
    """NumPy, tensors, lists, wider types of one kind and single numbers."""
    model = build("vae")
    images, seeds, latents = tiny.images(model.image_shape, N), row_seeds(N), right(model, "decode")["latents"]
    expected = model.log_prob(images, seeds)
    for others in (
        (tf.constant(images), tf.constant(seeds)),
        (images.tolist(), seeds.tolist()),
        (tf.Variable(images), seeds.astype(np.int64)),
    ):
        np.testing.assert_array_equal(model.log_prob(*others), expected)
    np.testing.assert_array_equal(model.log_prob(images, seeds, tf.constant(2)), model.log_prob(images, seeds, np.int64(2)))
    expected = model.decode(latents)
    for others in (latents.astype(np.float64), latents.tolist(), tf.constant(latents, tf.float64)):
        np.testing.assert_array_equal(model.decode(others), expected)
    expected = model.sample(seeds, np.full(N, 0.5, np.float32))
    for temperature in (0.5, np.float64(0.5), [0.5] * N, tf.constant(0.5)):
        np.testing.assert_array_equal(model.sample(seeds, temperature), expected)
    np.testing.assert_array_equal(model.sample(seeds, 2), model.sample(seeds, 2.0))
    ways = [
        model.interpolate(images, images[::-1].copy(), share, spherical, seeds)
        for share, spherical in ((np.float32([0.3] * N), np.array([True] * N)), (0.3, True), (np.float64(0.3), [True] * N))
    ]
    for way in ways[1:]:
        np.testing.assert_array_equal(way, ways[0])


def test_gradients_pass_through_the_checks():
    model = build("glf")
    latents = tf.Variable(right(model, "decode")["latents"])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.noise_of(latents))
    assert np.any(tape.gradient(loss, latents).numpy())


def test_in_a_graph_what_is_known_while_tracing_is_refused():
    model = build("vae")
    images, seeds = tiny.images(model.image_shape, N), row_seeds(N)
    log_prob = tf.function(model.log_prob, reduce_retracing=True)
    np.testing.assert_allclose(log_prob(images, seeds), model.log_prob(images, seeds), rtol=1e-5)
    for wrong, wanted in (
        ((images / np.float32(255), seeds), "expected uint8 .*, received float32"),
        ((images[0], seeds), r"received uint8 \[4, 4, 1\]"),
        ((images, seeds[:2]), "expected 3 rows, as many as images, received 2"),
        ((images, seeds.astype(np.int64)), "expected int32 .*, received int64"),
    ):
        with pytest.raises(UserError, match=wanted):
            tf.function(model.log_prob)(*wrong)
    traced = log_prob.get_concrete_function(
        tf.TensorSpec((None, *model.image_shape), tf.uint8), tf.TensorSpec((None, 2), tf.int32)
    )
    kinds = {node.op for node in traced.graph.as_graph_def().node}
    assert not kinds & {"Assert", "IsFinite", "EnsureShape"}, "the checks cost something in a graph"


def test_a_model_that_diverged_is_not_reported_as_the_callers_fault():
    """What methods hand each other is not checked: these latents are none of the caller's."""
    model = build("vae")
    for variable in model.variables:
        variable.assign(tf.fill(variable.shape, tf.cast(float("nan"), variable.dtype)) if variable.dtype == "float32" else 0)
    assert model.sample(row_seeds(2)).shape == (2, *model.image_shape)


def test_endpoints_refuse_by_the_same_table():
    """Ranges; types, shapes, numbers of rows and finiteness: tests/exporting."""
    model = build("vae")
    module = ServingModule(model, 1)
    endpoint = module.signatures()["interpolate"]
    assert {spec.name for spec in tf.nest.flatten(endpoint.structured_input_signature)} == {
        "images", "other_images", "share", "spherical", "seed"
    }  # fmt: skip
    request = {name: tf.constant(value) for name, value in right(model, "interpolate").items()}
    request["seed"] = request.pop("seeds")
    assert endpoint(**request)["images"].shape == (N, *model.image_shape)
    for share, wanted in (([0.0, 0.5, 1.5], "share: expected at most 1"), ([0.0, -0.5, 1.0], "share: expected at least 0")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=wanted):
            endpoint(**request | {"share": tf.constant(share)})
