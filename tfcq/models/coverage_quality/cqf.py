"""CQF: coverage and quality driven training (Shmelkov, Lucas, Alahari, Schmid, Verbeek 2018; its later version is
Adaptive Density Estimation, Lucas et al. 2019).

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); features y = f(l), with f the image ->
feature direction of a RealNVP. A VAE models y:

    L_C = E_q[-log N(y; mu(z), sigma^2 I)] + KL(q(z|y) || p(z)) - log|det dy/dv|                      (Eq. 6)
    L_Q = -E_z[logit D(v(mu(z)))]                                                                    (Eq. 7)

sigma is one learned scalar. L_C, in nats per image, trains encoder, decoder, sigma and flow. lambda L_Q passes through the
flow, on decoder means, and trains the decoder and its priors alone. The discriminator D has cross-entropy and a gradient
penalty. z is a hierarchy of latents, inferred from the top down (`tfcq.networks.hierarchy`); KL(q || p) is the sum over its
layers, each given the draws above it.

Where this departs from the paper: ActNorm is the flow's default normalisation, because with batch normalisation the direction
that generates uses other statistics than the one that is trained; D and the generator look at the same draws of a step.

Rows of Table 1: `gan` has only L_Q and neither encoder nor flow, `vae` only L_C without flow, `cq` both, `cqf` all.
"""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.engine.players import Terms
from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.losses.free_bits import free_bits
from tfcq.models.base import log_mean_exp
from tfcq.models.coverage_quality.flow_model import LATENT, FlowModel
from tfcq.networks.hierarchy import Decoder, Encoder, Plan
from tfcq.randomness import RowNoise, row_seeds

tfd = tfp.distributions


class CQF(FlowModel):
    """See the module.

    Args:
        config: `tfcq.CQFConfig`.
        image_shape: (H, W, C).
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="cqf"):
        super().__init__(config, image_shape, config.latent_size, seed, name)
        plan = Plan(
            image_shape=self.image_shape,
            halvings=config.num_halvings(self.image_shape[0]),
            width=config.width,
            network=config.network,
            normalization=config.network_normalization,
            latent_channels=config.latent_channels,
            latent_form=config.latent_form,
            levels=config.latent_levels,
            blocks=config.latent_blocks,
            context_channels=config.iaf_width if config.posterior == "iaf" else 0,
            inference=config.coverage,
        )

        def make_flow(seed, side):
            return InverseAutoregressiveFlow(config.iaf_width, config.iaf_layers, 1 if side == 1 else 3, seed)

        self.decoder = Decoder(plan, make_flow, seed)
        self.latent_shape = self.decoder.latent_shape
        self.encoder = self.log_sigma = None
        if config.coverage:
            self.encoder = Encoder(plan, seed + 1)
            self.log_sigma = self.add_weight(
                name="log_sigma",
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(math.log(config.initial_sigma)),
            )
        self.built = True

    @property
    def abilities(self):
        both = {"sample", "decode"}
        more = {"likelihood", "encode", "reconstruct", "interpolate"}
        return frozenset(both | more if self.config.coverage else both)

    def coverage_variables(self):
        networks = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        return [*networks, self.log_sigma, *self.flow.trainable_variables]

    def quality_variables(self):
        return self.decoder.trainable_variables

    def initialize_networks(self, features):
        noise = RowNoise(row_seeds(len(features), self.seed))
        if self.config.coverage:
            self.decoder.infer(self.encoder(features), noise, LATENT)
        else:
            self.decoder.generate(noise, LATENT)

    # The model.

    def _feature_distribution(self, means):
        """p(y|z): N(mu(z), sigma^2 I)."""
        # One sigma a row: its gradient is then summed row by row. TensorFlow's threads sum a whole batch into one scalar in
        # an order that changes from run to run, and so does the last bit.
        sigma = tf.fill([tf.shape(means)[0], 1, 1, 1], tf.exp(self.log_sigma.value))
        return tfd.Independent(tfd.Normal(means, sigma), 3)

    # The losses.

    def _coverage_terms(self, images, noise, training=False):
        """What L_C is made of, each [N], nats, and the list of `Inferred` of the layers of latents."""
        features, log_det = self.features(images, noise, training)
        means, inferred = self.decoder.infer(self.encoder(features, training=training), noise, LATENT, training)
        reconstruction = -self._feature_distribution(means).log_prob(features)
        kl = sum(tf.reduce_sum(layer.kl, axis=-1) for layer in inferred)
        terms = {"elbo": log_det - reconstruction - kl, "kl": kl, "reconstruction": reconstruction, "log_det": log_det}
        if len(inferred) > 1:
            terms |= {f"kl/{number}": tf.reduce_sum(layer.kl, axis=-1) for number, layer in enumerate(inferred)}
        return terms, inferred

    def coverage_loss(self, images, noise, shared):
        terms, inferred = self._coverage_terms(images, noise, training=True)
        charged = sum(free_bits(layer.kl, self.config.free_bits) for layer in inferred)
        total = terms["reconstruction"] - terms["log_det"] + charged
        return Terms(total, {"sigma": tf.exp(self.log_sigma.value)}, self.bound_measures(terms))

    def generate_features(self, noise):
        if not self.config.coverage:
            return self.decoder.generate(noise, LATENT, training=True)
        with keras.StatelessScope():  # the decoder's batch statistics are kept by the likelihood
            return self.decoder.generate(noise, LATENT, training=True)

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C]: the decoder's mean through the flow, as the discriminator saw them."""
        return units.quantize(self.pixels(self.decoder.generate(RowNoise(seeds), LATENT, temperature)))

    def elbo_terms(self, images, seeds):
        """-L_C with one draw of (u, z): elbo = log_det - reconstruction - kl, and kl/i of layer i from the top.

        A layer's KL is exact given the draws above it; where its posterior has a flow, by this draw.
        """
        return self._coverage_terms(images, RowNoise(seeds))[0]

    def log_prob(self, images, seeds, num_importance_samples=1):
        """log 1/K sum_k p(v, z_k) / q(z_k | v), one u an image and K draws of z: a bound that tightens with K.

        Memory does not grow with K: one draw of all rows at a time.

        Args:
            images: uint8 [N, H, W, C].
            seeds: int32 [N, 2].
            num_importance_samples: K, int or scalar int tensor.
        """
        noise = RowNoise(seeds)
        features, log_det = self.features(images, noise)
        evidence = self.encoder(features)

        def log_weight(k):
            means, inferred = self.decoder.infer(evidence, noise.fold(k), LATENT)
            return self._feature_distribution(means).log_prob(features) + sum(layer.log_ratio for layer in inferred)

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(log_det)) + log_det

    def encode(self, images, seeds):
        """The posteriors' central values from the top down, float32 [N, *latent_shape]; `seeds`: of the dequantisation."""
        evidence = self.encoder(self.features(images, RowNoise(seeds))[0])
        _, inferred = self.decoder.infer(evidence, None, LATENT)
        return self.decoder.join([layer.latents for layer in inferred])

    def decode(self, latents):
        """Images uint8 [N, H, W, C]: the decoder's mean through the flow."""
        return units.quantize(self.pixels(self.decoder.decode(latents)))


MODEL = CQF
