"""What the VAEs of the GLF family share: a Gaussian posterior, a Gaussian decoder, and the bound (Xiao et al. 2019, Eq. 3).

x = (x8 + u) / 256, u ~ U[0, 1); v = 256 x are pixels in [0, 256):

    log p(v) >= E_q[log N(x; G(z), sigma^2 I) + log p(z) - log q(z|x)] - D log 256

in nats per 8-bit image. sigma is fixed (sigma^2 = 1 / (2 beta) in the paper's beta) or one learned scalar. Fixed, no bound is
below log2(256 sigma sqrt(2 pi)) bits/dim, what x = G(z) with a KL of 0 would score: 8.83 for beta = 1. Here q(z|x) is a
diagonal Gaussian and p(z) = N(0, I); a system may change either.
"""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.engine.players import Objective, Player, Terms
from tfcq.flows.latent_flow import LatentFlow, weight_decay
from tfcq.models.autoencoders.autoencoder import LEVELS, Autoencoder
from tfcq.models.base import log_mean_exp
from tfcq.randomness import RowNoise

tfd = tfp.distributions

DEQUANTIZATION, LATENT = 0, 1
"""Tags of the draws."""

LOG_SCALES = (-7.0, 3.0)
"""Limits of a posterior's log-scale; gradients go through them."""


class VariationalAutoencoder(Autoencoder):
    """Base of the VAEs; by itself the one with Gaussian prior and posterior.

    Args:
        config: `AutoencoderOptions` and `DecoderScaleOptions` of the system.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
        name: of the model.
    """

    def __init__(self, config, image_shape, seed, name):
        super().__init__(config, image_shape, seed, name, encoder_outputs=2 * config.latent_dim)
        self.log_sigma = self.add_weight(
            name="log_sigma",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(math.log(config.decoder_sigma)),
            trainable=config.learn_decoder_sigma,
        )

    @property
    def abilities(self):
        return super().abilities | {"likelihood"}

    @property
    def likelihood_note(self):
        floor = self.config.bits_per_dim_floor()
        if floor is None:
            return None
        worse = ", which is worse than uniform noise, 8" if floor > 8.0 else ""
        return (
            f"decoder_sigma={self.config.decoder_sigma:.4g} is fixed: bits/dim cannot be below log2(256 sigma sqrt(2 pi)) = "
            f"{floor:.3f}{worse}; --learn_decoder_sigma has no such floor"
        )

    def players(self):
        return [Player("autoencoder", [Objective(self._loss, self.autoencoder_variables())])]

    def autoencoder_variables(self):
        """What the bound trains: encoder, decoder, and sigma where it is learned."""
        scale = [self.log_sigma] * self.config.learn_decoder_sigma
        return [*self.encoder.trainable_variables, *self.decoder.trainable_variables, *scale]

    # What a system may change.

    def infer(self, pixels, noise, training=False):
        """Latents drawn from the posterior.

        Args:
            pixels: float32 [N, H, W, C] in [0, 1].
            noise: of `tfcq.randomness`; drawn from with tags from LATENT on.
            training: for batch normalisation.

        Returns:
            latents float32 [N, latent_dim], kl float32 [N], nats: of posterior and prior, exact or by this draw; log_ratio
            float32 [N], nats: log p(z) - log q(z|x) by this draw; logs, {name: [N]}.
        """
        posterior, prior = self._gaussian(pixels, training), self._standard_normal()
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        log_ratio = prior.log_prob(latents) - posterior.log_prob(latents)
        return latents, tfd.kl_divergence(posterior, prior), log_ratio, {}

    def draw_latents(self, noise, temperature=1.0):
        normal = noise.normal(self.latent_shape, LATENT)
        return self.latents_of(normal * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1]))

    def posterior_mean(self, pixels, training=False):
        return self._gaussian(pixels, training).mean()

    # The model.

    def _gaussian(self, pixels, training=False):
        """The diagonal Gaussian that the encoder gives."""
        mean, log_scale = tf.split(self.encoder(pixels, training=training), 2, axis=-1)
        scale = tf.exp(tfp.math.clip_by_value_preserve_gradient(log_scale, *LOG_SCALES))
        return tfd.Independent(tfd.Normal(mean, scale), 1)

    def _standard_normal(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_shape), 1.0), 1)

    def log_density(self, pixels, means):
        """log N(x; means, sigma^2 I) - D log 256: nats of an 8-bit image, float32 [N]; both [N, H, W, C] in [0, 1]."""
        # One sigma a row, so that its gradient is summed in one order.
        sigma = tf.fill([tf.shape(means)[0], 1, 1, 1], tf.exp(self.log_sigma.value))
        density = tfd.Independent(tfd.Normal(means, sigma), 3).log_prob(pixels)
        return density - math.prod(self.image_shape) * math.log(LEVELS)

    def _terms(self, images, noise, training=False):
        pixels = self.unit_pixels(images, noise.uniform(self.image_shape, DEQUANTIZATION))
        latents, kl, _, logs = self.infer(pixels, noise, training)
        reconstruction = -self.log_density(pixels, self.decoder(latents, training=training))
        return {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}, logs

    def _loss(self, images, noise, shared):
        terms, logs = self._terms(images, noise, training=True)
        logs = logs | {"sigma": tf.exp(self.log_sigma.value)}
        return Terms(-terms["elbo"] + self.penalty(), logs, self.bound_measures(terms, self.trained_bound))

    def penalty(self):
        """What is added to the loss of each example besides the bound: a scalar, 0 by default."""
        return 0.0

    # What it can do.

    def elbo_terms(self, images, seeds):
        """The bound with one draw of (u, z): elbo = -reconstruction - kl."""
        return self._terms(images, RowNoise(seeds))[0]

    def log_prob(self, images, seeds, num_importance_samples=1):
        """log 1/K sum_k p(v, z_k) / q(z_k | v), one u an image and K draws of z, one at a time."""
        noise = RowNoise(seeds)
        pixels = self.unit_pixels(images, noise.uniform(self.image_shape, DEQUANTIZATION))

        def log_weight(k):
            latents, _, log_ratio, _ = self.infer(pixels, noise.fold(k))
            return self.log_density(pixels, self.decoder(latents)) + log_ratio

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])


class FlowVariationalAutoencoder(VariationalAutoencoder):
    """Base of those with a flow of latents that the bound trains too, with its weight decay.

    Args:
        config: `AutoencoderOptions`, `DecoderScaleOptions` and `LatentFlowOptions` of the system.
        image_shape, seed, name: as of `VariationalAutoencoder`.
    """

    def __init__(self, config, image_shape, seed, name):
        super().__init__(config, image_shape, seed, name)
        self.flow = LatentFlow.of(config, seed + 2)

    def autoencoder_variables(self):
        return [*super().autoencoder_variables(), *self.flow.trainable_variables]

    def penalty(self):
        return weight_decay(self.flow, self.config.latent_flow_weight_decay)
