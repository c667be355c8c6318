"""The VAE with a flow as its prior (Xiao et al. 2019, Eq. 4), GLF's counterpart with noise.

    log p(z) = log N(f(z); 0, I) + log|det df/dz|,    L = E_q[-log p(x|z) - log p(z)] - H(q(z|x))

with f GLF's flow and q a diagonal Gaussian, whose entropy H is exact; E_q is by one draw. Unlike in the regularized GLF the
entropy keeps the latents from shrinking. As sigma falls, GLF is what remains.
"""

import math

from tfcq.models.autoencoders.variational import LATENT, FlowVariationalAutoencoder


class VAEFlowPrior(FlowVariationalAutoencoder):
    """See the module.

    Args:
        config: `tfcq.VAEFlowPriorConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="vae_flow_prior"):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def infer(self, pixels, noise, training=False):
        posterior = self._gaussian(pixels, training)
        latents = posterior.mean() + posterior.stddev() * noise.normal(self.latent_shape, LATENT)
        log_prior = self.flow.distribution().log_prob(latents)
        # The paper's Figure 3b: without the constant of the entropy.
        entropy_loss = 0.5 * self.latent_shape[0] * math.log(2.0 * math.pi * math.e) - posterior.entropy()
        logs = {"latent_nll": -log_prior, "entropy_loss": entropy_loss}
        return latents, -log_prior - posterior.entropy(), log_prior - posterior.log_prob(latents), logs

    def noise_of(self, latents):
        return self.flow.bijector().inverse(latents)

    def latents_of(self, noise):
        return self.flow.bijector().forward(noise)


MODEL = VAEFlowPrior
