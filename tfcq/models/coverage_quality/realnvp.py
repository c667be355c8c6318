"""RealNVP by itself (Dinh, Sohl-Dickstein, Bengio 2017) and Flow-GAN (Grover, Dhar, Ermon 2018): the flow is the whole model.

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); z = f(l), z ~ N(0, I):

    log p(v) = log N(f(l); 0, I) + log|det dz/dv|            exact; log P(x8) = log E_u p(x8 + u), bounded by one u
    L_C = -E_u log p(x8 + u);    L_Q = -E_z[logit D(v(z))]   L_C + lambda L_Q (Flow-GAN's hybrid), or either alone

In CQF, L_Q only passes through the flow; here there is nothing else to train, so both losses train the flow.

Departures from the papers: Flow-GAN has a Wasserstein critic; here the discriminator, its penalty and the choice of losses are
CQF's, so that only the generator differs from CQF. With batch normalisation in the flow, sampling uses moving statistics;
ActNorm, the default, has none. Couplings, masks, squeezes, widths and the penalty on magnitudes are those of the program of
RealNVP's authors; its conditioners have 1x1 convolutions beside their blocks and read ReLU(x) and ReLU(-x), ours do not, and
`ImageFlow` and `ResidualConditioner` name the rest.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.config import RealNVPConfig
from tfcq.engine.players import Terms
from tfcq.models.base import Array, Noise, log_mean_exp
from tfcq.models.coverage_quality.flow_model import LATENT, FlowModel
from tfcq.randomness import RowNoise

tfd = tfp.distributions


class RealNVP(FlowModel):
    """RealNVP or Flow-GAN; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: RealNVPConfig

    def __init__(self, config: RealNVPConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "realnvp"):
        super().__init__(config, image_shape, config.discriminator_size, seed, name)
        self.latent_shape = self.image_shape
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "interpolate_noise", "likelihood", "encode", "decode", "reconstruct", "interpolate"})

    def coverage_variables(self) -> list[keras.Variable]:
        return self.flow.trainable_variables

    def quality_variables(self) -> list[keras.Variable]:
        return self.flow.trainable_variables

    # The model.

    def _prior(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.image_shape), 1.0), 3)

    def _density_terms(self, images: Array, noise: Noise, training: bool = False) -> dict[str, Array]:
        latents, log_det = self.features(images, noise, training)
        log_prior = self._prior().log_prob(latents)
        return {"elbo": log_prior + log_det, "log_prior": log_prior, "log_det": log_det}

    # The losses.

    def coverage_loss(self, images: tf.Tensor, noise: Noise, shared: Any) -> Terms:
        terms = self._density_terms(images, noise, training=True)
        return Terms(*self._with_penalty(-terms["elbo"], {}), self.bound_measures(terms))

    def generate_features(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return noise.normal(self.latent_shape, LATENT)

    # Abilities.

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C]; `temperature`, float or [N], scales the prior's deviation."""
        latents = noise.normal(self.latent_shape, LATENT)
        return self.decode(latents * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1, 1, 1]))

    def elbo_terms(self, images: Array, seeds: Array) -> dict[str, Array]:
        """log p(x8 + u) = log_prior + log_det with one u: exact for these pixels, a bound on log P(x8)."""
        return self._density_terms(images, RowNoise(seeds))

    def log_prob(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """log 1/K sum_k p(x8 + u_k), float32 [N], nats; K (int or scalar int tensor) draws of the dequantisation."""
        noise = RowNoise(seeds)

        def log_weight(k):
            return self._density_terms(images, noise.fold(k))["elbo"]

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])

    def encode(self, images: Array, seeds: Array) -> Array:
        """Latents float32 [N, H, W, C]; `seeds` decide the dequantisation."""
        return self.features(images, RowNoise(seeds))[0]

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C] of latents."""
        return units.quantize(self.pixels(latents))


MODEL = RealNVP
