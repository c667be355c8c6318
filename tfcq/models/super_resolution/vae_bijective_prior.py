"""The VAE with a bijective prior (Gatopoulos, Stol, Tomczak 2020): densely connected networks, RealNVP as prior.

    -ELBO = E_q[-log p(x|z)] + E_q[log q(z|x) - log p(z)]

with q(z|x) = N(mu(x), diag), z of [H/4, W/4, 16] in the paper, and p(x|z) a discretised logistic mixture.
"""

from tfcq.models.super_resolution.logistic_vae import LogisticVAE
from tfcq.networks import dense_blocks
from tfcq.randomness import RowNoise

_LATENT, _IMAGE = 0, 1  # tags of the draws


class VAEBijectivePrior(LogisticVAE):
    """See the module.

    Args:
        config: `tfcq.VAEBijectivePriorConfig`.
        image_shape: (H, W, C), see `LogisticVAE`.
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="vae_bijective_prior"):
        super().__init__(config, image_shape, seed, name)
        self.latent_shape = self.map_shape
        channels = config.latent_channels
        self.encoder = dense_blocks.encoder(
            self.image_shape, 2 * channels, *self.scaled(16, 8), 2, seed=seed + 1, name="encoder"
        )
        self.decoder = dense_blocks.decoder(
            self.map_shape, self.num_parameters_of(self.image_shape), *self.scaled(128, 6), 2, seed=seed + 2, name="decoder"
        )
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample", "likelihood", "encode", "decode", "reconstruct", "interpolate"})

    def observe(self, images):
        return (self.encoder(self.unit_values(images)),)

    def _posterior(self, images):
        return self.gaussian(*self.observe(images))

    def infer(self, images, noise, observed):
        posterior = self.gaussian(*observed)
        latents = self.drawn(posterior, noise, _LATENT)
        kl = posterior.log_prob(latents) - self.prior().log_prob(latents)
        return {"reconstruction": self.reconstruction_error(self.decoder(latents), images), "kl": kl}

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C], drawn as image_draw says."""
        noise = RowNoise(seeds)
        return self._image(self.draw_prior(noise, _LATENT, temperature), noise)

    def encode(self, images, seeds):
        """The posteriors' means, float32 [N, *latent_shape]; `seeds` decide nothing."""
        return self._posterior(images).mean()

    def decode(self, latents):
        """Images uint8 [N, H, W, C]: the mixtures' modes, as nothing decides a draw."""
        return self._image(latents)

    def reconstruct(self, images, seeds):
        """x' ~ p(x|z), z ~ q(z|x), uint8 [N, H, W, C], drawn as image_draw says."""
        noise = RowNoise(seeds)
        return self._image(self.drawn(self._posterior(images), noise, _LATENT), noise)

    def noise_of(self, latents):
        return self.prior_flow.inverse_and_log_det(latents)[0]

    def latents_of(self, noise):
        return self.prior_flow.forward_and_log_det(noise)[0]

    def _image(self, latents, noise=None):
        return self.image_of(self.decoder(latents), self.image_shape[-1], noise, _IMAGE)


MODEL = VAEBijectivePrior
