"""The base of the VAEs of the GLF family: a Gaussian posterior, a Gaussian decoder, and the bound (Xiao et al. 2019, Eq. 3).

x = (x8 + u) / 256, u ~ U[0, 1); v = 256 x are pixels in [0, 256):

    log p(v) >= E_q[log N(x; G(z), sigma^2 I) + log p(z) - log q(z|x)] - D log 256

in nats per 8-bit image. sigma is fixed (sigma^2 = 1 / (2 beta) with the paper's beta) or one learned scalar, whose logarithm
learns `sigma_rate` times as fast as the networks. If it is fixed, no bound is below log2(256 sigma sqrt(2 pi)) bits/dim, the
value for x = G(z) and a KL of 0: 8.83 for beta = 1. Here q(z|x) is a diagonal Gaussian and p(z) = N(0, I); a system may change
both.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config import TwoStageVAEConfig, VAEConfig, VAEFlowPosteriorConfig, VAEFlowPriorConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.flows.latent_flow import LatentFlow, weight_decay
from tfcq.models.autoencoders.autoencoder import LEVELS, Autoencoder
from tfcq.models.autoencoders.flow_optimizer import optimizer_groups
from tfcq.models.base import Array, Noise, log_mean_exp
from tfcq.randomness import RowNoise

tfd = tfp.distributions

DEQUANTIZATION, LATENT = 0, 1
"""Tags of the draws."""

LOG_SCALES = (-7.0, 3.0)
"""Limits of a posterior's log-scale; gradients pass through them."""


def deviation(variable: keras.Variable, rate: float) -> tf.Tensor:
    """The standard deviation exp(rate w), a scalar, of a variable w: its logarithm in units of `rate`.

    The gradient with respect to w is that with respect to the logarithm, not `rate` times as large: under every optimizer the
    logarithm then learns `rate` times as fast as another weight, and the norm of a gradient does not depend on `rate`.
    """
    return tf.exp(variable.value + tf.stop_gradient((rate - 1.0) * variable.value))


class VariationalAutoencoder(Autoencoder):
    """Base of the VAEs, with a Gaussian prior and posterior by default.

    Args:
        config: the configuration of the system, which has `AutoencoderOptions` and `DecoderScaleOptions`.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: VAEConfig | VAEFlowPriorConfig | VAEFlowPosteriorConfig | TwoStageVAEConfig
    encoder: keras.Sequential

    def __init__(
        self,
        config: VAEConfig | VAEFlowPriorConfig | VAEFlowPosteriorConfig | TwoStageVAEConfig,
        image_shape: tuple[int, int, int],
        seed: int,
        name: str,
    ):
        super().__init__(config, image_shape, seed, name, encoder_outputs=2 * config.latent_dim)
        self.log_sigma = self.add_weight(
            name="log_sigma",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(math.log(config.decoder_sigma) / config.sigma_rate),
            trainable=config.learn_decoder_sigma,
        )

    @property
    def sigma(self) -> tf.Tensor:
        """The decoder's standard deviation, float32 [], for pixels in [0, 1]."""
        return deviation(self.log_sigma, self.config.sigma_rate)

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | {"likelihood"}

    @property
    def likelihood_note(self) -> str | None:
        floor = self.config.bits_per_dim_floor()
        if floor is None:
            return None
        worse = ", which is worse than uniform noise, 8" if floor > 8.0 else ""
        return (
            f"decoder_sigma={self.config.decoder_sigma:.4g} is fixed: bits/dim cannot be below log2(256 sigma sqrt(2 pi)) = "
            f"{floor:.3f}{worse}; --learn_decoder_sigma has no such floor"
        )

    def players(self) -> list[Player]:
        return [Player("autoencoder", [Objective(self._loss, self.autoencoder_variables())])]

    def autoencoder_variables(self) -> list[keras.Variable]:
        """The variables that the bound trains: those of encoder and decoder, and sigma if it is learned."""
        networks = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        return [*networks, self.log_sigma] if self.config.learn_decoder_sigma else networks

    # Hooks that a system may override.

    def infer(
        self, pixels: tf.Tensor, noise: Noise, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Draws latents from the posterior.

        Args:
            pixels: float32 [N, H, W, C] in [0, 1].
            noise: the noise; its tags from LATENT on are used.
            training: whether batch normalisation is in training mode.

        Returns:
            latents float32 [N, latent_dim]; kl float32 [N], nats, of posterior and prior, exact or from this draw; log_ratio
            float32 [N], nats, log p(z) - log q(z|x) of this draw; logs, {name: [N]}.
        """
        posterior, prior = self._gaussian(pixels, training), self._standard_normal()
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        log_ratio = prior.log_prob(latents) - posterior.log_prob(latents)
        return latents, tfd.kl_divergence(posterior, prior), log_ratio, {}

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        normal = noise.normal(self.latent_shape, LATENT)
        return self.latents_of(normal * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1]))

    def posterior_mean(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self._gaussian(pixels, training).mean()

    # The model.

    def _gaussian(self, pixels, training=False):
        """The diagonal Gaussian with the parameters from the encoder."""
        mean, log_scale = tf.split(self.encoder(pixels, training=training), 2, axis=-1)
        scale = tf.exp(tfp.math.clip_by_value_preserve_gradient(log_scale, *LOG_SCALES))
        return tfd.Independent(tfd.Normal(mean, scale), 1)

    def _standard_normal(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_shape), 1.0), 1)

    def log_density(self, pixels: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
        """log N(x; means, sigma^2 I) - D log 256: float32 [N], nats per 8-bit image; both [N, H, W, C] in [0, 1]."""
        # One sigma per row, so that the gradients of rows are summed in a fixed order.
        sigma = tf.fill([tf.shape(means)[0], 1, 1, 1], self.sigma)
        density = tfd.Independent(tfd.Normal(means, sigma), 3).log_prob(pixels)
        return density - math.prod(self.image_shape) * math.log(LEVELS)

    def _terms(self, images, noise, training=False):
        pixels = self.unit_pixels(images, noise.uniform(self.image_shape, DEQUANTIZATION))
        latents, kl, _, logs = self.infer(pixels, noise, training)
        reconstruction = -self.log_density(pixels, self.decoder(latents, training=training))
        return {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}, logs

    def _loss(self, images, noise, shared):
        terms, logs = self._terms(images, noise, training=True)
        logs = logs | {"sigma": self.sigma}
        return Terms(-terms["elbo"] + self.penalty(), logs, self.bound_measures(terms, self.trained_bound))

    def penalty(self) -> tf.Tensor | float:
        """A scalar that is added to the loss of each example, besides the bound; 0 by default."""
        return 0.0

    # Abilities.

    def elbo_terms(self, images: Array, seeds: Array) -> dict[str, Array]:
        """The bound with one draw of (u, z): elbo = -reconstruction - kl."""
        return self._terms(images, RowNoise(seeds))[0]

    def log_prob(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """log 1/K sum_k p(v, z_k) / q(z_k | v), with one u per image and K draws of z, one at a time."""
        noise = RowNoise(seeds)
        pixels = self.unit_pixels(images, noise.uniform(self.image_shape, DEQUANTIZATION))

        def log_weight(k):
            latents, _, log_ratio, _ = self.infer(pixels, noise.fold(k))
            return self.log_density(pixels, self.decoder(latents)) + log_ratio

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])


class FlowVariationalAutoencoder(VariationalAutoencoder):
    """Base of the VAEs with a flow of latents, which the bound trains too, with weight decay.

    Args:
        config: the configuration of the system, which also has `LatentFlowOptions`.
        image_shape, seed, name: see `VariationalAutoencoder`.
    """

    config: VAEFlowPriorConfig | VAEFlowPosteriorConfig

    def __init__(
        self,
        config: VAEFlowPriorConfig | VAEFlowPosteriorConfig,
        image_shape: tuple[int, int, int],
        seed: int,
        name: str,
    ):
        super().__init__(config, image_shape, seed, name)
        self.flow = LatentFlow.of(config, seed + 2)

    def autoencoder_variables(self) -> list[keras.Variable]:
        return [*super().autoencoder_variables(), *self.flow.trainable_variables]

    def players(self) -> list[Player]:
        (player,) = super().players()
        return [dataclasses.replace(player, groups=optimizer_groups(self.flow, self.config))]

    def penalty(self) -> tf.Tensor:
        return weight_decay(self.flow, self.config.latent_flow_weight_decay)
