"""The base of the VAEs of Gatopoulos et al. (2020): discretised logistic mixtures of images, a flow as the prior of a latent map.

    p(x|.)   `DiscretizedLogisticMixture` with parameters from a network: exact masses of 8-bit values, no dequantisation
    p(w)     N(0, I) through a RealNVP of [H/4, W/4, latent_channels] maps
    q(w|.)   diagonal Gaussians, log-variances limited to [-7, 7]

KLs are estimated from one draw, because that of a flow has no closed form. log P(x) is importance-weighted over all latents
together, image by image.

Departures from the authors' code: masses are exact, where theirs use a density for masses below 1e-5; generated compressed
images have 8 bits; gradients pass through the limits of log-variances and log-scales, and log-scales have an upper limit. A
coupling has one scale factor that starts at 0, where theirs has one per channel that starts at 1; its conditioner reads the
checkerboard's mask; and its last convolution starts at 0 (shift) and small (scale), so that the prior starts as N(0, I). Images
are drawn from the whole mixture; theirs correspond to image_draw=mode.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config.groups import LogisticVAEOptions
from tfcq.distributions.logistic_mixture import DiscretizedLogisticMixture, num_parameters
from tfcq.engine.players import Objective, Player, Terms
from tfcq.errors import UserError
from tfcq.flows import ImageFlow
from tfcq.flows.dense_conditioner import DenseConditioner
from tfcq.models.base import Array, GenerativeModel, Noise, log_mean_exp
from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.randomness import RowNoise, row_seeds

tfd = tfp.distributions

LOG_VARIANCES = (-7.0, 7.0)
"""Limits of a posterior's log-variance; gradients pass through them."""

# Of the conditioners' dense blocks. Like all sizes of networks here, they are from the authors' code.
_PRIOR_GROWTH, _PRIOR_STEPS = 64, 5


class LogisticVAE(GenerativeModel):
    """Base of both.

    Args:
        config: the configuration of the system.
        image_shape: (H, W, C), H and W multiples of 4 * 2^(prior_scales - 1).
        seed: seed of the weights and of the noise of training.
        name: name of the model.

    Raises:
        UserError: images of another size or number of channels.
    """

    config: LogisticVAEOptions

    def __init__(self, config: LogisticVAEOptions, image_shape: tuple[int, int, int], seed: int, name: str):
        super().__init__(image_shape, seed, name)
        self.config = config
        height, width, channels = self.image_shape
        divisor = config.image_divisor
        if height % divisor or width % divisor or channels not in (1, 3):
            raise UserError(
                f"{name}: expected images of 1 or 3 channels whose sides are multiples of {divisor}, received "
                f"{height}x{width}x{channels}"
            )
        self.map_shape = (height // 4, width // 4, config.latent_channels)
        growth, steps = self.scaled(_PRIOR_GROWTH, _PRIOR_STEPS)
        self.prior_flow = ImageFlow(
            config.prior_scales,
            config.prior_couplings,
            normalization="none",
            conditioner=DenseConditioner.maker(growth, steps),
            seed=seed,
            name="prior_flow",
        )
        self.prior_flow.build((None, *self.map_shape))

    # Hooks that a system defines.

    def observe(self, images: Array) -> tuple[tf.Tensor, ...]:
        """The tensors [N, ...] of images that do not depend on draws, such as the posteriors' parameters.

        Importance weighting computes them once for all draws.
        """
        raise NotImplementedError

    def infer(self, images: Array, noise: Noise, observed: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Draws the latents of images from their posteriors.

        Args:
            images: uint8 [N, H, W, C].
            noise: the noise of the draws.
            observed: `observe(images)`.

        Returns:
            {name: float32 [N], nats}: reconstruction errors -log p, and KLs estimated from this draw. Minus the sum of all is
            log p(x, w) - log q(w|x).
        """
        raise NotImplementedError

    # What follows from them.

    def scaled(self, growth: int, steps: int) -> tuple[int, int]:
        """The paper's growth and steps of dense blocks, scaled according to the configuration; at least 1 each."""
        config = self.config
        return max(1, round(config.growth_scale * growth)), max(1, round(config.steps_scale * steps))

    def num_parameters_of(self, shape: tuple[int, ...]) -> int:
        """The number of a network's channels for the parameters of a mixture of images of a shape."""
        return num_parameters(self.config.mixture_components, shape[-1])

    def players(self) -> list[Player]:
        return [Player("autoencoder", [Objective(self._loss, self.trainable_variables)])]

    def initialize(self, images: tf.Tensor) -> None:
        """Data-dependent initialisation of all convolutions from uint8 [N, H, W, C]."""
        with data_dependent_initialization():
            self._elbo_terms(images, RowNoise(row_seeds(len(images), self.seed)))

    def _elbo_terms(self, images, noise):
        terms = self.infer(images, noise, self.observe(images))
        return {"elbo": -sum(terms.values())} | terms

    def _loss(self, images, noise, shared):
        terms = self._elbo_terms(images, noise)
        return Terms(-terms["elbo"], {}, self.bound_measures(terms))

    def elbo_terms(self, images: Array, seeds: Array) -> dict[str, Array]:
        """The bound with one draw of all latents: elbo = -(sum of the other terms)."""
        return self._elbo_terms(images, RowNoise(seeds))

    def log_prob(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """log 1/K sum_k p(x, w_k) / q(w_k | x) with all latents w drawn together, one k at a time."""
        noise, observed = RowNoise(seeds), self.observe(images)

        def log_weight(k):
            return -sum(self.infer(images, noise.fold(k), observed).values())

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])

    # Parts.

    @staticmethod
    def unit_values(images: Array) -> tf.Tensor:
        """Images uint8 as float32 in [0, 1]: v / 255."""
        return tf.cast(images, tf.float32) / 255.0

    @staticmethod
    def gaussian(parameters: tf.Tensor) -> tfp.distributions.Distribution:
        """The diagonal Gaussian with parameters from a network, float32 [N, h, w, 2 c]: means and log-variances."""
        mean, log_variance = tf.split(parameters, 2, axis=-1)
        log_variance = tfp.math.clip_by_value_preserve_gradient(log_variance, *LOG_VARIANCES)
        return tfd.Independent(tfd.Normal(mean, tf.exp(0.5 * log_variance)), 3)

    @staticmethod
    def drawn(
        gaussian: tfp.distributions.Distribution, noise: Noise, tag: int, temperature: float | Array = 1.0
    ) -> tf.Tensor:
        """Maps drawn from a diagonal Gaussian, float32 [N, h, w, c]; `temperature`, float or [N], scales its deviation."""
        mean = gaussian.mean()
        return mean + gaussian.stddev() * _scaled(noise.normal(mean.shape[1:], tag), temperature)

    def prior(self) -> tfp.distributions.Distribution:
        """p(w), a `tfd.TransformedDistribution` of float32 [h, w, c]."""
        noise = tfd.Independent(tfd.Normal(tf.zeros(self.map_shape), 1.0), 3)
        return tfd.TransformedDistribution(noise, self.prior_flow.bijector())

    def draw_prior(self, noise: Noise, tag: int, temperature: float | Array = 1.0) -> tf.Tensor:
        """Maps drawn from the prior, float32 [N, h, w, c]; `temperature`, float or [N], scales the noise."""
        return self.prior_flow.forward_and_log_det(_scaled(noise.normal(self.map_shape, tag), temperature))[0]

    @staticmethod
    def reconstruction_error(parameters: tf.Tensor, images: Array) -> tf.Tensor:
        """-log p(images) of the mixture with parameters from a network, float32 [N], nats."""
        return -DiscretizedLogisticMixture(parameters, images.shape[-1]).log_prob(images)

    def image_of(self, parameters: tf.Tensor, channels: int, noise: Noise | None = None, tag: int = 0) -> tf.Tensor:
        """Images uint8 of a mixture: drawn with the tags `tag` and `tag` + 1; its mode without noise or with image_draw=mode."""
        mixture = DiscretizedLogisticMixture(parameters, channels)
        if noise is None or self.config.image_draw == "mode":
            return mixture.mode()
        height, width = parameters.shape[1:3]
        return mixture.sample_of(noise.uniform((height, width), tag), noise.uniform((height, width, channels), tag + 1))


def _scaled(noise, temperature):
    """Noise [N, h, w, c] times a temperature, a float or [N]."""
    return noise * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1, 1, 1])
