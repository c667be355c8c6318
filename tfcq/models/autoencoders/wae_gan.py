"""WAE-GAN (Tolstikhin et al. 2018; Xiao et al. 2019, Appendix B.3): an adversary distinguishes latents from draws of the prior.

The adversary D has four fully connected layers of 512 units with ReLU. Its loss is the cross-entropy, with labels 1 for the
prior and 0 for latents; the encoder's is -log D(E(x)), the non-saturating loss. The auto-encoder's turn is before the
adversary's. In training the encoder gets pixels with a little noise.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tfcq.config import WAEGANConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.autoencoders.wasserstein import PIXELS, WassersteinAutoencoder
from tfcq.models.base import Noise
from tfcq.networks.dense import Perceptron

_ADVERSARY_LAYERS = 4


class WAEGAN(WassersteinAutoencoder):
    """WAE-GAN; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: WAEGANConfig

    def __init__(self, config: WAEGANConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "wae_gan"):
        super().__init__(config, image_shape, seed, name)
        self.adversary = Perceptron(
            config.latent_dim, 1, config.adversary_units, _ADVERSARY_LAYERS, seed=seed + 2, name="adversary"
        )
        self.built = True

    def players(self) -> list[Player]:
        objective = Objective(self._adversary_loss, self.adversary.trainable_variables)
        return [*super().players(), Player("discriminator", [objective], stage=self.main_stage)]

    def training_latents(self, images: tf.Tensor, noise: Noise) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = self.unit_pixels(images)
        noisy = pixels + self.config.input_noise * noise.normal(self.image_shape, PIXELS)
        return pixels, self.posterior_mean(noisy, training=True)

    def divergence(self, latents: tf.Tensor, noise: Noise) -> tf.Tensor:
        return tf.nn.softplus(-self.adversary(latents)[:, 0])

    def _adversary_loss(self, images, noise, shared):
        with keras.StatelessScope():  # the encoder's own turn has updated its batch statistics
            _, latents = self.training_latents(images, noise)
        latent_logits, prior_logits = (self.adversary(one)[:, 0] for one in (latents, self.draw_prior(noise)))
        loss = tf.nn.softplus(-prior_logits) + tf.nn.softplus(latent_logits)
        return Terms(loss, {"latent_logits": latent_logits, "prior_logits": prior_logits})


MODEL = WAEGAN
