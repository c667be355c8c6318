"""Models of images given their class, p(x | y), whose classes have probabilities p(y).

    log p(x) = log sum_y p(y) p(x | y),        p(y | x) = p(y) p(x | y) / p(x)

All that a model without classes can be asked keeps its meaning: `sample` draws a class, too, and likelihoods are those of the
sum, which can be compared with a model's without classes. What is asked given a class, and the probabilities of classes, are
abilities of their own. Each class costs a pass. p(y) is how often the class was drawn in training.

A step takes pairs of images and the numbers of their classes. Networks see a class as one-hot, since the gradient of a gather has
no deterministic kernel on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.models.base import Array, GenerativeModel, Noise
from tfcq.models.interpolation import between
from tfcq.randomness import RowNoise

CLASS = 10**6
"""Tag of the draw of a class."""


ABILITIES = ("sample_class", "log_prob_given_class", "class_probabilities", "name_classes")
"""Those that classes give."""


class ClassConditional(GenerativeModel):
    """Base of systems that may have classes; without any they are as if this base were not there.

    A system calls `set_classes` in its constructor, draws by `draw_given`, and defines `log_prob_given`.
    """

    classes_shape: tuple[int, ...] = (0,)
    """(number of classes,)."""

    class_shares: tuple[float, ...] = ()
    """How often each class is drawn in training, sum 1."""

    _log_prior: np.ndarray

    def set_classes(self, classes: Mapping[str, float] | None) -> None:
        """Sets the classes, {name: probability}; None: there are none."""
        self.class_names = tuple(classes or ())
        self.classes_shape, self.largest_class = (len(self.class_names),), len(self.class_names) - 1
        if classes:
            shares = np.array(list(classes.values()), np.float64)
            self.class_shares = tuple((shares / shares.sum()).tolist())
            self._log_prior = np.log(shares / shares.sum()).astype(np.float32)

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | self.abilities_of_classes

    @property
    def abilities_of_classes(self) -> frozenset[str]:
        """Those that classes give."""
        return frozenset(ABILITIES if self.class_names else ())

    # Hooks that a system with classes defines.

    def draw_given(self, noise: Noise, temperature: float | Array, condition: tf.Tensor | None) -> Array:
        """Images uint8 [N, H, W, C] of classes, one-hot [N, classes]; None: of a model without classes."""
        raise self.cannot("sample")

    def log_prob_given(
        self, images: Array, seeds: Array, num_importance_samples: int | Array, condition: tf.Tensor | None
    ) -> tf.Tensor:
        """log p(image | class), float32 [N], nats: of the image, or of its latents if the model is no density of images."""
        raise self.cannot("log_prob_given_class")

    def encode_given(self, images: Array, seeds: Array, condition: tf.Tensor | None) -> tf.Tensor:
        """Latents float32 [N, *latent_shape] of images of classes, of a model whose latents do not say the class."""
        raise self.cannot("encode_given_class")

    def decode_given(self, latents: Array, condition: tf.Tensor | None) -> Array:
        """Images uint8 [N, H, W, C] of such latents and classes."""
        raise self.cannot("decode_given_class")

    def log_prob_given_each(self, images: Array, seeds: Array, num_importance_samples: int | Array) -> tf.Tensor:
        """`log_prob_given` of each class, float32 [N, classes]; a system defines it where classes share a part of the way."""
        return self.given_each_class(
            lambda condition: self.log_prob_given(images, seeds, num_importance_samples, condition), images
        )

    # What follows from them.

    def unpacked(self, batch: Any) -> tuple[Any, tf.Tensor | None]:
        """(images, their classes as one-hot [N, classes]) of what a loss gets; None for a model without classes."""
        if not self.class_names:
            return batch, None
        images, classes = batch
        return images, self.one_hot(classes)

    def one_hot(self, classes: tf.Tensor) -> tf.Tensor:
        """Classes int32 [N] as float32 [N, classes]."""
        return tf.one_hot(classes, len(self.class_names))

    def draw_classes(self, noise: Noise) -> tf.Tensor | None:
        """Classes as one-hot [N, classes], drawn by their probabilities; None for a model without classes."""
        if not self.class_names:
            return None
        bounds = np.cumsum(np.exp(self._log_prior.astype(np.float64)))[:-1].astype(np.float32)
        drawn = noise.uniform((), CLASS)
        return self.one_hot(tf.reduce_sum(tf.cast(drawn[:, tf.newaxis] >= bounds, tf.int32), axis=-1))

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C], of classes drawn by their probabilities."""
        return self.draw_given(noise, temperature, self.draw_classes(noise))

    def given_each_class(self, compute: Callable[[tf.Tensor], Any], rows: Array) -> Any:
        """`compute(condition)`, tensors float32 [N], for each class, one at a time: each float32 [N, classes].

        `rows`: a tensor or array [N, ...].
        """
        count = tf.shape(rows)[0]

        def of(number):
            return compute(self.one_hot(tf.fill([count], number)))

        first = of(tf.constant(0))  # by which the structure is known
        specs = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), first)
        others = tf.map_fn(of, tf.range(1, len(self.class_names)), fn_output_signature=specs, parallel_iterations=1)
        joined = tf.nest.map_structure(lambda one, more: tf.concat([one[tf.newaxis], more], 0), first, others)
        return tf.nest.map_structure(tf.transpose, joined)

    def log_joint(self, given: tf.Tensor) -> tf.Tensor:
        """log p(x, y), float32 [N, classes], of log p(x | y)."""
        return given + self._log_prior

    def marginal(self, compute: Callable[[tf.Tensor | None], tf.Tensor], rows: Array) -> tf.Tensor:
        """log p(x), float32 [N], of `compute(condition)`, log p(x | y); of a model without classes `compute(None)`."""
        if not self.class_names:
            return compute(None)
        return tf.reduce_logsumexp(self.log_joint(self.given_each_class(compute, rows)), axis=-1)

    def marginal_bound(self, compute: Callable[[tf.Tensor | None], dict[str, tf.Tensor]], rows: Array) -> dict[str, tf.Tensor]:
        """A bound on log p(x) and its terms, of `compute(condition)`, those of a bound on log p(x | y): {"elbo", term: [N]}.

        With r(y), the probabilities of classes by these bounds, the sum of r(y) (bound + log p(y) - log r(y)) is the log of the
        sum of p(y) exp(bound), and the best bound of a posterior r(y) q(z | x, y). Terms are means over r, and "class_kl" is
        KL(r || p).
        """
        if not self.class_names:
            return compute(None)
        given = self.given_each_class(compute, rows)
        joint = self.log_joint(given["elbo"])
        share = tf.nn.softmax(joint)
        terms = {name: tf.reduce_sum(share * value, axis=-1) for name, value in given.items()}
        kl = tf.reduce_sum(share * (tf.nn.log_softmax(joint) - self._log_prior), axis=-1)
        return terms | {"elbo": tf.reduce_logsumexp(joint, axis=-1), "class_kl": kl}

    # Abilities.

    def sample_class(self, classes: Array, seeds: Array | None = None, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C] of given classes.

        Args:
            classes: numbers of classes, int32 [N], or one for all `seeds`: indices into `class_names`.
            seeds: int32 [N, 2]; they may be left out if there is a class for each image.
            temperature: as of `sample`.
        """
        if seeds is None:
            raise UserError("sample_class(classes): expected int32 [N], a class for each image, or one with seeds, received one")
        return self.draw_given(RowNoise(seeds), temperature, self._condition("sample_class", classes, seeds))

    def log_prob_given_class(
        self, images: Array, classes: Array, seeds: Array, num_importance_samples: int | Array = 1
    ) -> Array:
        """log P(image | class), float32 [N], nats per 8-bit image; of a density of latents log p(latents | class).

        Args:
            images: uint8 [N, H, W, C].
            classes: numbers of classes, int32 [N], or one for all.
            seeds: int32 [N, 2].
            num_importance_samples: K of a likelihood of images; of no effect for one of latents.
        """
        condition = self._condition("log_prob_given_class", classes, images)
        return self.log_prob_given(images, seeds, num_importance_samples, condition)

    def encode_given_class(self, images: Array, classes: Array, seeds: Array) -> Array:
        """Latents float32 [N, *latent_shape] of images uint8 [N, H, W, C] of given classes, int32 [N], or one for all."""
        return self.encode_given(images, seeds, self._condition("encode_given_class", classes, images))

    def decode_given_class(self, latents: Array, classes: Array) -> Array:
        """Images uint8 [N, H, W, C] of latents float32 [N, *latent_shape] and classes, int32 [N], or one for all."""
        return self.decode_given(latents, self._condition("decode_given_class", classes, latents))

    def reconstruct_given_class(self, images: Array, classes: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] of given classes, int32 [N], or one for all: encoded, then decoded."""
        condition = self._condition("reconstruct_given_class", classes, images)
        return self.decode_given(self.encode_given(images, seeds, condition), condition)

    def interpolate_given_class(
        self,
        images: Array,
        other_images: Array,
        classes: Array,
        share: float | Array,
        spherical: bool | Array,
        seeds: Array,
    ) -> Array:
        """As `interpolate`, where both images are taken to be of a class, int32 [N], or one for all."""
        condition = self._condition("interpolate_given_class", classes, images)
        first, second = (self.noise_of(self.encode_given(one, seeds, condition)) for one in (images, other_images))
        return self.decode_given(self.latents_of(between(first, second, share, spherical)), condition)

    def class_probabilities(
        self, images: Array, seeds: Array, num_importance_samples: int | Array = 1
    ) -> dict[str, Array]:
        """P(class | image) by Bayes's rule, of the images or, of a density of latents, of their latents.

        Returns:
            {"probabilities": in [0, 1], rows sum to 1; "log_prob_given_class": nats}, float32 [N, classes] each.
        """
        given = self.log_prob_given_each(images, seeds, num_importance_samples)
        return {"probabilities": tf.nn.softmax(self.log_joint(given)), "log_prob_given_class": given}

    def name_classes(self, classes: Array) -> dict[str, Array]:
        """Names of classes, for whoever has an export alone; in Python `class_names` has them.

        Args:
            classes: numbers of classes, int32 [N], or one: indices into `class_names`.

        Returns:
            {"names": str [N], in a graph bytes; "num_classes": int32 [N], how many classes the model has}.
        """
        self._check_numbers("name_classes", classes)
        names = tf.constant([name.encode("utf-8", "surrogateescape") for name in self.class_names])
        return {"names": tf.gather(names, classes), "num_classes": tf.fill(tf.shape(classes), len(self.class_names))}

    def _condition(self, method, classes, rows):
        """Classes, perhaps one for all `rows`, as one-hot; UserError for a number of no class, where numbers are known."""
        self._check_numbers(method, classes)
        return self.one_hot(tf.broadcast_to(tf.cast(classes, tf.int32), tf.shape(rows)[:1]))

    def _check_numbers(self, method, classes):
        if tf.executing_eagerly():
            wrong = [int(one) for one in np.ravel(classes) if not 0 <= one < len(self.class_names)]
            if wrong:
                raise UserError(
                    f"{method}(classes): expected numbers of classes, 0 to {self.largest_class}, received {wrong[0]}"
                )
