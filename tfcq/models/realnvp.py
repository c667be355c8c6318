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
from tfcq.distributions.pixels import pixel_bijector
from tfcq.flows.image_flow import ImageFlow
from tfcq.models import adversary
from tfcq.models.base import GenerativeModel, Objective, Player, Terms, log_mean_exp
from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.randomness import RowNoise

tfd = tfp.distributions

_DEQUANTIZATION, _LATENT = 0, 1  # tags of the draws


class RealNVP(GenerativeModel):
    """See the module.

    Args:
        config: `tfcq.RealNVPConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="realnvp"):
        super().__init__(image_shape, seed, name)
        self.config = config
        self.latent_shape = self.image_shape
        self.flow = ImageFlow.of(config, seed)
        self.flow.build((None, *self.image_shape))
        self.discriminator = None
        if config.quality_weight:
            self.discriminator = adversary.build(config, self.image_shape, config.discriminator_size)
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample", "likelihood", "encode", "decode", "reconstruct"})

    def players(self):
        players, objectives = [], []
        if self.config.coverage:
            objectives.append(Objective(self._coverage_loss, self.flow.trainable_variables))
        if self.discriminator:
            discriminator = Objective(self._discriminator_loss, self.discriminator.trainable_variables)
            players.append(Player("discriminator", [discriminator], turns=self.config.discriminator_steps))
            objectives.append(Objective(self._quality_loss, self.flow.trainable_variables))
        return [*players, Player("generator", objectives)]

    def initialize(self, images):
        """Data-dependent initialisation on uint8 [N, H, W, C]: ActNorm layers, a weight-normalised discriminator."""
        pixels = units.dequantize(images, 0.5)
        self.flow.initialize(pixel_bijector(self.config.pixel_transform).inverse(pixels))
        if self.discriminator and self.config.data_dependent_initialization:
            with data_dependent_initialization():
                self.discriminator(units.to_network_range(pixels))

    # The model.

    def _latents(self, images, noise, training=False):
        """Latents z of dequantised images, and log|det dz/dv|, [N], nats."""
        pixels = units.dequantize(images, noise.uniform(self.image_shape, _DEQUANTIZATION))
        transform = pixel_bijector(self.config.pixel_transform)
        latents, log_det = self.flow.inverse_and_log_det(transform.inverse(pixels), training=training)
        return latents, log_det + transform.inverse_log_det_jacobian(pixels, event_ndims=3)

    def _prior(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.image_shape), 1.0), 3)

    def _pixels(self, latents):
        unbounded, _ = self.flow.forward_and_log_det(latents, training=False)
        return pixel_bijector(self.config.pixel_transform).forward(unbounded)

    def _density_terms(self, images, noise, training=False):
        latents, log_det = self._latents(images, noise, training)
        log_prior = self._prior().log_prob(latents)
        return {"elbo": log_prior + log_det, "log_prior": log_prior, "log_det": log_det}

    # The losses.

    def _coverage_loss(self, images, noise, shared):
        logs = self._density_terms(images, noise, training=True)
        return Terms(-logs["elbo"], logs | {"bits_per_dim": units.bits_per_dim(logs["elbo"], self.image_shape)})

    def _quality_loss(self, images, noise, shared):
        return adversary.quality_terms(self.config, self.discriminator, shared, self.step.value)

    def _discriminator_loss(self, images, noise, shared):
        return adversary.discriminator_terms(self.config, self.discriminator, images, shared, noise)

    def share(self, noise):
        """The generated images of a step, float32 [N, H, W, C] around [-1, 1]."""
        if not self.discriminator:
            return ()
        return units.to_network_range(self._pixels(noise.normal(self.latent_shape, _LATENT)))

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C]; `temperature`, float or [N], scales the prior's deviation."""
        latents = RowNoise(seeds).normal(self.latent_shape, _LATENT)
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
        return self._latents(images, RowNoise(seeds))[0]

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of latents."""
        return units.quantize(self._pixels(latents))


MODEL = RealNVP
