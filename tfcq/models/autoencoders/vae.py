"""The VAE of Xiao et al. (2019, Eq. 3), on the auto-encoder of GLF: Gaussian posterior, prior N(0, I).

What is trained is the bound of `tfcq.models.autoencoders.variational`; `decoder_sigma` = 1 / sqrt(2 beta).
"""

from tfcq.models.autoencoders.variational import VariationalAutoencoder


class VAE(VariationalAutoencoder):
    """See the module.

    Args:
        config: `tfcq.VAEConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="vae"):
        super().__init__(config, image_shape, seed, name)
        self.built = True


MODEL = VAE
