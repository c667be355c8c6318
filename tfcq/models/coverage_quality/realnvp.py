"""RealNVP by itself (Dinh, Sohl-Dickstein, Bengio 2017) and Flow-GAN (Grover, Dhar, Ermon 2018): the flow is the whole model.

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); z = f(l), z ~ N(0, I):

    log p(v) = log N(f(l); 0, I) + log|det dz/dv|            exact; log P(x8) = log E_u p(x8 + u), bounded by one u
    L_C = -E_u log p(x8 + u);    L_Q = -E_z[logit D(v(z))]   L_C + lambda L_Q (Flow-GAN's hybrid), or either alone

In CQF L_Q only passes through the flow; here there is nothing else for it to train, so the flow feels both.

Where this departs: Flow-GAN has a Wasserstein critic; here the discriminator, its penalty and the choice of losses are CQF's, so
that only the generator differs from CQF's. Sampling uses moving statistics where the flow has batch normalisation; ActNorm, the
default, has none.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.engine.players import Terms
from tfcq.models.base import log_mean_exp
from tfcq.models.coverage_quality.flow_model import LATENT, FlowModel
from tfcq.randomness import RowNoise

tfd = tfp.distributions


class RealNVP(FlowModel):
    """See the module.

    Args:
        config: `tfcq.RealNVPConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="realnvp"):
        super().__init__(config, image_shape, config.discriminator_size, seed, name)
        self.latent_shape = self.image_shape
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample", "likelihood", "encode", "decode", "reconstruct", "interpolate"})

    def coverage_variables(self):
        return self.flow.trainable_variables

    def quality_variables(self):
        return self.flow.trainable_variables

    # The model.

    def _prior(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.image_shape), 1.0), 3)

    def _density_terms(self, images, noise, training=False):
        latents, log_det = self.features(images, noise, training)
        log_prior = self._prior().log_prob(latents)
        return {"elbo": log_prior + log_det, "log_prior": log_prior, "log_det": log_det}

    # The losses.

    def coverage_loss(self, images, noise, shared):
        terms = self._density_terms(images, noise, training=True)
        return Terms(-terms["elbo"], {}, self.bound_measures(terms))

    def generate_features(self, noise):
        return noise.normal(self.latent_shape, LATENT)

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C]; `temperature`, float or [N], scales the prior's deviation."""
        latents = RowNoise(seeds).normal(self.latent_shape, LATENT)
        return self.decode(latents * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1, 1, 1]))

    def elbo_terms(self, images, seeds):
        """log p(x8 + u) = log_prior + log_det with one u: exact for these pixels, a bound on log P(x8)."""
        return self._density_terms(images, RowNoise(seeds))

    def log_prob(self, images, seeds, num_importance_samples=1):
        """log 1/K sum_k p(x8 + u_k), float32 [N], nats; K (int or scalar int tensor) draws of the dequantisation."""
        noise = RowNoise(seeds)

        def log_weight(k):
            return self._density_terms(images, noise.fold(k))["elbo"]

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(images)[:1])

    def encode(self, images, seeds):
        """Latents float32 [N, H, W, C]; `seeds` decide the dequantisation."""
        return self.features(images, RowNoise(seeds))[0]

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of latents."""
        return units.quantize(self.pixels(latents))


MODEL = RealNVP
