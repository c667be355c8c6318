"""srVAE (Gatopoulos, Stol, Tomczak 2020): models a compressed image y = d(x), then the image x given y.

    generation                 u ~ p(u), y ~ p(y|u), z ~ p(z|y, u), x ~ p(x|y, z)
    conditional generation     u ~ q(u|y), z ~ p(z|y, u), x ~ p(x|y, z)                    (super-resolution)
    reconstruction             y = d(x), z ~ q(z|x), x' ~ p(x|y, z)
    generative reconstruction  u ~ q(u|d(x)), y ~ p(y|u), z ~ p(z|y, u), x' ~ p(x|y, z)

    -ELBO = E_q[-log p(x|y, z)] + E_q[-log p(y|u)] + E_q[log q(z|x) - log p(z|y, u)] + E_q[log q(u|y) - log p(u)]

d is fixed: half the side, antialiased, or the luminance, with 8 bits. p(z|y, u) uses the true y in training; without a true y, it
uses the generated one. Since y is a function of x, this is a bound of log P(x).
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from tfcq import images as units
from tfcq.config import SRVAEConfig
from tfcq.errors import UserError
from tfcq.models.base import Array, Noise
from tfcq.models.interpolation import between
from tfcq.models.super_resolution.logistic_vae import LogisticVAE
from tfcq.networks import dense_blocks
from tfcq.randomness import RowNoise

_OUTER, _INNER, _COMPRESSED, _IMAGE = 0, 1, 2, 4  # tags of the draws: u, z, y (two), x (two)


class SRVAE(LogisticVAE):
    """srVAE; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C), see `LogisticVAE`.
        seed: seed of the weights and of the noise of training.
        name: name of the model.

    Raises:
        UserError: images of another size or number of channels, or compression=grey with grey images.
    """

    config: SRVAEConfig

    def __init__(self, config: SRVAEConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "srvae"):
        super().__init__(config, image_shape, seed, name)
        height, width, channels = self.image_shape
        if config.compression == "grey" and channels == 1:
            raise UserError("compression=grey with grey images: the compressed image would be the image; expected downscale")
        downscaled = config.compression == "downscale"
        self.compressed_shape = (height // 2, width // 2, channels) if downscaled else (height, width, 1)
        halvings = 1 if downscaled else 2  # from y to the latents
        latents = config.latent_channels
        self.latent_shape = (*self.map_shape[:2], 2 * latents)

        parts: list[keras.Sequential] = []

        def part(
            make: Callable[..., keras.Sequential],
            inputs_shape: tuple[int, ...],
            outputs: int,
            growth: int,
            steps: int,
            count: int,
            name: str,
        ) -> keras.Sequential:
            """The next network; `count` is its number of halvings, doublings or blocks."""
            growth, steps = self.scaled(growth, steps)
            parts.append(make(inputs_shape, outputs, growth, steps, count, seed=seed + 1 + len(parts), name=name))
            return parts[-1]

        small, full = self.compressed_shape, self.image_shape
        self.outer_encoder = part(dense_blocks.encoder, small, 2 * latents, 64, 3, halvings, name="outer_encoder")
        self.compressed_decoder = part(
            dense_blocks.decoder, self.map_shape, self.num_parameters_of(small), 128, 4, halvings, name="compressed_decoder"
        )
        self.inner_encoder = part(dense_blocks.encoder, full, 2 * latents, 16, 4, 2, name="inner_encoder")
        self.prior_of_compressed = part(dense_blocks.encoder, small, latents, 32, 5, halvings, name="prior_of_compressed")
        self.prior_of_outer = part(dense_blocks.network, self.map_shape, latents, 64, 3, 3, name="prior_of_outer")
        self.inner_prior = part(dense_blocks.network, self.latent_shape, 2 * latents, 64, 3, 3, name="inner_prior")
        outputs = self.num_parameters_of(full)
        self.inner_decoder = part(dense_blocks.decoder, self.map_shape, outputs, 64, 8, 2, name="inner_decoder")
        both = (height, width, outputs + small[-1])
        self.image_decoder = part(dense_blocks.network, both, outputs, 64, 5, 3, name="image_decoder")
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        more = {"encode", "decode", "reconstruct", "interpolate", "super_resolve", "generative_reconstruct"}
        return frozenset({"sample", "interpolate_noise", "likelihood"} | more)

    def compress(self, images: Array) -> tf.Tensor:
        """d: uint8 [N, H, W, C] to the compressed images, uint8 [N, *compressed_shape]."""
        return units.halve(images) if self.config.compression == "downscale" else units.luminance(images)

    # The distributions.

    def _outer_posterior(self, compressed):
        """q(u|y)."""
        return self.gaussian(self.outer_encoder(self.unit_values(compressed)))

    def _inner_posterior(self, images):
        """q(z|x)."""
        return self.gaussian(self.inner_encoder(self.unit_values(images)))

    def _inner_prior(self, of_compressed, outer):
        """p(z|y, u), given `_of_compressed` y."""
        joint = tf.concat([of_compressed, self.prior_of_outer(outer)], axis=-1)
        return self.gaussian(self.inner_prior(joint))

    def _of_compressed(self, compressed):
        """The features of y that p(z|y, u) uses."""
        return tf.nn.elu(self.prior_of_compressed(self.unit_values(compressed)))

    def _image_parameters(self, compressed, inner):
        """The parameters of p(x|y, z)."""
        larger = tf.image.resize(self.unit_values(compressed), self.image_shape[:2], method="bilinear")
        return self.image_decoder(tf.concat([larger, self.inner_decoder(inner)], axis=-1))

    def observe(self, images: Array) -> tuple[tf.Tensor, ...]:
        compressed = self.compress(images)
        outer, inner = self.outer_encoder(self.unit_values(compressed)), self.inner_encoder(self.unit_values(images))
        return compressed, outer, inner, self._of_compressed(compressed)

    def infer(self, images: Array, noise: Noise, observed: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        compressed, of_outer, of_inner, of_compressed = observed
        outer_posterior, inner_posterior = self.gaussian(of_outer), self.gaussian(of_inner)
        outer, inner = self.drawn(outer_posterior, noise, _OUTER), self.drawn(inner_posterior, noise, _INNER)
        inner_prior = self._inner_prior(of_compressed, outer)
        return {
            "reconstruction_x": self.reconstruction_error(self._image_parameters(compressed, inner), images),
            "reconstruction_y": self.reconstruction_error(self.compressed_decoder(outer), compressed),
            "kl_z": inner_posterior.log_prob(inner) - inner_prior.log_prob(inner),
            "kl_u": outer_posterior.log_prob(outer) - self.prior().log_prob(outer),
        }

    # Abilities.

    def draw_images(self, noise: Noise, temperature: float | Array = 1.0) -> Array:
        """Images uint8 [N, H, W, C]; `temperature` scales the noise of u and z."""
        return self.draw_stages(noise, temperature)[1]

    def draw_stages(self, noise: Noise, temperature: float | Array = 1.0) -> tuple[tf.Tensor, Array]:
        """Both stages of `draw_images`: y, uint8 [N, *compressed_shape], and x (the paper's Fig. 7)."""
        outer = self.draw_prior(noise, _OUTER, temperature)
        compressed = self._compressed(outer, noise)
        return compressed, self._image_given(compressed, outer, noise, temperature)

    def interpolate_outer(self, images: Array, other_images: Array, share: Array, spherical: Array) -> Array:
        """Images uint8 [N, H, W, C] of u alone, on the path between two images in the space of its noise, as of `interpolate`.

        The rest is not drawn: y is the mode of p(y|u), z the mean of p(z|y, u), x the mode of p(x|y, z).
        """

        def noise_of_outer(given):
            return self.prior_flow.inverse_and_log_det(self._outer_posterior(self.compress(given)).mean())[0]

        path = between(noise_of_outer(images), noise_of_outer(other_images), share, spherical)
        noise = tf.concat([path, tf.zeros_like(path)], axis=-1)
        return self.decode(self.latents_of(noise))

    def super_resolve(self, compressed: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] given compressed images, uint8 [N, *compressed_shape]."""
        noise = RowNoise(seeds)
        outer = self.drawn(self._outer_posterior(compressed), noise, _OUTER)
        return self._image_given(compressed, outer, noise)

    def reconstruct(self, images: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] given each image's compressed image and z ~ q(z|x)."""
        noise = RowNoise(seeds)
        inner = self.drawn(self._inner_posterior(images), noise, _INNER)
        return self._image(self.compress(images), inner, noise)

    def generative_reconstruct(self, images: Array, seeds: Array) -> Array:
        """Images uint8 [N, H, W, C] given only u ~ q(u|y); y and z are generated."""
        noise = RowNoise(seeds)
        outer = self.drawn(self._outer_posterior(self.compress(images)), noise, _OUTER)
        return self._image_given(self._compressed(outer, noise), outer, noise)

    def encode(self, images: Array, seeds: Array) -> Array:
        """The means of u and z, float32 [N, *latent_shape], u first; `seeds` have no effect."""
        means = self._outer_posterior(self.compress(images)).mean(), self._inner_posterior(images).mean()
        return tf.concat(means, axis=-1)

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C] of u and z: the modes of the mixtures, also for y, which depends on u alone."""
        outer, inner = tf.split(latents, 2, axis=-1)
        return self._image(self._compressed(outer), inner)

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        """The noise of u's flow and of p(z|y, u), concatenated; y is that of `decode`."""
        outer, inner = tf.split(latents, 2, axis=-1)
        prior = self._inner_prior(self._of_compressed(self._compressed(outer)), outer)
        noise = self.prior_flow.inverse_and_log_det(outer)[0], (inner - prior.mean()) / prior.stddev()
        return tf.concat(noise, axis=-1)

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        """The inverse of `noise_of`."""
        of_outer, of_inner = tf.split(noise, 2, axis=-1)
        outer = self.prior_flow.forward_and_log_det(of_outer)[0]
        prior = self._inner_prior(self._of_compressed(self._compressed(outer)), outer)
        return tf.concat([outer, prior.mean() + prior.stddev() * of_inner], axis=-1)

    def _compressed(self, outer, noise=None):
        """y ~ p(y|u), uint8; its mode without noise."""
        return self.image_of(self.compressed_decoder(outer), self.compressed_shape[-1], noise, _COMPRESSED)

    def _image_given(self, compressed, outer, noise, temperature=1.0):
        """x ~ p(x|y, z) with z ~ p(z|y, u), uint8."""
        inner = self.drawn(self._inner_prior(self._of_compressed(compressed), outer), noise, _INNER, temperature)
        return self._image(compressed, inner, noise)

    def _image(self, compressed, inner, noise=None):
        """x ~ p(x|y, z), uint8; its mode without noise."""
        return self.image_of(self._image_parameters(compressed, inner), self.image_shape[-1], noise, _IMAGE)


MODEL = SRVAE
