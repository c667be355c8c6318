"""The base of the Wasserstein auto-encoders WAE-GAN and WAE-MMD (Tolstikhin et al. 2018; Xiao et al. 2019, Appendix B.3).

    L = w |x - G(E(x))|^2 + lambda D(latents, prior),    prior N(0, sigma^2 I)

with a deterministic E, pixels x in [0, 1], and the square summed over an image. The paper writes w = 1; its authors' code
(wae.py and configs.py of github.com/tolstikhin/wae), which has their lambda of 10, has w = 0.05, for pixels in [0, 1] on MNIST
and in [-1, 1] on CelebA (w = 0.2 here). First, for `pretraining_steps`, only the encoder is trained, to bring the mean and the
covariance of a batch's latents close to the prior's. There is a density of latents, the prior's, but no likelihood of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config.wasserstein import WAEOptions
from tfcq.engine.players import Objective, Player, Terms
from tfcq.engine.trainer import of_all_replicas
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.models.base import Array, Noise

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

tfd = tfp.distributions

PRIOR, PIXELS, LATENT = 0, 1, 2
"""Tags of the draws."""


class WassersteinAutoencoder(Autoencoder):
    """Base of both. A system defines `divergence(latents, noise)` and may add players.

    Args:
        config: the configuration of the system.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: WAEOptions
    encoder: keras.Sequential

    def __init__(self, config: WAEOptions, image_shape: tuple[int, int, int], seed: int, name: str):
        super().__init__(config, image_shape, seed, name)
        self.reconstruction_error = ReconstructionError(config)

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | {"latent_likelihood"}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        steps = 0 if self.starts_trained else self.config.pretraining_steps
        return (0, steps) if steps else (0,)

    @property
    def main_stage(self) -> int:
        """The number of the stage after the pre-training."""
        return len(self.stage_starts) - 1

    @property
    def files_read(self) -> dict[str, str]:
        return self.reconstruction_error.files_read

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        self.reconstruction_error.load()

    def players(self) -> list[Player]:
        autoencoder = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        main = Player("autoencoder", [Objective(self._loss, autoencoder)], stage=self.main_stage)
        if not self.main_stage:
            return [main]
        pretraining = Objective(self._moments_loss, self.encoder.trainable_variables)
        return [Player("pretraining", [pretraining]), main]

    def divergence(self, latents: tf.Tensor, noise: Noise) -> tf.Tensor:
        """D: the divergence of latents, float32 [N, latent_dim], from draws of the prior; float32 [N] or a scalar."""
        raise NotImplementedError

    def training_latents(self, images: tf.Tensor, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
        """The pixels of images and their latents, in training."""
        pixels = self.unit_pixels(images)
        return pixels, self.posterior_mean(pixels, training=True)

    def draw_prior(self, noise: Noise, tag: int = PRIOR) -> tf.Tensor:
        """Draws from the prior, float32 [N, latent_dim]."""
        return self.config.prior_sigma * noise.normal(self.latent_shape, tag)

    def _loss(self, images, noise, shared):
        pixels, latents = self.training_latents(images, noise)
        error = self.reconstruction_error(pixels, self.decoder(latents, training=True))
        divergence = self.divergence(latents, noise)
        total = self.config.error_weight * error + self.config.divergence_weight * divergence
        return Terms(total, {"divergence": divergence}, {self.reconstruction_error.name: error})

    def _moments_loss(self, images, noise, shared):
        """Squared differences between the means and covariances of a batch's latents and of as many draws of the prior."""
        _, latents = self.training_latents(images, noise)
        mean, covariance = _moments(latents)
        prior_mean, prior_covariance = _moments(self.draw_prior(noise))
        loss = tf.reduce_mean(tf.square(mean - prior_mean)) + tf.reduce_mean(tf.square(covariance - prior_covariance))
        return Terms(tf.fill([tf.shape(latents)[0]], loss), {})

    # Abilities.

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        prior = tfd.Normal(tf.zeros(self.latent_shape), self.config.prior_sigma)
        return tfd.Independent(prior, 1).log_prob(latents)

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        return self.draw_prior(noise, LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])


def _moments(rows):
    rows = of_all_replicas(rows)
    mean = tf.reduce_mean(rows, axis=0)
    centred = rows - mean
    return mean, tf.matmul(centred, centred, transpose_a=True) / tf.cast(tf.shape(rows)[0] - 1, tf.float32)
