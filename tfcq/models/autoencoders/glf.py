"""GLF: generative latent flow (Xiao, Yan, Amit 2019).

An auto-encoder z = E(x), x' = G(z), and a flow f from latents to noise, trained together:

    L = beta |x - G(E(x))|^2 + NLL(stop_gradient(E(x)))                                             (Eq. 2)
    NLL(z) = |f(z)|^2 / 2 + d/2 log 2 pi - log|det df/dz|                                           (Eq. 1)

With the stop-gradient the auto-encoder and the flow do not affect each other, and beta has no effect. `regularized` leaves the
stop-gradient out: the encoder then makes its latents ever smaller, because that alone raises their density (Section 3.3). To
sample: noise, f^-1, G. With `first_stage_steps` the auto-encoder is trained first, then the flow.

The flow is a density of latents. It has no meaning for images that the decoder cannot generate, so there is no likelihood.

Departures from the paper: couplings scale and shift in the direction from noise to latents, the paper's in the other direction;
their log-scale is limited (`tfcq.flows.latent_flow`); in the second of two stages the encoder's batch normalisation uses its
moving statistics. The authors' code gives the flow an Adam of its own and batch normalisation, of which the paper does not
speak: `latent_flow_optimizer`, `latent_flow_normalization`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tfcq.config import GLFConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.flows.latent_flow import LatentFlow, weight_decay
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.autoencoders.flow_optimizer import optimizer_groups
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.models.base import Array, Noise

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

_LATENT = 0  # tag of the draws


class GLF(Autoencoder):
    """GLF; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: GLFConfig
    encoder: keras.Sequential

    def __init__(self, config: GLFConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "glf"):
        super().__init__(config, image_shape, seed, name)
        self.flow = LatentFlow.of(config, seed + 2)
        self.reconstruction_error = ReconstructionError(config)
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | {"latent_likelihood"}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        return (0, self.config.first_stage_steps) if self.config.first_stage_steps else (0,)

    @property
    def files_read(self) -> dict[str, str]:
        return self.reconstruction_error.files_read

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        self.reconstruction_error.load()

    def players(self) -> list[Player]:
        autoencoder = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        flow, groups = self.flow.trainable_variables, optimizer_groups(self.flow, self.config)
        if self.config.first_stage_steps:
            return [
                Player("autoencoder", [Objective(self._reconstruction_loss, autoencoder)]),
                Player("flow", [Objective(self._flow_loss, flow)], stage=1, groups=groups),
            ]
        return [Player("autoencoder", [Objective(self._loss, autoencoder + flow)], groups=groups)]

    # The losses.

    def _reconstruction_loss(self, images, noise, shared):
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels, training=True)
        return self._reconstruction_terms(pixels, latents)

    def _flow_loss(self, images, noise, shared):
        return self._flow_terms(self.posterior_mean(self.unit_pixels(images)))

    def _loss(self, images, noise, shared):
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels, training=True)
        rebuilt = self._reconstruction_terms(pixels, latents)
        likelihood = self._flow_terms(latents if self.config.regularized else tf.stop_gradient(latents))
        logs, measures = rebuilt.logs | likelihood.logs, rebuilt.measures | likelihood.measures
        return Terms(rebuilt.total + likelihood.total, logs, measures)

    def _reconstruction_terms(self, pixels, latents):
        error = self.reconstruction_error(pixels, self.decoder(latents, training=True))
        scale = tf.reduce_mean(tf.square(latents), axis=-1)
        measures = {self.reconstruction_error.name: error}
        return Terms(self.config.reconstruction_weight * error, {"latents_mean_square": scale}, measures)

    def _flow_terms(self, latents):
        log_prob = self.flow.distribution(training=True).log_prob(latents)
        decay = weight_decay(self.flow, self.config.latent_flow_weight_decay)
        return Terms(decay - log_prob, {"latent_flow_weight_decay": decay}, {"latent_log_prob": log_prob})

    # Abilities.

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return self.flow.distribution().log_prob(latents)

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        drawn = noise.normal(self.latent_shape, _LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])
        return self.latents_of(drawn)

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        return self.flow.bijector().inverse(latents)

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        return self.flow.bijector().forward(noise)


MODEL = GLF
