"""What GLF's family and the introspective VAEs share: an auto-encoder of latent vectors, and how to draw latents.

Pixels are x = (x8 + u) / 256 in [0, 1): u ~ U[0, 1) where the model is a density of images, else u = 1/2. The decoder of GLF's
family (Xiao et al. 2019) ends in a sigmoid, IntroVAE's in nothing. A system says how latents are drawn, and perhaps how likely
they are.
"""

import tensorflow as tf

from tfcq import images as units
from tfcq.models.base import GenerativeModel
from tfcq.networks import infogan
from tfcq.randomness import RowNoise

LEVELS = 256.0
"""Pixels of [0, 256) are divided by it."""


class Autoencoder(GenerativeModel):
    """Base of the family.

    Args:
        config: `AutoencoderOptions` of the system.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
        name: of the model.
        encoder_outputs: values that the encoder gives an image; None: a latent vector; 0: there is no encoder.
    """

    def __init__(self, config, image_shape, seed, name, encoder_outputs=None):
        super().__init__(image_shape, seed, name)
        self.config = config
        self.latent_shape = (config.latent_dim,)
        outputs = config.latent_dim if encoder_outputs is None else encoder_outputs
        self.encoder, self.decoder = self.make_networks(outputs, seed)

    def make_networks(self, outputs, seed):
        """(encoder, or None for 0 outputs, decoder); those of the paper by default."""
        config = self.config
        options = {"width": config.autoencoder_width, "hidden_units": config.hidden_units}
        encoder = infogan.encoder(self.image_shape, outputs, seed=seed, **options) if outputs else None
        return encoder, infogan.decoder(self.image_shape, config.latent_dim, seed=seed + 1, **options)

    @property
    def abilities(self):
        both = {"sample", "decode"}
        return frozenset(both | {"encode", "reconstruct", "interpolate"} if self.encoder else both)

    # What a system offers.

    def draw_latents(self, noise, temperature=1.0):
        """Latents of new images, float32 [N, latent_dim]; `temperature`, float or [N], scales the prior's deviation."""
        raise NotImplementedError

    def latent_log_prob(self, latents):
        """log p(latents), float32 [N], nats; the systems with the ability "latent_likelihood"."""
        raise self.cannot("latent_likelihood")

    def posterior_mean(self, pixels, training=False):
        """Latents float32 [N, latent_dim] of pixels float32 [N, H, W, C] in [0, 1): those that `encode` gives."""
        return self.encoder(pixels, training=training)

    # What follows from it.

    @staticmethod
    def unit_pixels(images, noise=0.5):
        """Pixels in [0, 1), float32, of images uint8 [N, H, W, C]; `noise` in [0, 1) is added to the 8-bit values."""
        return units.dequantize(images, noise) / LEVELS

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C] of drawn latents."""
        return self.decode(self.draw_latents(RowNoise(seeds), temperature))

    def encode(self, images, seeds):
        """Latents float32 [N, latent_dim]; nothing is random in them, so `seeds` decide nothing."""
        return self.posterior_mean(self.unit_pixels(images))

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of latents."""
        return units.quantize(LEVELS * self.decoder(latents))

    def latent_likelihood(self, images, seeds):
        """What can be said of an image by a model that is no density of images.

        Args:
            images: uint8 [N, H, W, C].
            seeds: int32 [N, 2]; they decide nothing here.

        Returns:
            {"latent_log_prob": log p(z) of the image's latents, nats, "reconstruction_error": the squares of the differences
            to the reconstruction, pixels in [0, 1], summed}, float32 [N] each.
        """
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels)
        error = tf.reduce_sum(tf.square(pixels - self.decoder(latents)), [1, 2, 3])
        return {"latent_log_prob": self.latent_log_prob(latents), "reconstruction_error": error}
