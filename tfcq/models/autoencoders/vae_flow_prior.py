"""The VAE with a flow as its prior (Xiao et al. 2019, Eq. 4), the stochastic counterpart of GLF.

    log p(z) = log N(f(z); 0, I) + log|det df/dz|,    L = E_q[-log p(x|z) - log p(z)] - H(q(z|x))

with f GLF's flow and q a diagonal Gaussian, whose entropy H is exact; E_q is estimated from one draw. Unlike in the regularized
GLF, the entropy keeps the latents from shrinking. As sigma falls, the model approaches GLF.
"""

import math

import tensorflow as tf

from tfcq.config import VAEFlowPriorConfig
from tfcq.models.autoencoders.variational import LATENT, FlowVariationalAutoencoder
from tfcq.models.base import Noise


class VAEFlowPrior(FlowVariationalAutoencoder):
    """The VAE with a flow as its prior; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: VAEFlowPriorConfig

    def __init__(
        self, config: VAEFlowPriorConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "vae_flow_prior"
    ):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def infer(
        self, pixels: tf.Tensor, noise: Noise, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        posterior = self._gaussian(pixels, training)
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        log_prior = self.flow.distribution(training=training).log_prob(latents)
        # As in the paper's Figure 3b: without the constant of the entropy.
        entropy_loss = 0.5 * self.latent_shape[0] * math.log(2.0 * math.pi * math.e) - posterior.entropy()
        logs = {"latent_nll": -log_prior, "entropy_loss": entropy_loss}
        return latents, -log_prior - posterior.entropy(), log_prior - posterior.log_prob(latents), logs

    def noise_of(self, latents: tf.Tensor) -> tf.Tensor:
        return self.flow.bijector().inverse(latents)

    def latents_of(self, noise: tf.Tensor) -> tf.Tensor:
        return self.flow.bijector().forward(noise)


MODEL = VAEFlowPrior
