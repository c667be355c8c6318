"""RAE + GMM (Ghosh et al. 2019; Xiao et al. 2019, Appendix B.5): a regularised auto-encoder, and a mixture fitted to its latents.

    L = |x - G(E(x))|^2 + c |E(x)|^2

The mixture of full-covariance Gaussians is scikit-learn's maximum-likelihood fit (EM from k-means) to the latents of the
training images. It is fitted whenever the model is evaluated or saved, so that a checkpoint is always complete; its parameters
are weights that are not trained. It is a density of latents; there is no likelihood of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config import RAEGMMConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.errors import UserError
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.models.base import Array, Noise
from tfcq.models.interpolation import between
from tfcq.randomness import RowNoise

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

tfd = tfp.distributions

_COMPONENT, _LATENT = 0, 1  # tags of the draws


class RAEGMM(Autoencoder):
    """RAE + GMM; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights, of the noise of training, and of the fits.
        name: name of the model.
    """

    config: RAEGMMConfig
    encoder: keras.Sequential

    def __init__(self, config: RAEGMMConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "rae_gmm"):
        super().__init__(config, image_shape, seed, name)
        self.reconstruction_error = ReconstructionError(config)
        count, dim = config.mixture_components, config.latent_dim
        # Before it is fitted, the mixture is N(0, I).
        weight: dict[str, Any] = {"dtype": "float32", "trainable": False}
        self.mixture_logits = self.add_weight(name="mixture_logits", shape=(count,), initializer="zeros", **weight)
        self.mixture_means = self.add_weight(name="mixture_means", shape=(count, dim), initializer="zeros", **weight)
        self.mixture_scales = self.add_weight(
            name="mixture_scales",
            shape=(count, dim, dim),
            initializer=lambda shape, dtype: tf.eye(dim, batch_shape=[count], dtype=dtype),
            **weight,
        )
        self._dataset: ImageDataset | None = None
        self._batch_size = 0
        self._means_of: Any = None
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | {"latent_likelihood"}

    @property
    def files_read(self) -> dict[str, str]:
        return self.reconstruction_error.files_read

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        self.reconstruction_error.load()
        self._dataset, self._batch_size = dataset, batch_size

    def players(self) -> list[Player]:
        autoencoder = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        return [Player("autoencoder", [Objective(self._loss, autoencoder)])]

    def _loss(self, images, noise, shared):
        pixels = self.unit_pixels(images)
        latents = self.posterior_mean(pixels, training=True)
        error = self.reconstruction_error(pixels, self.decoder(latents, training=True))
        penalty = tf.reduce_sum(tf.square(latents), axis=-1)
        total = error + self.config.latent_penalty * penalty
        return Terms(total, {"latents_squared_norm": penalty}, {self.reconstruction_error.name: error})

    # The mixture.

    def fit_to_data(self) -> bool:
        """Fits the mixture to the latents of the attached training images; without them it does not change."""
        if self._dataset is None:
            return False
        import threadpoolctl
        from sklearn.mixture import GaussianMixture

        if self._means_of is None:
            self._means_of = tf.function(
                lambda images: self.posterior_mean(self.unit_pixels(images)), autograph=False, reduce_retracing=True
            )
        batches = self._dataset.eval_batches("train", self._batch_size, self.config.mixture_images)
        latents = np.concatenate([self._means_of(images) for images in batches]).astype(np.float64)
        if len(latents) < 2:
            raise UserError(f"rae_gmm: expected at least 2 training images to fit the mixture to, received {len(latents)}")
        components = min(self.config.mixture_components, len(latents))
        mixture = GaussianMixture(components, covariance_type="full", random_state=self.seed)
        # Its matrices are too small to divide: threads that wait for one another take three times the processor time
        with threadpoolctl.threadpool_limits(1):
            mixture.fit(latents)
        self.set_mixture(mixture.weights_, mixture.means_, mixture.covariances_)
        return True

    def set_mixture(self, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> None:
        """Sets the mixture to K Gaussians, at most mixture_components.

        Args:
            weights: [K], which sum to 1.
            means: [K, latent_dim].
            covariances: [K, latent_dim, latent_dim].
        """
        missing = self.config.mixture_components - len(weights)
        logits = np.concatenate([np.log(weights), np.full(missing, -np.inf)])
        self.mixture_logits.assign(np.maximum(logits, np.finfo(np.float32).min / 2))
        self.mixture_means.assign(np.concatenate([means, np.repeat(means[:1], missing, axis=0)]))
        scales = np.linalg.cholesky(covariances)
        self.mixture_scales.assign(np.concatenate([scales, np.repeat(scales[:1], missing, axis=0)]))

    def mixture(self) -> tfp.distributions.Distribution:
        """The distribution of latents, a `tfd.MixtureSameFamily`."""
        gaussians = tfd.MultivariateNormalTriL(self.mixture_means.value, self.mixture_scales.value)
        return tfd.MixtureSameFamily(tfd.Categorical(self.mixture_logits.value), gaussians)

    # Abilities.

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return self.mixture().log_prob(latents)

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        """Draws latents, float32 [N, latent_dim]; the temperature scales each Gaussian about its mean."""
        cumulative = tf.cumsum(tf.nn.softmax(self.mixture_logits.value))
        drawn = noise.uniform((), _COMPONENT)
        component = tf.reduce_sum(tf.cast(drawn[:, None] >= cumulative[:-1], tf.int32), axis=-1)
        normal = noise.normal(self.latent_shape, _LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])
        return tf.gather(self.mixture_means.value, component) + tf.linalg.matvec(
            tf.gather(self.mixture_scales.value, component), normal
        )

    def interpolate_noise(
        self,
        first_seeds: Array,
        second_seeds: Array,
        share: float | Array,
        spherical: bool | Array = False,
        temperature: float | Array = 1.0,
    ) -> Array:
        """As `GenerativeModel.interpolate_noise`, on a path between the samples' latents.

        Noise alone has no path between two components of the mixture: half way it would jump from one to the other.
        """
        first, second = (self.draw_latents(RowNoise(seeds), temperature) for seeds in (first_seeds, second_seeds))
        return self.decode(between(first, second, share, spherical))


MODEL = RAEGMM
