"""Two-stage VAE (Dai and Wipf 2019; Xiao et al. 2019, Appendix B.4): a VAE with a learned scale, then a VAE of its latents.

    first    q(z|x), p(x|z) = N(G(z), sigma^2 I), p(z) = N(0, I): trained for `first_stage_steps`
    second   q(u|z), p(z|u) = N(G_2(u), gamma^2 I), p(u) = N(0, I): trained on draws from q(z|x), with the first VAE fixed

As sigma falls, the latents of the first VAE deviate from N(0, I); the second VAE learns their distribution. To sample: u, z,
G(z). The density of an image is that of both VAEs,

    log p(v) >= E[log p(x|z) + log p(z|u) + log p(u) - log q(u|z) - log q(z|x)] - D log 256,

and has little meaning before the second stage; the first stage logs the bound of the first VAE alone. The networks of the
second VAE have `second_stage_layers` layers of 1024 units with ReLU; their last layer also reads their inputs.

sigma and gamma are learned scalars, which start at `decoder_sigma` and 1. What the second VAE is for, a posterior with next to
no variance in the dimensions that the images need, comes only once sigma is as small as the error of reconstructions. In the
code of Dai and Wipf log sigma has the networks' rate: 1e-4, over 375,000 steps on MNIST. Here it has `sigma_rate` times
theirs, so that shorter first stages get there. On 10,000 images of Fashion-MNIST (networks of an eighth of the width, a
learning rate of 1e-4) sigma was 0.66 after 4,000 steps at a `sigma_rate` of 1, while the root mean squared error was 0.18; 0.28
(and 0.15) if it was set to that error once, after 200 steps; and 0.13 (and 0.13) at a rate of 10.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config import TwoStageVAEConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.autoencoders.variational import DEQUANTIZATION, LATENT, LOG_SCALES, VariationalAutoencoder, deviation
from tfcq.models.base import Array, Noise
from tfcq.networks.dense import Perceptron

tfd = tfp.distributions

_SECOND, _RESIDUAL = LATENT + 1, LATENT + 2  # tags of the draws


class TwoStageVAE(VariationalAutoencoder):
    """The two-stage VAE; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: TwoStageVAEConfig

    def __init__(
        self, config: TwoStageVAEConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "two_stage_vae"
    ):
        super().__init__(config, image_shape, seed, name)
        options: dict[str, Any] = {"units": config.second_stage_units, "layers": config.second_stage_layers, "input_skip": True}
        dim = config.latent_dim
        self.second_encoder = Perceptron(dim, 2 * dim, seed=seed + 2, name="second_encoder", **options)
        self.second_decoder = Perceptron(dim, dim, seed=seed + 3, name="second_decoder", **options)
        self.log_gamma = self.add_weight(name="log_gamma", shape=(), dtype="float32", initializer="zeros")
        self.built = True

    @property
    def gamma(self) -> tf.Tensor:
        """The standard deviation of latents given those of the second VAE, float32 []."""
        return deviation(self.log_gamma, self.config.sigma_rate)

    @property
    def stage_starts(self) -> tuple[int, ...]:
        return (0, self.config.first_stage_steps)

    def players(self) -> list[Player]:
        second = [*self.second_encoder.trainable_variables, *self.second_decoder.trainable_variables, self.log_gamma]
        return [
            Player("autoencoder", [Objective(self._loss, self.autoencoder_variables())]),
            Player("second_stage", [Objective(self._second_loss, second)], stage=1),
        ]

    # The second VAE.

    def _second_gaussian(self, latents):
        """q(u|z)."""
        mean, log_scale = tf.split(self.second_encoder(latents), 2, axis=-1)
        scale = tf.exp(tfp.math.clip_by_value_preserve_gradient(log_scale, *LOG_SCALES))
        return tfd.Independent(tfd.Normal(mean, scale), 1)

    def _latents_given(self, means):
        """p(z|u) for means from the second decoder."""
        gamma = tf.fill([tf.shape(means)[0], 1], self.gamma)  # one per row, like sigma
        return tfd.Independent(tfd.Normal(means, gamma), 1)

    def _second_terms(self, latents, noise):
        """-log p(z|u), KL(q(u|z) | p(u)) and log p(z|u) p(u) / q(u|z) of latents z, with one draw of u; [N] each, nats."""
        posterior, prior = self._second_gaussian(latents), self._standard_normal()
        drawn = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, _SECOND)
        reconstruction = -self._latents_given(self.second_decoder(drawn)).log_prob(latents)
        log_ratio = prior.log_prob(drawn) - posterior.log_prob(drawn) - reconstruction
        return reconstruction, tfd.kl_divergence(posterior, prior), log_ratio

    def _second_loss(self, images, noise, shared):
        posterior = self._gaussian(self.unit_pixels(images, noise.uniform(self.image_shape, DEQUANTIZATION)))
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        reconstruction, kl, _ = self._second_terms(latents, noise)
        logs = {"reconstruction": reconstruction, "kl": kl, "gamma": self.gamma}
        return Terms(reconstruction + kl, logs)

    # Both VAEs.

    trained_bound = "first_stage_elbo"

    def infer(
        self, pixels: tf.Tensor, noise: Noise, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """See `VariationalAutoencoder.infer`; in training for the first VAE alone, otherwise for both VAEs."""
        if training:
            return super().infer(pixels, noise, training)
        posterior = self._gaussian(pixels)
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        reconstruction, kl, log_ratio = self._second_terms(latents, noise)
        return latents, reconstruction + kl - posterior.entropy(), log_ratio - posterior.log_prob(latents), {}

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        temperature = tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])
        means = self.second_decoder(temperature * noise.normal(self.latent_shape, LATENT))
        residual = temperature * self.gamma * noise.normal(self.latent_shape, _RESIDUAL)
        return means + residual


MODEL = TwoStageVAE
