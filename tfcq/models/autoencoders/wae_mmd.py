"""WAE-MMD (Tolstikhin et al. 2018): latents and draws of the prior are compared by a kernel.

The statistic is of the whole batch, over all replicas: `tfcq.losses.maximum_mean_discrepancy`.
"""

from tfcq.engine.trainer import of_all_replicas
from tfcq.losses.maximum_mean_discrepancy import inverse_multiquadratic_mmd
from tfcq.models.autoencoders.wasserstein import WassersteinAutoencoder


class WAEMMD(WassersteinAutoencoder):
    """See the module.

    Args:
        config: `tfcq.WAEMMDConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="wae_mmd"):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def divergence(self, latents, noise):
        both = of_all_replicas(latents), of_all_replicas(self.draw_prior(noise))
        return inverse_multiquadratic_mmd(*both, self.config.prior_sigma)


MODEL = WAEMMD
