"""srVAE (Gatopoulos, Stol, Tomczak 2020): a compressed image y = d(x) first, then the image given it.

    generation                 u ~ p(u), y ~ p(y|u), z ~ p(z|y, u), x ~ p(x|y, z)
    conditional generation     u ~ q(u|y), z ~ p(z|y, u), x ~ p(x|y, z)                    (super-resolution)
    reconstruction             y = d(x), z ~ q(z|x), x' ~ p(x|y, z)
    generative reconstruction  u ~ q(u|d(x)), y ~ p(y|u), z ~ p(z|y, u), x' ~ p(x|y, z)

    -ELBO = E_q[-log p(x|y, z)] + E_q[-log p(y|u)] + E_q[log q(z|x) - log p(z|y, u)] + E_q[log q(u|y) - log p(u)]

d is fixed: half the side, antialiased, or the luminance, of 8 bits. p(z|y, u) sees the true y in training and the generated one
where there is no other. Since y follows from x, the bound is one of log P(x).
"""

import tensorflow as tf

from tfcq import images as units
from tfcq.errors import UserError
from tfcq.models.super_resolution.logistic_vae import LogisticVAE
from tfcq.networks import dense_blocks
from tfcq.randomness import RowNoise

_OUTER, _INNER, _COMPRESSED, _IMAGE = 0, 1, 2, 4  # tags of the draws: u, z, y (two), x (two)


class SRVAE(LogisticVAE):
    """See the module.

    Args:
        config: `tfcq.SRVAEConfig`.
        image_shape: (H, W, C), see `LogisticVAE`.
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="srvae"):
        super().__init__(config, image_shape, seed, name)
        height, width, channels = self.image_shape
        if config.compression == "grey" and channels == 1:
            raise UserError("compression=grey with grey images: the compressed image would be the image; expected downscale")
        downscaled = config.compression == "downscale"
        self.compressed_shape = (height // 2, width // 2, channels) if downscaled else (height, width, 1)
        halvings = 1 if downscaled else 2  # from y to the latents
        latents = config.latent_channels
        self.latent_shape = (*self.map_shape[:2], 2 * latents)

        def part(make, inputs_shape, outputs, growth, steps, *count, name):
            seeds = {"seed": seed + 1 + len(parts), "name": name}
            parts.append(make(inputs_shape, outputs, *self.scaled(growth, steps), *count, **seeds))
            return parts[-1]

        parts = []
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
    def abilities(self):
        more = {"encode", "decode", "reconstruct", "interpolate", "super_resolve", "generative_reconstruct"}
        return frozenset({"sample", "likelihood"} | more)

    def compress(self, images):
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
        """p(z|y, u), of what `_of_compressed` says of y."""
        joint = tf.concat([of_compressed, self.prior_of_outer(outer)], axis=-1)
        return self.gaussian(self.inner_prior(joint))

    def _of_compressed(self, compressed):
        return tf.nn.elu(self.prior_of_compressed(self.unit_values(compressed)))

    def _image_parameters(self, compressed, inner):
        """Of p(x|y, z)."""
        larger = tf.image.resize(self.unit_values(compressed), self.image_shape[:2], method="bilinear")
        return self.image_decoder(tf.concat([larger, self.inner_decoder(inner)], axis=-1))

    def observe(self, images):
        compressed = self.compress(images)
        outer, inner = self.outer_encoder(self.unit_values(compressed)), self.inner_encoder(self.unit_values(images))
        return compressed, outer, inner, self._of_compressed(compressed)

    def infer(self, images, noise, observed):
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

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C], generated; `temperature` scales the noise of u and z."""
        noise = RowNoise(seeds)
        outer = self.draw_prior(noise, _OUTER, temperature)
        return self._image_given(self._compressed(outer, noise), outer, noise, temperature)

    def super_resolve(self, compressed, seeds):
        """Images uint8 [N, H, W, C] given compressed ones, uint8 [N, *compressed_shape]."""
        noise = RowNoise(seeds)
        outer = self.drawn(self._outer_posterior(compressed), noise, _OUTER)
        return self._image_given(compressed, outer, noise)

    def reconstruct(self, images, seeds):
        """Images of their own compressed image and z ~ q(z|x), uint8 [N, H, W, C]."""
        noise = RowNoise(seeds)
        inner = self.drawn(self._inner_posterior(images), noise, _INNER)
        return self._image(self.compress(images), inner, noise)

    def generative_reconstruct(self, images, seeds):
        """Images of what q(u|y) keeps of them, uint8 [N, H, W, C]: y and z are generated."""
        noise = RowNoise(seeds)
        outer = self.drawn(self._outer_posterior(self.compress(images)), noise, _OUTER)
        return self._image_given(self._compressed(outer, noise), outer, noise)

    def encode(self, images, seeds):
        """The means of u and z, float32 [N, *latent_shape], u first; `seeds` decide nothing."""
        means = self._outer_posterior(self.compress(images)).mean(), self._inner_posterior(images).mean()
        return tf.concat(means, axis=-1)

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of u and z: the mixtures' modes, of y too, which u alone decides."""
        outer, inner = tf.split(latents, 2, axis=-1)
        return self._image(self._compressed(outer), inner)

    def noise_of(self, latents):
        """The noise of u's flow and of p(z|y, u), side by side; y as `decode` makes it."""
        outer, inner = tf.split(latents, 2, axis=-1)
        prior = self._inner_prior(self._of_compressed(self._compressed(outer)), outer)
        noise = self.prior_flow.inverse_and_log_det(outer)[0], (inner - prior.mean()) / prior.stddev()
        return tf.concat(noise, axis=-1)

    def latents_of(self, noise):
        """Inverse of `noise_of`."""
        of_outer, of_inner = tf.split(noise, 2, axis=-1)
        outer = self.prior_flow.forward_and_log_det(of_outer)[0]
        prior = self._inner_prior(self._of_compressed(self._compressed(outer)), outer)
        return tf.concat([outer, prior.mean() + prior.stddev() * of_inner], axis=-1)

    def _compressed(self, outer, noise=None):
        """y of p(y|u), uint8."""
        return self.image_of(self.compressed_decoder(outer), self.compressed_shape[-1], noise, _COMPRESSED)

    def _image_given(self, compressed, outer, noise, temperature=1.0):
        """x of z ~ p(z|y, u)."""
        inner = self.drawn(self._inner_prior(self._of_compressed(compressed), outer), noise, _INNER, temperature)
        return self._image(compressed, inner, noise)

    def _image(self, compressed, inner, noise=None):
        """x of p(x|y, z), uint8."""
        return self.image_of(self._image_parameters(compressed, inner), self.image_shape[-1], noise, _IMAGE)


MODEL = SRVAE
