"""The interface of a generative model. For its training see `tfcq.engine.trainer` and `tfcq.models.fitting`.

A system subclasses `GenerativeModel`, makes its networks in `__init__` (with all weights, and then sets `built`), defines its
`players`, overrides the methods that it supports (`draw_images`, `elbo_terms` and `log_prob`, `latent_likelihood`, `encode`,
`decode`, ...), and names these abilities in `abilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.endpoints import ENDPOINTS, METHODS
from tfcq.errors import UserError
from tfcq.models import arguments
from tfcq.models.fitting import FittedModel
from tfcq.models.interpolation import NoisePath, between
from tfcq.randomness import RowNoise, StepNoise

ABILITIES = tuple(ENDPOINTS)
"""All abilities that a model may have; each is an endpoint of an export."""

Array: TypeAlias = np.ndarray | tf.Tensor
"""A user's argument or answer: NumPy arrays or tensors. Within a model all are tensors."""

Noise: TypeAlias = RowNoise | StepNoise
"""The noise of an endpoint or of a training step."""


class GenerativeModel(FittedModel):
    """Base of every system.

    When a user calls one of the methods of `tfcq.endpoints.METHODS`, in whichever class it is defined, its arguments are
    checked first: a wrong one raises UserError. Seeds may be left out, `model.sample(16)` draws 16 images, and answers are
    NumPy arrays unless an argument is a tensor (see `tfcq.models.arguments`).

    Args:
        image_shape: (H, W, C) of the images.
        seed: seed of the noise of training; together with the step number it decides every draw.
        name: name of the model.
    """

    def __init__(self, image_shape: Sequence[int], seed: int = 0, name: str | None = None):
        super().__init__(seed, name)
        height, width, channels = image_shape
        self.image_shape = (height, width, channels)

    def __repr__(self):
        size = "x".join(map(str, self.image_shape))
        taken: int | str = self.steps_taken if tf.executing_eagerly() else "?"  # messages of graphs show models, too
        steps = "1 step" if taken == 1 else f"{taken} steps"
        able = ", ".join(sorted(self.abilities))
        return f"<{type(self).__name__}: {size} images, {self.count_params():,} weights, {steps}; {able}>"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        _check_arguments(cls)

    trained_bound = "elbo"
    """The name in logs of the bound that is trained; another name if it differs from the bound of `elbo_terms`."""

    @property
    def likelihood_note(self) -> str | None:
        """A sentence that readers of this model's likelihood must know; None by default."""
        return None

    @property
    def abilities(self) -> frozenset[str]:
        """The abilities that this model has, a subset of `ABILITIES`."""
        raise NotImplementedError

    def sample(self, seeds: Array, temperature: float | Array = 1.0) -> Array:
        """Generates images uint8 [N, H, W, C], one for each row of `seeds` (int32 [N, 2]).

        `temperature` (float or [N], at least 0) multiplies the standard deviation of the prior.
        """
        return self.draw_images(RowNoise(seeds), temperature)

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C] made of `noise` alone: what `sample` and `interpolate_noise` answer.

        `temperature` (float or [N]) multiplies the standard deviation of the prior.
        """
        raise self.cannot("sample")

    def elbo_terms(self, images: Array, seeds: Array) -> dict[str, Array]:
        """The evidence lower bound of log P(images), from one draw decided by `seeds`, and its terms.

        Returns:
            {"elbo": float32 [N], nats per 8-bit image, and name of a term: float32 [N], nats}.
        """
        raise self.cannot("likelihood")

    def bound_measures(self, terms: dict[str, Any], name: str = "elbo") -> dict[str, Any]:
        """The terms of a bound under the names that training, validation and evaluation log.

        Args:
            terms: like the result of `elbo_terms`, [N] or means, in nats.
            name: name of the bound; not "elbo" if it is not the bound of `elbo_terms`.

        Returns:
            {"elbo_bits_per_dim": in bits, "elbo_nats", "elbo/TERM" for every other term: in nats}, [N] or means like `terms`.
        """
        parts = {f"{name}/{term}": value for term, value in terms.items() if term != "elbo"}
        bits = units.bits_per_dim(terms["elbo"], self.image_shape)
        return {f"{name}_bits_per_dim": bits, f"{name}_nats": terms["elbo"]} | parts

    def elbo(self, images: Array, seeds: Array) -> Array:
        """The evidence lower bound of log P(images), float32 [N], nats per 8-bit image; one draw, decided by `seeds`."""
        return self.elbo_terms(images, seeds)["elbo"]

    def log_prob(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """Estimates log P(images), float32 [N], nats per 8-bit image, of uint8 [N, H, W, C]; `seeds` decide the noise."""
        raise self.cannot("likelihood")

    def likelihood(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> dict[str, Array]:
        """{"log_prob", "bits_per_dim"}, float32 [N] each: `log_prob`, and -log_prob / (D ln 2)."""
        log_prob = self.log_prob(images, seeds, num_importance_samples)
        return {"log_prob": log_prob, "bits_per_dim": units.bits_per_dim(log_prob, self.image_shape)}

    def bits_per_dim(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """-log_prob / (D ln 2), float32 [N]; 8 if all images are equally likely."""
        return self.likelihood(images, seeds, num_importance_samples)["bits_per_dim"]

    def encode(self, images: Array, seeds: Array) -> Array:
        """Latents float32 [N, ...] of images uint8 [N, H, W, C]."""
        raise self.cannot("encode")

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C] of latents float32 [N, ...]."""
        raise self.cannot("decode")

    def reconstruct(self, images: Array, seeds: Array) -> Array:
        """Images encoded, then decoded: uint8 [N, H, W, C]."""
        return self.decode(self.encode(images, seeds))

    def generative_reconstruct(self, images: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] from the latents of the model's first stage alone; the rest is generated."""
        raise self.cannot("generative_reconstruct")

    def super_resolve(self, compressed: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] for compressed images, uint8 [N, *compressed_shape]."""
        raise self.cannot("super_resolve")

    def energy(self, images: Array, seeds: Array) -> Array:
        """A score float32 [N] of images, higher for images that look less real to the model; not a log-density."""
        raise self.cannot("energy")

    def latent_likelihood(self, images: Array, seeds: Array) -> dict[str, Array]:
        """{"latent_log_prob", "reconstruction_error"}, float32 [N] each, for models without a density of images."""
        raise self.cannot("latent_likelihood")

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        """The noise that the model's flow maps to latents [N, *latent_shape]; by default the latents themselves."""
        return latents

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        """The inverse of `noise_of`."""
        return noise

    def interpolate(
        self, images: Array, other_images: Array, share: float | Array, spherical: bool | Array, seeds: Array
    ) -> Array:
        """Images between two images, decoded from points on a path between the `noise_of` their latents.

        Args:
            images, other_images: uint8 [N, H, W, C].
            share: float32 [N], or one number for all, from 0 to 1: the fraction of the path. 0 is the first image, 1 the other.
            spherical: bool [N], or one for all. False: a straight path. True: Shoemake's (1985), which is along a great circle
                if both ends have the same norm.
            seeds: int32 [N, 2], for random parts of `encode`.

        Returns:
            uint8 [N, H, W, C].
        """
        first, second = (self.noise_of(self.encode(one, seeds)) for one in (images, other_images))
        return self.decode(self.latents_of(between(first, second, share, spherical)))

    def interpolate_noise(
        self,
        first_seeds: Array,
        second_seeds: Array,
        share: float | Array,
        spherical: bool | Array = False,
        temperature: float | Array = 1.0,
    ) -> Array:
        """Images between two samples, made of the noise on a path between theirs (`tfcq.models.interpolation.NoisePath`).

        Args:
            first_seeds, second_seeds: int32 [N, 2], as of `sample`.
            share: float32 [N], or one number for all, from 0 to 1: the fraction of the path. 0 is the first sample, 1 the
                second: the images of `sample` with the same temperature.
            spherical: as of `interpolate`.
            temperature: as of `sample`.

        Returns:
            uint8 [N, H, W, C].
        """
        noise = NoisePath(RowNoise(first_seeds), RowNoise(second_seeds), share, spherical)
        return self.draw_images(noise, temperature)

    def require(self, ability: str) -> None:
        """Raises the UserError of `cannot` if this model lacks `ability`."""
        if ability not in self.abilities:
            raise self.cannot(ability)

    def cannot(self, ability: str) -> UserError:
        """The error for a missing `ability`, which also names the abilities that the model has."""
        supported = ", ".join(sorted(self.abilities))
        return UserError(f"{self.name} (as configured) does not support {ability}; it supports: {supported}")


def _check_arguments(cls: type) -> None:
    """Wraps the methods that `cls` itself defines in the checks of `tfcq.models.arguments`."""
    for name in METHODS.keys() & vars(cls).keys():
        setattr(cls, name, arguments.checked(vars(cls)[name]))


def _lacking(ability: str) -> Callable:
    """The method of `GenerativeModel` for an endpoint that only some models have."""

    def lack(self: GenerativeModel, *args: Any, **kwargs: Any) -> NoReturn:
        raise self.cannot(ability)

    lack.__name__, lack.__qualname__, lack.__doc__ = ability, f"GenerativeModel.{ability}", ENDPOINTS[ability].meaning
    return lack


_check_arguments(GenerativeModel)
for _ability in ENDPOINTS.keys() - vars(GenerativeModel).keys():  # a new endpoint needs its row there and the models that have it
    setattr(GenerativeModel, _ability, _lacking(_ability))


def log_mean_exp(log_weight: Callable[[tf.Tensor], tf.Tensor], count: int | Array, shape: tf.Tensor) -> tf.Tensor:
    """The log of the mean over k of exp(log_weight(k)), one k at a time, so that memory does not grow with `count`.

    Args:
        log_weight: function from k, a scalar int tensor, to a float32 tensor of `shape`.
        count: number of k, which run from 0 on: int or scalar int tensor.
        shape: int tensor.
    """
    count = tf.convert_to_tensor(count, tf.int32)

    def add(k, log_sum):
        return k + 1, tfp.math.log_add_exp(log_sum, log_weight(k))

    start = (tf.constant(0), tf.fill(shape, tf.constant(-float("inf"))))
    _, log_sum = tf.while_loop(lambda k, _: k < count, add, start, parallel_iterations=1)
    return log_sum - tf.math.log(tf.cast(count, tf.float32))
