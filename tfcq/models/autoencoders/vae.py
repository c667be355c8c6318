"""The VAE of Xiao et al. (2019, Eq. 3), with GLF's auto-encoder, a Gaussian posterior and the prior N(0, I).

It is trained with the bound of `tfcq.models.autoencoders.variational`; `decoder_sigma` = 1 / sqrt(2 beta).
"""

from tfcq.config import VAEConfig
from tfcq.models.autoencoders.variational import VariationalAutoencoder


class VAE(VariationalAutoencoder):
    """The VAE; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: VAEConfig

    def __init__(self, config: VAEConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "vae"):
        super().__init__(config, image_shape, seed, name)
        self.built = True


MODEL = VAE
