"""What the VAEs of Gatopoulos et al. (2020) share: images as a discretised logistic mixture, a flow as the prior of a latent map.

    p(x|.)   `DiscretizedLogisticMixture` whose parameters a network gives: exact masses of 8-bit values, no dequantisation
    p(w)     N(0, I) through a RealNVP of [H/4, W/4, latent_channels] maps
    q(w|.)   diagonal Gaussians, log-variances limited to [-7, 7]

KLs are by one draw, as a flow's is not known. log P(x) is importance-weighted over all latents together, image by image.

Departures from the authors' code: masses are exact, where theirs take a density below 1e-5; generated compressed images are of
8 bits; gradients pass the limits of log-variances and log-scales, and log-scales have an upper limit; a coupling has one scale
factor, first 0, for theirs a channel, first 1, sees its checkerboard's mask, and its last convolution starts at 0 (shift) and
small (scale), so that the prior starts as N(0, I). Images are drawn of the whole mixture; theirs are image_draw=mode.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.distributions.logistic_mixture import DiscretizedLogisticMixture, num_parameters
from tfcq.engine.players import Objective, Player, Terms
from tfcq.errors import UserError
from tfcq.flows import ImageFlow
from tfcq.flows.dense_conditioner import DenseConditioner
from tfcq.models.base import GenerativeModel, log_mean_exp
from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.randomness import RowNoise, row_seeds

tfd = tfp.distributions

LOG_VARIANCES = (-7.0, 7.0)

_PRIOR_GROWTH, _PRIOR_STEPS = 64, 5  # of the conditioners' dense blocks, from the authors' code as all sizes of networks here


class LogisticVAE(GenerativeModel):
    """Base of both.

    Args:
        config: `LogisticVAEOptions` of the system.
        image_shape: (H, W, C), H and W multiples of 4 * 2^(prior_scales - 1).
        seed: of the weights and of the noise of training.
        name: of the model.
    """

    def __init__(self, config, image_shape, seed, name):
        super().__init__(image_shape, seed, name)
        self.config = config
        height, width, channels = self.image_shape
        divisor = config.image_divisor
        if height % divisor or width % divisor or channels not in (1, 3):
            raise UserError(
                f"{name}: expected images of 1 or 3 channels whose sides are multiples of {divisor}, received "
                f"{height}x{width}x{channels}"
            )
        self.map_shape = (height // 4, width // 4, config.latent_channels)
        growth, steps = self.scaled(_PRIOR_GROWTH, _PRIOR_STEPS)
        self.prior_flow = ImageFlow(
            config.prior_scales,
            config.prior_couplings,
            normalization="none",
            conditioner=DenseConditioner.maker(growth, steps),
            seed=seed,
            name="prior_flow",
        )
        self.prior_flow.build((None, *self.map_shape))

    # What a system offers.

    def observe(self, images):
        """What of uint8 [N, H, W, C] needs no draw, such as the posteriors' parameters: a tuple of tensors [N, ...].

        Importance weighting computes it once for all its draws.
        """
        raise NotImplementedError

    def infer(self, images, noise, observed):
        """Draws the latents of images from their posteriors.

        Args:
            images: uint8 [N, H, W, C].
            noise: of `tfcq.randomness`.
            observed: `observe(images)`.

        Returns:
            {name: float32 [N], nats}, with log p(x, w) - log q(w|x) = -sum of all: reconstruction errors -log p, and KLs by
            this draw.
        """
        raise NotImplementedError

    # What follows from it.

    def scaled(self, growth, steps):
        """The paper's growth and steps of dense blocks, made smaller by the configuration; at least 1 each."""
        config = self.config
        return max(1, round(config.growth_scale * growth)), max(1, round(config.steps_scale * steps))

    def num_parameters_of(self, shape):
        """Channels of a network that gives a mixture of images of a shape."""
        return num_parameters(self.config.mixture_components, shape[-1])

    def players(self):
        return [Player("autoencoder", [Objective(self._loss, self.trainable_variables)])]

    def initialize(self, images):
        """Data-dependent initialisation of all convolutions on uint8 [N, H, W, C]."""
        with data_dependent_initialization():
            self._elbo_terms(images, RowNoise(row_seeds(len(images), self.seed)))

    def _elbo_terms(self, images, noise):
        terms = self.infer(images, noise, self.observe(images))
        return {"elbo": -sum(terms.values())} | terms

    def _loss(self, images, noise, shared):
        terms = self._elbo_terms(images, noise)
        return Terms(-terms["elbo"], {}, self.bound_measures(terms))

    def elbo_terms(self, images, seeds):
        """The bound with one draw of all latents: elbo = -(the sum of the other terms)."""
        return self._elbo_terms(images, RowNoise(seeds))

    def log_prob(self, images, seeds, num_importance_samples=1):
        """log 1/K sum_k p(x, w_k) / q(w_k | x) with all latents w drawn together, one k at a time."""
        noise, observed = RowNoise(seeds), self.observe(images)

        def log_weight(k):
            return -sum(self.infer(images, noise.fold(k), observed).values())

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])

    # Parts.

    @staticmethod
    def unit_values(images):
        """uint8 images as float32 in [0, 1]: v / 255."""
        return tf.cast(images, tf.float32) / 255.0

    @staticmethod
    def gaussian(parameters):
        """The diagonal Gaussian of a network's outputs, float32 [N, h, w, 2 c]: means and log-variances."""
        mean, log_variance = tf.split(parameters, 2, axis=-1)
        log_variance = tfp.math.clip_by_value_preserve_gradient(log_variance, *LOG_VARIANCES)
        return tfd.Independent(tfd.Normal(mean, tf.exp(0.5 * log_variance)), 3)

    @staticmethod
    def drawn(gaussian, noise, tag, temperature=1.0):
        """A draw of a diagonal Gaussian of maps; `temperature`, float or [N], scales its deviation."""
        mean = gaussian.mean()
        return mean + gaussian.stddev() * _scaled(noise.normal(mean.shape[1:], tag), temperature)

    def prior(self):
        """p(w), a `tfd.TransformedDistribution` of float32 [h, w, c]."""
        noise = tfd.Independent(tfd.Normal(tf.zeros(self.map_shape), 1.0), 3)
        return tfd.TransformedDistribution(noise, self.prior_flow.bijector())

    def draw_prior(self, noise, tag, temperature=1.0):
        """Maps of the prior, float32 [N, h, w, c]; `temperature`, float or [N], scales the noise."""
        return self.prior_flow.forward_and_log_det(_scaled(noise.normal(self.map_shape, tag), temperature))[0]

    @staticmethod
    def reconstruction_error(parameters, images):
        """-log p(images) under the mixture of a network's outputs, float32 [N], nats."""
        return -DiscretizedLogisticMixture(parameters, images.shape[-1]).log_prob(images)

    def image_of(self, parameters, channels, noise=None, tag=0):
        """uint8 images of a mixture: drawn by `noise` with tags `tag` and `tag` + 1; None, or image_draw=mode: its mode."""
        mixture = DiscretizedLogisticMixture(parameters, channels)
        if noise is None or self.config.image_draw == "mode":
            return mixture.mode()
        sides = parameters.shape[1:3]
        return mixture.sample_of(noise.uniform(sides, tag), noise.uniform((*sides, channels), tag + 1))


def _scaled(noise, temperature):
    """Noise [N, h, w, c] times a float or [N]."""
    return noise * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1, 1, 1])
