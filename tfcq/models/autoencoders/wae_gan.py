"""WAE-GAN (Tolstikhin et al. 2018; Xiao et al. 2019, Appendix B.3): an adversary tells latents from draws of the prior.

The adversary D, four fully connected layers of 512 with ReLU, has cross-entropy, prior 1 and latents 0; the encoder feels
-log D(E(x)), the non-saturating loss. The auto-encoder's turn is before the adversary's. The encoder sees pixels with a little
noise in training.
"""

import keras
import tensorflow as tf

from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.autoencoders.wasserstein import PIXELS, WassersteinAutoencoder
from tfcq.networks.dense import Perceptron

_ADVERSARY_LAYERS = 4


class WAEGAN(WassersteinAutoencoder):
    """See the module.

    Args:
        config: `tfcq.WAEGANConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="wae_gan"):
        super().__init__(config, image_shape, seed, name)
        self.adversary = Perceptron(
            config.latent_dim, 1, config.adversary_units, _ADVERSARY_LAYERS, seed=seed + 2, name="adversary"
        )
        self.built = True

    def players(self):
        objective = Objective(self._adversary_loss, self.adversary.trainable_variables)
        return [*super().players(), Player("discriminator", [objective], stage=self.main_stage)]

    def training_latents(self, images, noise):
        pixels = self.unit_pixels(images)
        noisy = pixels + self.config.input_noise * noise.normal(self.image_shape, PIXELS)
        return pixels, self.posterior_mean(noisy, training=True)

    def divergence(self, latents, noise):
        return tf.nn.softplus(-self.adversary(latents)[:, 0])

    def _adversary_loss(self, images, noise, shared):
        with keras.StatelessScope():  # the encoder's batch statistics were kept by its own turn
            _, latents = self.training_latents(images, noise)
        latent_logits, prior_logits = (self.adversary(one)[:, 0] for one in (latents, self.draw_prior(noise)))
        loss = tf.nn.softplus(-prior_logits) + tf.nn.softplus(latent_logits)
        return Terms(loss, {"latent_logits": latent_logits, "prior_logits": prior_logits})


MODEL = WAEGAN
