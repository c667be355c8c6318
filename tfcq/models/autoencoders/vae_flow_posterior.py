"""The VAE with a flow in its posterior (Rezende and Mohamed 2015); the flow is GLF's (Xiao et al. 2019, Table 1).

    z_0 ~ N(m(x), s(x)^2),  z = F(z_0),    log q(z|x) = log N(z_0; m, s^2) - log|det dF/dz_0|;    p(z) = N(0, I)

F is one bijection for all images. The KL is estimated from one draw. `encode` returns F(m(x)), the posterior's central value.
"""

import tensorflow as tf

from tfcq.config import VAEFlowPosteriorConfig
from tfcq.models.autoencoders.variational import LATENT, FlowVariationalAutoencoder
from tfcq.models.base import Noise


class VAEFlowPosterior(FlowVariationalAutoencoder):
    """The VAE with a flow in its posterior; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: VAEFlowPosteriorConfig

    def __init__(
        self,
        config: VAEFlowPosteriorConfig,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        name: str = "vae_flow_posterior",
    ):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def infer(
        self, pixels: tf.Tensor, noise: Noise, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        base, bijector = self._gaussian(pixels, training), self.flow.bijector(training)
        drawn = base.mean() + base.stddev() * noise.normal(self.latent_shape, LATENT)
        latents = bijector.forward(drawn)
        log_posterior = base.log_prob(drawn) - bijector.forward_log_det_jacobian(drawn, event_ndims=1)
        log_ratio = self._standard_normal().log_prob(latents) - log_posterior
        return latents, -log_ratio, log_ratio, {}

    def posterior_mean(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.flow.bijector().forward(super().posterior_mean(pixels, training))


MODEL = VAEFlowPosterior
