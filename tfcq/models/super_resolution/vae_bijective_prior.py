"""The VAE with a bijective prior (Gatopoulos, Stol, Tomczak 2020): densely connected networks, RealNVP as prior.

    -ELBO = E_q[-log p(x|z)] + E_q[log q(z|x) - log p(z)]

with q(z|x) = N(mu(x), diag), z of shape [H/4, W/4, 16] in the paper, and p(x|z) a discretised logistic mixture.
"""

from __future__ import annotations

import tensorflow as tf

from tfcq.config import VAEBijectivePriorConfig
from tfcq.models.base import Array, Noise
from tfcq.models.super_resolution.logistic_vae import LogisticVAE
from tfcq.networks import dense_blocks
from tfcq.randomness import RowNoise

_LATENT, _IMAGE = 0, 1  # tags of the draws


class VAEBijectivePrior(LogisticVAE):
    """The VAE with a bijective prior; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C), see `LogisticVAE`.
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: VAEBijectivePriorConfig

    def __init__(
        self,
        config: VAEBijectivePriorConfig,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        name: str = "vae_bijective_prior",
    ):
        super().__init__(config, image_shape, seed, name)
        self.latent_shape = self.map_shape
        channels = config.latent_channels
        growth, steps = self.scaled(16, 8)
        self.encoder = dense_blocks.encoder(
            self.image_shape, 2 * channels, growth, steps, 2, seed=seed + 1, name="encoder"
        )
        growth, steps = self.scaled(128, 6)
        self.decoder = dense_blocks.decoder(
            self.map_shape, self.num_parameters_of(self.image_shape), growth, steps, 2, seed=seed + 2, name="decoder"
        )
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset({"sample", "interpolate_noise", "likelihood", "encode", "decode", "reconstruct", "interpolate"})

    def observe(self, images: Array) -> tuple[tf.Tensor, ...]:
        return (self.encoder(self.unit_values(images)),)

    def _posterior(self, images):
        return self.gaussian(self.observe(images)[0])

    def infer(self, images: Array, noise: Noise, observed: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        posterior = self.gaussian(observed[0])
        latents = self.drawn(posterior, noise, _LATENT)
        kl = posterior.log_prob(latents) - self.prior().log_prob(latents)
        return {"reconstruction": self.reconstruction_error(self.decoder(latents), images), "kl": kl}

    # Abilities.

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C]; see image_draw."""
        return self._image(self.draw_prior(noise, _LATENT, temperature), noise)

    def encode(self, images: Array, seeds: Array) -> Array:
        """The posteriors' means, float32 [N, *latent_shape]; `seeds` have no effect."""
        return self._posterior(images).mean()

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C]: the mixtures' modes, as there are no seeds for a draw."""
        return self._image(latents)

    def reconstruct(self, images: Array, seeds: Array) -> Array:
        """x' ~ p(x|z) with z ~ q(z|x), uint8 [N, H, W, C]; see image_draw."""
        noise = RowNoise(seeds)
        return self._image(self.drawn(self._posterior(images), noise, _LATENT), noise)

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        return self.prior_flow.inverse_and_log_det(latents)[0]

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        return self.prior_flow.forward_and_log_det(noise)[0]

    def _image(self, latents, noise=None):
        return self.image_of(self.decoder(latents), self.image_shape[-1], noise, _IMAGE)


MODEL = VAEBijectivePrior
