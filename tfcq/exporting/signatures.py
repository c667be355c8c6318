"""The endpoints of an exported model: dict in, dict out, every tensor `[N, ...]`, inputs checked in the graph.

    sample (also serving_default)   seed int32 [N, 2], temperature float32 [N]      -> images uint8 [N, H, W, C]
    likelihood                      images uint8 [N, H, W, C], seed int32 [N, 2]    -> log_prob, bits_per_dim float32 [N]
    latent_likelihood               images, seed                                    -> latent_log_prob, reconstruction_error
    energy                          images, seed                                    -> energy float32 [N]
    encode                          images, seed                                    -> latents float32 [N, ...]
    decode                          latents                                         -> images
    reconstruct                     images, seed                                    -> images
    generative_reconstruct          images, seed                                    -> images
    super_resolve                   compressed uint8 [N, h, w, c], seed             -> images
    interpolate                     images, other_images, share float32 [N], spherical bool [N], seed -> images

A row's answer depends on that row alone, so a server may batch requests together. A loaded SavedModel does not enforce
the shapes that its signatures declare, so the graph does: a wrong request fails with INVALID_ARGUMENT and the reason.
"""

import tensorflow as tf

from tfcq.images import bits_per_dim
from tfcq.models.base import ABILITIES


class ServingModule(tf.Module):
    """What is saved: the model's variables and one function for each of its abilities.

    Args:
        model: a `GenerativeModel`.
        num_importance_samples: K of the likelihood endpoint.
    """

    def __init__(self, model, num_importance_samples):
        super().__init__(name="serving")
        self._model = model
        self._count = num_importance_samples
        self.tracked_variables = [variable.value for variable in model.variables]

    def signatures(self):
        """{name: concrete function}, `serving_default` among them."""
        images = tf.TensorSpec((None, *self._model.image_shape), tf.uint8, "images")
        seed = tf.TensorSpec((None, 2), tf.int32, "seed")
        temperature = tf.TensorSpec((None,), tf.float32, "temperature")
        other = tf.TensorSpec(images.shape, tf.uint8, "other_images")
        share, spherical = tf.TensorSpec((None,), tf.float32, "share"), tf.TensorSpec((None,), tf.bool, "spherical")
        specs = {
            "sample": (seed, temperature),
            "likelihood": (images, seed),
            "latent_likelihood": (images, seed),
            "energy": (images, seed),
            "encode": (images, seed),
            "reconstruct": (images, seed),
            "generative_reconstruct": (images, seed),
            "interpolate": (images, other, share, spherical, seed),
        }
        if "super_resolve" in self._model.abilities:
            specs["super_resolve"] = (tf.TensorSpec((None, *self._model.compressed_shape), tf.uint8, "compressed"), seed)
        if "decode" in self._model.abilities:
            specs["decode"] = (tf.TensorSpec((None, *self._model.latent_shape), tf.float32, "latents"),)
        functions = {
            name: tf.function(getattr(self, "_" + name), input_signature=specs[name]).get_concrete_function()
            for name in ABILITIES
            if name in self._model.abilities
        }
        return functions | {"serving_default": functions["sample"]}

    def _sample(self, seed, temperature):
        temperature = _checked(temperature, (), "temperature")
        with tf.control_dependencies(
            [_require(tf.reduce_all(temperature >= 0.0), "temperature: expected at least 0, received", temperature)]
        ):
            seed = _checked(seed, (2,), "seed", rows_of=temperature)
        return {"images": self._model.sample(seed, temperature)}

    def _likelihood(self, images, seed):
        log_prob = self._model.log_prob(*self._images_and_seed(images, seed), self._count)
        return {"log_prob": log_prob, "bits_per_dim": bits_per_dim(log_prob, self._model.image_shape)}

    def _energy(self, images, seed):
        return {"energy": self._model.energy(*self._images_and_seed(images, seed))}

    def _latent_likelihood(self, images, seed):
        return self._model.latent_likelihood(*self._images_and_seed(images, seed))

    def _encode(self, images, seed):
        return {"latents": self._model.encode(*self._images_and_seed(images, seed))}

    def _decode(self, latents):
        return {"images": self._model.decode(_checked(latents, self._model.latent_shape, "latents"))}

    def _reconstruct(self, images, seed):
        return {"images": self._model.reconstruct(*self._images_and_seed(images, seed))}

    def _generative_reconstruct(self, images, seed):
        return {"images": self._model.generative_reconstruct(*self._images_and_seed(images, seed))}

    def _super_resolve(self, compressed, seed):
        compressed = _checked(compressed, self._model.compressed_shape, "compressed")
        return {"images": self._model.super_resolve(compressed, _checked(seed, (2,), "seed", rows_of=compressed))}

    def _interpolate(self, images, other_images, share, spherical, seed):
        images, seed = self._images_and_seed(images, seed)
        other_images = _checked(other_images, self._model.image_shape, "other_images", rows_of=images)
        share = _checked(share, (), "share", rows_of=images)
        spherical = _checked(spherical, (), "spherical", rows_of=images)
        return {"images": self._model.interpolate(images, other_images, share, spherical, seed)}

    def _images_and_seed(self, images, seed):
        images = _checked(images, self._model.image_shape, "images")
        return images, _checked(seed, (2,), "seed", rows_of=images)


def _checked(tensor, row_shape, name, rows_of=None):
    """`tensor` once its rank, size, number of rows and (floats) finiteness have been asserted when the graph runs."""
    # What the signature declares is known while tracing, and checks of known facts are dropped; so it is forgotten first.
    tensor = tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=tf.TensorShape(None))
    shape = tf.shape(tensor)
    # As text, since the optimizer of graphs takes the declared rank for a fact: it drops a check of the rank alone.
    sizes = tf.strings.reduce_join(tf.strings.as_string(shape[1:]), separator=",")
    fits = tf.logical_and(tf.equal(sizes, ",".join(map(str, row_shape))), tf.reduce_sum(shape[:1]) > 0)
    wanted = ", ".join(["N", *map(str, row_shape)])
    checks = [_require(fits, f"{name}: expected shape [{wanted}] with N of at least 1, received", shape)]
    with tf.control_dependencies(checks):
        tensor = tf.identity(tensor)
        if rows_of is not None:
            rows = tf.stack([tf.shape(rows_of)[0], shape[0]])
            checks.append(_require(tf.equal(*tf.unstack(rows)), f"{name}: expected as many rows as the other input", rows))
        if tensor.dtype.is_floating:
            finite = tf.reduce_all(tf.math.is_finite(tensor))
            checks.append(_require(finite, f"{name}: expected finite values, received", shape))
    with tf.control_dependencies(checks):
        return tf.ensure_shape(tensor, (None, *row_shape))


def _require(condition, message, value):
    return tf.debugging.Assert(condition, [message, value], summarize=8)
