"""WAE-MMD (Tolstikhin et al. 2018): a kernel compares latents with draws of the prior.

The statistic is that of the whole batch, over all replicas: `tfcq.losses.maximum_mean_discrepancy`.
"""

import tensorflow as tf

from tfcq.config import WAEMMDConfig
from tfcq.engine.trainer import of_all_replicas
from tfcq.losses.maximum_mean_discrepancy import inverse_multiquadratic_mmd
from tfcq.models.autoencoders.wasserstein import WassersteinAutoencoder
from tfcq.models.base import Noise


class WAEMMD(WassersteinAutoencoder):
    """WAE-MMD; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: WAEMMDConfig

    def __init__(self, config: WAEMMDConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "wae_mmd"):
        super().__init__(config, image_shape, seed, name)
        self.built = True

    def divergence(self, latents: tf.Tensor, noise: Noise) -> tf.Tensor:
        latents, prior = of_all_replicas(latents), of_all_replicas(self.draw_prior(noise))
        return inverse_multiquadratic_mmd(latents, prior, self.config.prior_sigma)


MODEL = WAEMMD
