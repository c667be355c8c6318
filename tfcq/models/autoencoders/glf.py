"""GLF: generative latent flow (Xiao, Yan, Amit 2019).

An auto-encoder z = E(x), x' = G(z), and a flow f from latents to noise, trained together:

    L = beta |x - G(E(x))|^2 + NLL(stop_gradient(E(x)))                                             (Eq. 2)
    NLL(z) = |f(z)|^2 / 2 + d/2 log 2 pi - log|det df/dz|                                           (Eq. 1)

With the stop-gradient the auto-encoder and the flow do not affect each other, and beta has no effect. `regularized` leaves the
stop-gradient out: the encoder then makes its latents ever smaller, because that alone raises their density (Section 3.3). To
sample: noise, f^-1, G. With `first_stage_steps` the auto-encoder is trained first, then the flow.

The flow is a density of latents. It has no meaning for images that the decoder cannot generate, so there is no likelihood.

With classes (`--class_conditional`, not in the paper) the flow depends on the image's class y: NLL(z | y). Auto-encoder and noise
do not, so what an image is and how it is decoded stay the same, and a class is where its latents are.

Departures from the paper: couplings scale and shift in the direction from noise to latents, the paper's in the other direction;
their log-scale is limited (`tfcq.flows.latent_flow`); in the second of two stages the encoder's batch normalisation uses its
moving statistics. The authors' code gives the flow an Adam of its own and batch normalisation, of which the paper does not
speak: `latent_flow_optimizer`, `latent_flow_normalization`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from tfcq.models.class_conditional import ClassConditional

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

_LATENT = 0  # tag of the draws


class GLF(ClassConditional, Autoencoder):
    """GLF; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
        classes: {name of a class: its probability}, with `class_conditional`; None: without classes.
    """

    config: GLFConfig
    encoder: keras.Sequential

    def __init__(
        self,
        config: GLFConfig,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        name: str = "glf",
        classes: Mapping[str, float] | None = None,
    ):
        super().__init__(config, image_shape, seed, name)
        self.set_classes(classes)
        self.flow = LatentFlow.of(config, seed + 2, len(self.class_names))
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
        pixels = self.unit_pixels(self.unpacked(images)[0])
        latents = self.posterior_mean(pixels, training=True)
        return self._reconstruction_terms(pixels, latents)

    def _flow_loss(self, images, noise, shared):
        images, condition = self.unpacked(images)
        return self._flow_terms(self.posterior_mean(self.unit_pixels(images)), condition)

    def _loss(self, images, noise, shared):
        images, condition = self.unpacked(images)
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels, training=True)
        rebuilt = self._reconstruction_terms(pixels, latents)
        likelihood = self._flow_terms(latents if self.config.regularized else tf.stop_gradient(latents), condition)
        logs, measures = rebuilt.logs | likelihood.logs, rebuilt.measures | likelihood.measures
        return Terms(rebuilt.total + likelihood.total, logs, measures)

    def _reconstruction_terms(self, pixels, latents):
        error = self.reconstruction_error(pixels, self.decoder(latents, training=True))
        scale = tf.reduce_mean(tf.square(latents), axis=-1)
        measures = {self.reconstruction_error.name: error}
        return Terms(self.config.reconstruction_weight * error, {"latents_mean_square": scale}, measures)

    def _flow_terms(self, latents, condition):
        log_prob = self.flow.distribution(training=True, condition=condition).log_prob(latents)
        decay = weight_decay(self.flow, self.config.latent_flow_weight_decay)
        logs = {"latent_flow_weight_decay": decay}
        if condition is not None:  # a validation measures the density of all classes together
            return Terms(decay - log_prob, logs | {"latent_log_prob_given_class": log_prob})
        return Terms(decay - log_prob, logs, {"latent_log_prob": log_prob})

    # Abilities.

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return self.marginal(lambda condition: self._density(latents, condition), latents)

    def log_prob_given(
        self, images: Array, seeds: Array, num_importance_samples: int | Array, condition: tf.Tensor | None
    ) -> tf.Tensor:
        return self._density(self.encode(images, seeds), condition)

    def log_prob_given_each(self, images: Array, seeds: Array, num_importance_samples: int | Array) -> tf.Tensor:
        latents = self.encode(images, seeds)  # once: the encoder does not read the class
        return self.given_each_class(lambda condition: self._density(latents, condition), latents)

    def _density(self, latents, condition):
        """log p(latents | class), float32 [N]."""
        return self.flow.distribution(condition=condition).log_prob(latents)

    def draw_latents(
        self, noise: Noise, temperature: float | Array = 1.0, condition: tf.Tensor | None = None
    ) -> tf.Tensor:
        drawn = noise.normal(self.latent_shape, _LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])
        return self.flow.bijector(condition=condition).forward(drawn)

    def draw_given(self, noise: Noise, temperature: float | Array, condition: tf.Tensor | None) -> Array:
        return self.decode(self.draw_latents(noise, temperature, condition))

    # With classes, noise and latents belong together only given one, which whoever interpolates does not give: paths are then
    # those of the latents themselves.

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        return latents if self.class_names else self.flow.bijector().inverse(latents)

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        return noise if self.class_names else self.flow.bijector().forward(noise)


MODEL = GLF
