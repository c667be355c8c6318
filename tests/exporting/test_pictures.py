"""Signatures of picture files, of an exported model that computes next to nothing: what they answer, take and refuse."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tfcq.config import Config, DataConfig
from tfcq.data.transforms import Transform
from tfcq.exporting import examples, operations
from tfcq.exporting.signatures import ServingModule

SHAPES = {"grey": (4, 6, 1), "rgb": (5, 7, 3)}
SEEDS = np.array([[1, 2], [3, 4], [250, 5]], np.int32)
ONES = np.ones(3, np.float32)


class Model:
    """Images of one colour, that of the seed; a likelihood that depends on the place of every pixel."""

    abilities = ("sample", "likelihood", "interpolate", "super_resolve")
    variables = ()

    def __init__(self, image_shape):
        self.image_shape, self.compressed_shape = image_shape, (2, 3, 3)

    def sample(self, seeds, temperature):
        colour = tf.cast(seeds[:, 0], tf.float32) * temperature
        return tf.cast(colour[:, None, None, None] * tf.ones(self.image_shape), tf.uint8)

    def likelihood(self, images, seeds, num_importance_samples):
        place = tf.reshape(tf.range(float(np.prod(self.image_shape))), self.image_shape)
        log_prob = tf.reduce_sum(tf.cast(images, tf.float32) * place, axis=(1, 2, 3))
        return {"log_prob": log_prob, "bits_per_dim": -log_prob}

    def interpolate(self, images, other_images, share, spherical, seeds):
        """One of the two images."""
        return tf.where(share[:, None, None, None] < 0.5, images, other_images)

    def super_resolve(self, compressed, seeds):
        """Images of the first pixel's red."""
        return compressed[:, :1, :1, :1] * tf.ones(self.image_shape, tf.uint8)


@pytest.fixture(scope="module", params=SHAPES)
def exported(request, tmp_path_factory):
    """(shape of an image, signatures) of an export that was loaded again."""
    folder = str(tmp_path_factory.mktemp("pictures"))
    module = ServingModule(Model(SHAPES[request.param]), 1)
    module.save(folder, module.signatures())
    loaded = tf.saved_model.load(folder)
    yield SHAPES[request.param], loaded.signatures


def ask(signatures, name, **inputs):
    answers = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in answers.items()}


def file(array, kind="PNG", mode=None, **options):
    content = io.BytesIO()
    picture = Image.fromarray(np.asarray(array).squeeze())
    (picture.convert(mode) if mode else picture).save(content, kind, **options)
    return content.getvalue()


def pixels(file, shape):
    return np.asarray(Image.open(io.BytesIO(file))).reshape(shape)


def images(shape):
    return np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)


def place_sums(images):
    """The likelihood, by NumPy."""
    return (images.reshape(len(images), -1).astype(np.float64) * np.arange(images[0].size)).sum(axis=1)


def test_samples_are_answered_as_png(exported):
    shape, signatures = exported
    answered = ask(signatures, "sample_png", seed=SEEDS, temperature=ONES)
    assert answered.keys() == {"images_png_bytes"} and answered["images_png_bytes"].shape == (3,)
    for content, colour in zip(answered["images_png_bytes"], SEEDS[:, 0], strict=True):
        assert Image.open(io.BytesIO(content)).format == "PNG"
        np.testing.assert_array_equal(pixels(content, shape), np.full(shape, colour))


def test_files_in_png_and_jpeg_are_their_pixels(exported):
    shape, signatures = exported
    given = images(shape)
    files = [file(given[0], quality=60, kind="JPEG"), file(given[1]), file(given[2], compress_level=9)]
    expected = place_sums(np.stack([pixels(one, shape) for one in files]))  # by Pillow's decoder
    answered = ask(signatures, "likelihood_png", images_bytes=files, seed=SEEDS)
    assert answered.keys() == {"log_prob", "bits_per_dim"}
    np.testing.assert_allclose(answered["log_prob"], expected, rtol=1e-6)
    again = ask(signatures, "likelihood", images=given[1:], seed=SEEDS[1:])
    np.testing.assert_array_equal(answered["log_prob"][1:], again["log_prob"])
    np.testing.assert_array_equal(examples.without_files({"sample_png/a": examples.as_files(given)})["sample_png/a"], given)


def test_every_endpoint_that_takes_images_takes_and_answers_files(exported):
    shape, signatures = exported
    one, other = images(shape), images(shape)[::-1]
    files = {"images_bytes": examples.as_files(one), "other_images_bytes": examples.as_files(other)}
    share, straight = np.array([0, 1, 0.2], np.float32), np.zeros(3, bool)
    answered = ask(signatures, "interpolate_png", **files, share=share, spherical=straight, seed=SEEDS)
    assert answered.keys() == {"images_png_bytes"}
    received = [pixels(content, shape) for content in answered["images_png_bytes"]]
    np.testing.assert_array_equal(received, [one[0], other[1], one[2]])
    small = np.random.default_rng(2).integers(0, 256, (3, 2, 3, 3), np.uint8)
    answered = ask(signatures, "super_resolve_png", compressed_bytes=examples.as_files(small), seed=SEEDS)
    received = [pixels(content, shape) for content in answered["images_png_bytes"]]
    np.testing.assert_array_equal(received, small[:, :1, :1, :1] * np.ones(shape, np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="compressed_bytes: expected height and width"):
        ask(signatures, "super_resolve_png", compressed_bytes=examples.as_files(small[:, :1]), seed=SEEDS)


def test_files_are_decoded_by_one_function_of_the_export(tmp_path):
    module = ServingModule(Model(SHAPES["rgb"]), 1)
    module.save(str(tmp_path), module.signatures())
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    functions = graph.meta_graphs[0].graph_def.library.function
    decoders = [one for one in functions if any(node.op == "DecodeJpeg" for node in one.node_def)]
    assert len(decoders) == 3  # of images, of other_images and of compressed; not one a signature


def test_a_palette_is_its_colours(exported):
    shape, signatures = exported
    if shape[-1] == 1:
        return
    content = file(images(shape)[0], mode="P")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    answered = ask(signatures, "likelihood_png", images_bytes=[content], seed=SEEDS[:1])
    np.testing.assert_allclose(answered["log_prob"], place_sums(expected[None]), rtol=1e-6)


def test_files_of_another_size_are_prepared_as_the_images_of_the_run_were(tmp_path):
    shape = (8, 8, 1)
    model = Model(shape)
    model.config_of_run = Config(data=DataConfig(image_size=8, center_crop=20, color="grey"))
    module = ServingModule(model, 1)
    module.save(str(tmp_path), module.signatures())
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    assert operations.lacking(graph) == []  # in TF Serving's stock image
    signatures = tf.saved_model.load(str(tmp_path)).signatures
    photos = np.random.default_rng(1).integers(0, 256, (3, 30, 41, 3), np.uint8)
    given = Transform.of(model.config_of_run.data, 3, "")(photos)
    files = [file(photo) for photo in photos]
    answered = ask(signatures, "likelihood_png", images_bytes=files, seed=SEEDS)
    np.testing.assert_array_equal(answered["log_prob"], ask(signatures, "likelihood", images=given, seed=SEEDS)["log_prob"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected height and width of at least 20, received.*.19 41"):
        ask(signatures, "likelihood_png", images_bytes=[file(photos[0, :19])], seed=SEEDS[:1])


def with_size(content, width, height):
    """A PNG that says to be so large."""
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


def transparent_of(image):
    """The colour of a pixel, which a PNG may call transparent."""
    return tuple(image[0, 0].tolist()) if image.shape[-1] == 3 else int(image[0, 0, 0])


KIND = "images_bytes: expected PNG or JPEG files (by REST base64 in an object b64), received some that begin with bytes"
SIZE = "images_bytes: expected height and width "
CHANNELS = {1: "images_bytes: expected grey pictures, 1 channel", 3: "images_bytes: expected rgb pictures, 3 channel"}
OPAQUE = "images_bytes: expected an opaque picture, received pixels with an opacity of"
PIXELS = "images_bytes: expected at most 33554432 pixels, by height and width, received"
BITS = "images_bytes: expected at most 8 bits for a value of a PNG, received"
REFUSED = {
    "another kind of file": (lambda given: file(given, "BMP"), KIND),
    "nothing": (lambda given: b"", KIND),
    "a smaller PNG": (lambda given: file(given[1:]), SIZE),
    "a smaller JPEG": (lambda given: file(given[:, 1:], "JPEG"), SIZE),
    "a turned one": (lambda given: file(given.transpose(1, 0, 2)), SIZE),
    "a huge one": (lambda given: with_size(file(given), 50000, 10000), PIXELS),
    "other channels": (lambda given: file(given, mode="L" if given.shape[-1] == 3 else "RGB"), CHANNELS),
    "transparent pixels": (lambda given: file(given, transparency=transparent_of(given)), OPAQUE),
    "16 bits": (lambda given: file(given[..., 0].astype(np.uint16)), BITS),
    "a PNG cut off": (lambda given: file(given)[:-30], "PNG"),
    "a header alone": (lambda given: file(given)[:30], "PNG"),
    "a JPEG cut off": (lambda given: file(given, "JPEG")[:-40], "JPEG"),
    "a JPEG's beginning": (lambda given: b"\xff\xd8\xff", "JPEG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_with_the_reason(exported, case):
    (shape, signatures), (make, reason) = exported, REFUSED[case]
    given = images(shape)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(signatures, "likelihood_png", images_bytes=[file(given[0]), make(given[1]), file(given[2])], seed=SEEDS)
    assert (reason if isinstance(reason, str) else reason[shape[-1]]) in caught.value.message
    ask(signatures, "likelihood_png", images_bytes=[file(given[0])], seed=SEEDS[:1])  # and the next one is answered


@pytest.mark.parametrize("files, seeds, reason", [
    (np.array([[b"x"], [b"y"], [b"z"]]), SEEDS, "images_bytes: expected shape [N] with N of at least 1"),
    (np.array(b"x"), SEEDS, "images_bytes: expected shape [N] with N of at least 1"),
    (np.array([], "S"), SEEDS[:0], "images_bytes: expected shape [N] with N of at least 1"),
    (None, SEEDS[:2], "seed: expected as many rows as the other input"),
], ids=["a column", "one string", "none", "fewer seeds"])
def test_other_shapes_are_refused_with_the_reason(exported, files, seeds, reason):
    shape, signatures = exported
    files = examples.as_files(images(shape)) if files is None else files
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(signatures, "likelihood_png", images_bytes=files, seed=seeds)
    assert reason in caught.value.message
