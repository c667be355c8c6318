"""A SavedModel of a few lines with all the signatures that tfcq exports, for tests of servers and clients.

It is a real, if silly, model: pixels are independent and uniform, so the likelihood has a closed form, and the
latents are the pixels in other units, so decode undoes encode exactly.
"""

import os

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfcq.exporting import pictures

IMAGE_SHAPE = (4, 4, 3)
NUM_PIXELS = int(np.prod(IMAGE_SHAPE))

SEEDS = tf.TensorSpec([None, 2], tf.int32, name="seed")
IMAGES = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, name="images")
LATENTS = tf.TensorSpec([None, NUM_PIXELS], tf.float32, name="latents")
TEMPERATURES = tf.TensorSpec([None], tf.float32, name="temperature")
FILES = tf.TensorSpec([None], tf.string, name="images_bytes")


class ToyModel(tf.Module):
    """Uniform pixels.

    Args:
        brightest: the largest pixel that `sample` draws; tells versions of the model apart.
    """

    def __init__(self, brightest=255):
        super().__init__()
        self.brightest = tf.Variable(float(brightest), name="brightest")

    @tf.function(input_signature=[SEEDS, TEMPERATURES])
    def sample(self, seed, temperature):
        """Uniform images, darkened by temperatures below 1."""
        _same_rows(seed, temperature, "temperature")
        tf.debugging.assert_non_negative(temperature, message="temperature must be at least 0")
        noise = tf.map_fn(_row_noise, seed, fn_output_signature=tf.TensorSpec(IMAGE_SHAPE, tf.float32))
        images = noise * self.brightest * temperature[:, None, None, None]
        return {"images": tf.cast(tf.clip_by_value(images, 0.0, 255.0), tf.uint8)}

    @tf.function(input_signature=[IMAGES, SEEDS])
    def likelihood(self, images, seed):
        """log (1/256)^D for every image."""
        _same_rows(images, seed, "seed")
        images = tf.ensure_shape(images, IMAGES.shape)  # a loaded SavedModel does not enforce what it declares
        log_prob = tf.fill(tf.shape(images)[:1], np.float32(-NUM_PIXELS * np.log(256.0)))
        log_prob -= tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3])  # so that the rows differ
        return {"log_prob": log_prob, "bits_per_dim": -log_prob / np.float32(NUM_PIXELS * np.log(2.0))}

    @tf.function(input_signature=[SEEDS, TEMPERATURES])
    def sample_png(self, seed, temperature):
        """`sample` as files in PNG."""
        return {"images_png_bytes": pictures.encoded(self.sample(seed, temperature)["images"])}

    @tf.function(input_signature=[FILES, SEEDS])
    def likelihood_png(self, images_bytes, seed):
        """`likelihood` of files in PNG or JPEG."""
        return self.likelihood(pictures.decoded(images_bytes, IMAGE_SHAPE, None, "images_bytes"), seed)

    @tf.function(input_signature=[IMAGES, SEEDS])
    def encode(self, images, seed):
        """Pixels over 255, in one vector."""
        _same_rows(images, seed, "seed")
        return {"latents": tf.reshape(tf.cast(images, tf.float32) / 255.0, [-1, NUM_PIXELS])}

    @tf.function(input_signature=[LATENTS])
    def decode(self, latents):
        """The inverse of `encode`."""
        tf.debugging.assert_all_finite(latents, "latents must be finite")
        pixels = tf.clip_by_value(tf.round(latents * 255.0), 0.0, 255.0)
        return {"images": tf.cast(tf.reshape(pixels, [-1, *IMAGE_SHAPE]), tf.uint8)}

    @tf.function(input_signature=[IMAGES, SEEDS])
    def reconstruct(self, images, seed):
        """The images themselves."""
        return {"images": self.decode(self.encode(images, seed)["latents"])["images"]}


def export(directory, brightest=255, warmup_records=()):
    """Writes one version, complete only when `saved_model.pb` is in it; returns the directory as a string.

    Args:
        directory: BASE/NAME/VERSION.
        brightest: see `ToyModel`.
        warmup_records: bytes, the records of `assets.extra/tf_serving_warmup_requests`.
    """
    model = ToyModel(brightest)
    names = ("sample", "sample_png", "likelihood", "likelihood_png", "encode", "decode", "reconstruct")
    signatures = {name: getattr(model, name).get_concrete_function() for name in names}
    signatures["serving_default"] = signatures["sample"]
    unfinished = f"{directory}.writing"
    tf.saved_model.save(model, unfinished, signatures=signatures)
    if warmup_records:
        os.makedirs(os.path.join(unfinished, "assets.extra"))
        with tf.io.TFRecordWriter(os.path.join(unfinished, "assets.extra", "tf_serving_warmup_requests")) as writer:
            for record in warmup_records:
                writer.write(record)
    os.rename(unfinished, directory)
    return str(directory)


def warmup_record(signature_name, **inputs):
    """A warm-up request as TF Serving records it, in bytes."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature_name
    for name, array in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return log.SerializeToString()


def _row_noise(seed):
    return tf.random.stateless_uniform(IMAGE_SHAPE, seed, alg="philox")


def _same_rows(first, second, name):
    tf.debugging.assert_equal(tf.shape(first)[0], tf.shape(second)[0], message=f"{name} needs one entry for each row")
