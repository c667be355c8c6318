"""The contract of a generative model: what it can be asked. How it is trained: `tfcq.engine.trainer`, `tfcq.models.fitting`.

A system subclasses `GenerativeModel`, makes its networks in `__init__` (all weights, so `built` is true), says who is trained
(`players`), and offers what it can do of `sample`, `elbo_terms` and `log_prob`, `latent_likelihood`, `encode`, `decode`,
`reconstruct`, `interpolate`, and the like, with `abilities` that names those.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.endpoints import ENDPOINTS, METHODS
from tfcq.errors import UserError
from tfcq.models import arguments, interpolation
from tfcq.models.fitting import FittedModel

ABILITIES = tuple(ENDPOINTS)
"""What can be asked of models; each is an endpoint too."""


class GenerativeModel(FittedModel):
    """Base of every system.

    Where a user calls one of the methods of `tfcq.endpoints.METHODS`, whichever class defines it, its arguments are checked
    first: a wrong one raises UserError. Seeds may be left out, `model.sample(16)` draws 16 images, and answers are NumPy
    arrays where no tensors are given (see `tfcq.models.arguments`).

    Args:
        image_shape: (H, W, C) of its images.
        seed: int, of the noise of training; with the step number it decides every draw.
        name: of the model.
    """

    def __init__(self, image_shape, seed=0, name=None):
        super().__init__(seed, name)
        self.image_shape = tuple(image_shape)

    def __repr__(self):
        size = "x".join(map(str, self.image_shape))
        steps = f"{self.steps_taken} step" + "s" * (self.steps_taken != 1)
        able = ", ".join(sorted(self.abilities))
        return f"<{type(self).__name__}: {size} images, {self.count_params():,} weights, {steps}; {able}>"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        _check_arguments(cls)

    trained_bound = "elbo"
    """What the bound that is trained is called in logs; another name where it is not the one of `elbo_terms`."""

    likelihood_note = None
    """A sentence that whoever reads this model's likelihood must know; None: there is none."""

    @property
    def abilities(self):
        """frozenset of what can be asked of this model, out of `ABILITIES`."""
        raise NotImplementedError

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C], one for each row of `seeds` (int32 [N, 2]).

        `temperature` (float or [N], at least 0) multiplies the standard deviation of the prior.
        """
        raise self.cannot("sample")

    def elbo_terms(self, images, seeds):
        """The evidence lower bound of log P(images), one draw decided by `seeds`, and what it is made of.

        Returns:
            {"elbo": float32 [N], nats per 8-bit image, and other names: float32 [N], nats}.
        """
        raise self.cannot("likelihood")

    def bound_measures(self, terms, name="elbo"):
        """The terms of a bound under the names that training, validation and evaluation share.

        Args:
            terms: as of `elbo_terms`: {"elbo" and others: [N], or their means; nats}.
            name: of the bound; another than "elbo" for one that is not of `elbo_terms`.

        Returns:
            {"elbo_bits_per_dim": in bits, "elbo_nats", "elbo/TERM" for every other term: in nats}, [N] or means as `terms`.
        """
        parts = {f"{name}/{term}": value for term, value in terms.items() if term != "elbo"}
        bits = units.bits_per_dim(terms["elbo"], self.image_shape)
        return {f"{name}_bits_per_dim": bits, f"{name}_nats": terms["elbo"]} | parts

    def elbo(self, images, seeds):
        """Evidence lower bound of log P(images), float32 [N], nats per 8-bit image; one draw, decided by `seeds`."""
        return self.elbo_terms(images, seeds)["elbo"]

    def log_prob(self, images, seeds, num_importance_samples=1):
        """Estimate of log P(images), float32 [N], nats per 8-bit image (uint8 [N, H, W, C]); noise decided by `seeds`."""
        raise self.cannot("likelihood")

    def likelihood(self, images, seeds, num_importance_samples=1):
        """{"log_prob", "bits_per_dim"}, float32 [N] each: `log_prob`, and -log_prob / (D ln 2)."""
        log_prob = self.log_prob(images, seeds, num_importance_samples)
        return {"log_prob": log_prob, "bits_per_dim": units.bits_per_dim(log_prob, self.image_shape)}

    def encode(self, images, seeds):
        """Latents float32 [N, ...] of images."""
        raise self.cannot("encode")

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of latents."""
        raise self.cannot("decode")

    def reconstruct(self, images, seeds):
        """Images encoded, then decoded: uint8 [N, H, W, C]."""
        return self.decode(self.encode(images, seeds))

    def generative_reconstruct(self, images, seeds):
        """Images of what a model's first stage keeps of images, the rest being generated: uint8 [N, H, W, C]."""
        raise self.cannot("generative_reconstruct")

    def super_resolve(self, compressed, seeds):
        """Images uint8 [N, H, W, C] of compressed ones, uint8 [N, *compressed_shape]."""
        raise self.cannot("super_resolve")

    def energy(self, images, seeds):
        """float32 [N] of images, higher for those that look less real to the model; no log-density."""
        raise self.cannot("energy")

    def latent_likelihood(self, images, seeds):
        """{"latent_log_prob", "reconstruction_error"}, float32 [N] each, of models that are no density of images."""
        raise self.cannot("latent_likelihood")

    def noise_of(self, latents):
        """The noise that latents [N, *latent_shape] are made of, where the model makes them of noise; else themselves."""
        return latents

    def latents_of(self, noise):
        """Inverse of `noise_of`."""
        return noise

    def interpolate(self, images, other_images, share, spherical, seeds):
        """Images between two images: a way between their noise (`noise_of` their latents), decoded.

        Args:
            images, other_images: uint8 [N, H, W, C].
            share: float32 [N], or one number for all, from 0 to 1, where on the way: 0 at the first, 1 at the other.
            spherical: bool [N], or one for all; False: a straight way; True: Shoemake's (1985), along a great circle where both
                have one length.
            seeds: int32 [N, 2], of what is random in `encode`.

        Returns:
            uint8 [N, H, W, C].
        """
        ends = [self.noise_of(self.encode(one, seeds)) for one in (images, other_images)]
        return self.decode(self.latents_of(interpolation.between(*ends, share, spherical)))

    def require(self, ability):
        """Raises the UserError of `cannot` where this model lacks `ability`."""
        if ability not in self.abilities:
            raise self.cannot(ability)

    def cannot(self, ability):
        """The error that says that this model lacks `ability`, and what it has."""
        supported = ", ".join(sorted(self.abilities))
        return UserError(f"{self.name} (as configured) does not support {ability}; it supports: {supported}")


def _check_arguments(cls):
    """Puts the checks of `tfcq.models.arguments` before the methods that `cls` itself defines."""
    for name in METHODS.keys() & vars(cls).keys():
        setattr(cls, name, arguments.checked(vars(cls)[name]))


_check_arguments(GenerativeModel)


def log_mean_exp(log_weight, count, shape):
    """log of the mean over k of exp(log_weight(k)), one k at a time: memory does not grow with their number.

    Args:
        log_weight: function of a scalar int tensor k to float32 tensors of `shape`.
        count: how many k, from 0 on: int or scalar int tensor.
        shape: int tensor.
    """
    count = tf.convert_to_tensor(count, tf.int32)

    def add(k, log_sum):
        return k + 1, tfp.math.log_add_exp(log_sum, log_weight(k))

    start = (tf.constant(0), tf.fill(shape, tf.constant(-float("inf"))))
    _, log_sum = tf.while_loop(lambda k, _: k < count, add, start, parallel_iterations=1)
    return log_sum - tf.math.log(tf.cast(count, tf.float32))
