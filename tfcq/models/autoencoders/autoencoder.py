"""The base of GLF's family and of the introspective VAEs: an auto-encoder with latent vectors.

Pixels are x = (x8 + u) / 256 in [0, 1), with u ~ U[0, 1) if the model is a density of images, and u = 1/2 otherwise. The decoder
of GLF's family (Xiao et al. 2019) ends with a sigmoid, IntroVAE's without an activation. A system defines how latents are drawn
and, if it has the ability "latent_likelihood", their density.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfcq import images as units
from tfcq.models.base import Array, GenerativeModel, Noise
from tfcq.networks import dcgan, infogan

LEVELS = 256.0
"""The number of 8-bit values: pixels in [0, 256) are divided by it."""


class Autoencoder(GenerativeModel):
    """Base of these systems.

    Args:
        config: the configuration of the system, which has `AutoencoderOptions` or `IntrospectiveOptions`.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
        encoder_outputs: number of values that the encoder computes for an image; None: that of a latent vector; 0: there is
            no encoder.
    """

    def __init__(
        self, config: Any, image_shape: tuple[int, int, int], seed: int, name: str, encoder_outputs: int | None = None
    ):
        super().__init__(image_shape, seed, name)
        self.config = config
        self.latent_shape = (config.latent_dim,)
        outputs = config.latent_dim if encoder_outputs is None else encoder_outputs
        self.encoder, self.decoder = self.make_networks(outputs, seed)

    def make_networks(self, outputs: int, seed: int) -> tuple[keras.Sequential | None, keras.Sequential]:
        """Makes the encoder (None for 0 outputs) and the decoder; by default those of GLF's paper."""
        config = self.config
        if config.autoencoder_network == "dcgan":
            encoder = dcgan.encoder(self.image_shape, outputs, config.autoencoder_width, seed) if outputs else None
            return encoder, dcgan.decoder(self.image_shape, config.latent_dim, config.autoencoder_width, seed + 1)
        options = {"width": config.autoencoder_width, "hidden_units": config.hidden_units}
        encoder = infogan.encoder(self.image_shape, outputs, seed=seed, **options) if outputs else None
        return encoder, infogan.decoder(self.image_shape, config.latent_dim, seed=seed + 1, **options)

    @property
    def abilities(self) -> frozenset[str]:
        both = {"sample", "interpolate_noise", "decode"}
        return frozenset(both | {"encode", "reconstruct", "interpolate"} if self.encoder else both)

    # Hooks that a system defines.

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        """Draws latents of new images, float32 [N, latent_dim]; `temperature`, float or [N], scales the prior's deviation."""
        raise NotImplementedError

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        """log p(latents), float32 [N], nats, for systems with the ability "latent_likelihood"."""
        raise self.cannot("latent_likelihood")

    def posterior_mean(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The latents that `encode` returns, float32 [N, latent_dim], of pixels float32 [N, H, W, C] in [0, 1)."""
        if self.encoder is None:
            raise self.cannot("encode")
        return self.encoder(pixels, training=training)

    # What follows from them.

    @staticmethod
    def unit_pixels(images: Array, noise: float | tf.Tensor = 0.5) -> tf.Tensor:
        """Pixels float32 in [0, 1) of images uint8 [N, H, W, C]; `noise` in [0, 1) is added to the 8-bit values."""
        return units.dequantize(images, noise) / LEVELS

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C] decoded from drawn latents."""
        return self.decode(self.draw_latents(noise, temperature))

    def encode(self, images: Array, seeds: Array) -> Array:
        """Latents float32 [N, latent_dim]; they are deterministic, so `seeds` have no effect."""
        return self.posterior_mean(self.unit_pixels(images))

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C] of latents."""
        return units.quantize(LEVELS * self.decoder(latents))

    def latent_likelihood(self, images: Array, seeds: Array) -> dict[str, Array]:
        """The density of an image's latents and its reconstruction error, for a model without a density of images.

        Args:
            images: uint8 [N, H, W, C].
            seeds: int32 [N, 2]; they have no effect here.

        Returns:
            {"latent_log_prob": log p(z) of the image's latents, nats, "reconstruction_error": the sum of squared differences
            from the reconstruction, of pixels in [0, 1]}, float32 [N] each.
        """
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels)
        error = tf.reduce_sum(tf.square(pixels - self.decoder(latents)), [1, 2, 3])
        return {"latent_log_prob": self.latent_log_prob(latents), "reconstruction_error": error}
