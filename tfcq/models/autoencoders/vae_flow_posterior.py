"""The VAE whose posterior goes through a flow (Rezende and Mohamed 2015), with GLF's flow (Xiao et al. 2019, Table 1).

    z_0 ~ N(m(x), s(x)^2),  z = F(z_0),    log q(z|x) = log N(z_0; m, s^2) - log|det dF/dz_0|;    p(z) = N(0, I)

F is one bijection for all images. The KL is by one draw. `encode` gives F(m(x)), the posterior's central value.
"""

from tfcq.models.autoencoders.variational import LATENT, FlowVariationalAutoencoder


class VAEFlowPosterior(FlowVariationalAutoencoder):
    """See the module.

    Args:
        config: `tfcq.VAEFlowPosteriorConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="vae_flow_posterior"):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def infer(self, pixels, noise, training=False):
        base, bijector = self._gaussian(pixels, training), self.flow.bijector()
        drawn = base.mean() + base.stddev() * noise.normal(self.latent_shape, LATENT)
        latents = bijector.forward(drawn)
        log_posterior = base.log_prob(drawn) - bijector.forward_log_det_jacobian(drawn, event_ndims=1)
        log_ratio = self._standard_normal().log_prob(latents) - log_posterior
        return latents, -log_ratio, log_ratio, {}

    def posterior_mean(self, pixels, training=False):
        return self.flow.bijector().forward(super().posterior_mean(pixels, training))


MODEL = VAEFlowPosterior
