"""CQF: coverage and quality driven training (paper 000: Shmelkov, Lucas, Alahari, Schmid, Verbeek 2018; its later version is
Adaptive Density Estimation, Lucas et al. 2019).

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); features y = f(l), with f the image ->
feature direction of a RealNVP. A VAE models y:

    L_C = E_q[-log N(y; mu(z), sigma^2 I)] + KL(q(z|y) || p(z)) - log|det dy/dv|                      (Eq. 6)
    L_Q = -E_z[logit D(v(mu(z)))]                                                                    (Eq. 7)

sigma is one learned scalar. L_C, in nats per image, trains encoder, decoder, sigma and flow. lambda L_Q passes through the
flow, on decoder means, and trains the decoder alone. The discriminator D has cross-entropy and a gradient penalty.

Where this departs from the paper: one latent layer with prior N(0, I) instead of a ladder (`_infer` and `_generate` are the
only places that know); ActNorm is the flow's default normalisation, because with batch normalisation the direction that
generates uses other statistics than the one that is trained.

Rows of Table 1: `gan` has only L_Q and neither encoder nor flow, `vae` only L_C without flow, `cq` both, `cqf` all.
"""

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.distributions.pixels import pixel_bijector
from tfcq.flows.image_flow import ImageFlow
from tfcq.losses import adversarial
from tfcq.models.base import GenerativeModel, Objective, Player, Terms
from tfcq.networks import convolutional
from tfcq.randomness import RowNoise

tfd = tfp.distributions

_DEQUANTIZATION, _LATENT, _MIX = range(3)  # tags of the draws
_LOG_SCALE_LIMIT = 7.0  # of the posterior, either way; keeps exp and log finite


class CQF(GenerativeModel):
    """See the module.

    Args:
        config: `tfcq.CQFConfig`.
        image_shape: (H, W, C).
        seed: of the noise of training, and of the flow's fixed parts.
    """

    def __init__(self, config, image_shape, seed=0, name="cqf"):
        super().__init__(image_shape, seed, name)
        self.config = config
        sizes = {"image_shape": self.image_shape, "latent_size": config.latent_size}
        coder = sizes | {
            "latent_channels": config.latent_channels,
            "latent_form": config.latent_form,
            "width": config.width,
            "normalization": config.network_normalization,
        }
        self.decoder = convolutional.decoder(**coder)
        self.latent_shape = tuple(self.decoder.input_shape[1:])
        self.flow = ImageFlow(
            scales=config.flow_scales,
            couplings=config.flow_couplings,
            blocks=config.flow_blocks,
            width=config.flow_width,
            normalization=config.flow_normalization,
            weight_normalization=config.flow_weight_normalization,
            conditioner_batch_normalization=config.flow_conditioner_batch_normalization,
            output_kernel_size=config.flow_output_kernel_size,
            seed=seed,
            name="flow",
        )
        self.flow.build((None, *self.image_shape))
        self.encoder = self.log_sigma = self.discriminator = None
        if config.coverage:
            self.encoder = convolutional.encoder(**coder)
            self.log_sigma = self.add_weight(
                name="log_sigma",
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(math.log(config.initial_sigma)),
            )
        if config.quality_weight:
            self.discriminator = convolutional.discriminator(**sizes, width=config.discriminator_width)
        self.built = True

    @property
    def abilities(self):
        both = {"sample", "decode"}
        return frozenset(both | {"likelihood", "encode", "reconstruct"} if self.config.coverage else both)

    def players(self):
        players, objectives = [], []
        if self.config.coverage:
            covered = [
                *self.encoder.trainable_variables,
                *self.decoder.trainable_variables,
                self.log_sigma,
                *self.flow.trainable_variables,
            ]
            objectives.append(Objective(self._coverage_loss, covered))
        if self.config.quality_weight:
            discriminator = Objective(self._discriminator_loss, self.discriminator.trainable_variables)
            players.append(Player("discriminator", [discriminator], turns=self.config.discriminator_steps))
            objectives.append(Objective(self._quality_loss, self.decoder.trainable_variables))
        return [*players, Player("generator", objectives)]

    def initialize(self, images):
        """Data-dependent initialisation of the flow's ActNorm layers on uint8 [N, H, W, C]."""
        self.flow.initialize(pixel_bijector(self.config.pixel_transform).inverse(units.dequantize(images, 0.5)))

    # The model.

    def _features(self, images, noise, training=False):
        """Features y of dequantised images, and log|det dy/dv|, [N], nats."""
        pixels = units.dequantize(images, noise.uniform(self.image_shape, _DEQUANTIZATION))
        transform = pixel_bijector(self.config.pixel_transform)
        features, log_det = self.flow.inverse_and_log_det(transform.inverse(pixels), training=training)
        return features, log_det + transform.inverse_log_det_jacobian(pixels, event_ndims=3)

    def _pixels(self, features):
        """Pixels, float32, near [0, 256), of features; trains nothing and updates nothing in the flow by itself."""
        unbounded, _ = self.flow.forward_and_log_det(features, training=False)
        return pixel_bijector(self.config.pixel_transform).forward(unbounded)

    def _infer(self, features, training=False):
        """The posterior q(z|y), a TFP distribution over latents."""
        loc, log_scale = tf.split(self.encoder(features, training=training), 2, axis=-1)
        # The gradient goes through the limits: one example that leaves them would otherwise stay outside for good.
        log_scale = tfp.math.clip_by_value_preserve_gradient(log_scale, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)
        return tfd.Independent(tfd.Normal(loc, tf.exp(log_scale)), len(self.latent_shape))

    def _prior(self):
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_shape), 1.0), len(self.latent_shape))

    def _generate(self, noise, temperature=1.0, training=False):
        """Decoder means, float32 [N, H, W, C], of latents drawn from the prior."""
        latents = noise.normal(self.latent_shape, _LATENT)
        temperature = tf.reshape(tf.cast(temperature, tf.float32), [-1] + [1] * len(self.latent_shape))
        return self.decoder(latents * temperature, training=training)

    def _feature_distribution(self, means):
        """p(y|z): N(mu(z), sigma^2 I)."""
        # One sigma a row: its gradient is then summed row by row. TensorFlow's threads sum a whole batch into one scalar in
        # an order that changes from run to run, and so does the last bit.
        sigma = tf.fill([tf.shape(means)[0], 1, 1, 1], tf.exp(self.log_sigma.value))
        return tfd.Independent(tfd.Normal(means, sigma), 3)

    @staticmethod
    def _draw(posterior, noise):
        """A reparametrised draw of latents; its noise is ours because TFP's would differ from replica to replica."""
        normal = posterior.distribution
        return normal.loc + normal.scale * noise.normal(posterior.event_shape, _LATENT)

    # The losses.

    def _coverage_terms(self, images, noise, training=False):
        features, log_det = self._features(images, noise, training)
        posterior = self._infer(features, training)
        means = self.decoder(self._draw(posterior, noise), training=training)
        reconstruction = -self._feature_distribution(means).log_prob(features)
        kl = tfd.kl_divergence(posterior, self._prior())
        return {"elbo": log_det - reconstruction - kl, "kl": kl, "reconstruction": reconstruction, "log_det": log_det}

    def _coverage_loss(self, images, noise):
        logs = self._coverage_terms(images, noise, training=True)
        logs["bits_per_dim"] = units.bits_per_dim(logs["elbo"], self.image_shape)
        return Terms(-logs["elbo"], logs | {"sigma": tf.exp(self.log_sigma.value)})

    def _quality_loss(self, images, noise):
        # Batch statistics of the decoder are kept by the likelihood where there is one.
        generated = self._generated(noise.fold(1), keep_statistics=not self.config.coverage)
        log_ratio = adversarial.generator_log_ratio(self.discriminator(generated))
        return Terms(self.config.quality_weight * log_ratio, {"quality": log_ratio})

    def _discriminator_loss(self, images, noise):
        dequantization = noise.uniform(self.image_shape, _DEQUANTIZATION) if self.config.dequantize_real else 0.5
        real = units.to_network_range(units.dequantize(images, dequantization))
        generated = tf.stop_gradient(self._generated(noise.fold(1)))
        real_logits, generated_logits = tf.split(self.discriminator(tf.concat([real, generated], 0)), 2)
        cross_entropy = adversarial.discriminator_cross_entropy(real_logits, generated_logits)
        logs = {"cross_entropy": cross_entropy, "real_logits": real_logits, "generated_logits": generated_logits}
        if not self.config.gradient_penalty:
            return Terms(cross_entropy, logs)
        penalty = adversarial.gradient_penalty(self.discriminator, real, generated, noise.uniform((1, 1, 1), _MIX))
        return Terms(cross_entropy + self.config.gradient_penalty * penalty, logs | {"gradient_penalty": penalty})

    def _generated(self, noise, keep_statistics=False):
        """Generated images for the discriminator, float32 [N, H, W, C] around [-1, 1]."""
        if keep_statistics:
            means = self._generate(noise, training=True)
        else:
            with keras.StatelessScope():  # assignments of batch statistics are dropped
                means = self._generate(noise, training=True)
        return units.to_network_range(self._pixels(means))

    # What it can do.

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C]: the decoder's mean through the flow, as the discriminator saw them."""
        return units.quantize(self._pixels(self._generate(RowNoise(seeds), temperature)))

    def elbo(self, images, seeds):
        """-L_C with one draw of (u, z), float32 [N]; the KL is exact."""
        self._require("likelihood")
        return self._coverage_terms(images, RowNoise(seeds))["elbo"]

    def log_prob(self, images, seeds, num_importance_samples=1):
        """log 1/K sum_k p(v, z_k) / q(z_k | v), one u an image and K draws of z: a bound that tightens with K.

        Memory does not grow with K: one draw of all rows at a time.

        Args:
            images: uint8 [N, H, W, C].
            seeds: int32 [N, 2].
            num_importance_samples: K, int or scalar int tensor.
        """
        self._require("likelihood")
        noise = RowNoise(seeds)
        features, log_det = self._features(images, noise)
        posterior, prior = self._infer(features), self._prior()

        def add_draw(k, log_sum):
            latents = self._draw(posterior, noise.fold(k))
            log_weight = (
                self._feature_distribution(self.decoder(latents)).log_prob(features)
                + prior.log_prob(latents)
                - posterior.log_prob(latents)
            )
            return k + 1, tfp.math.log_add_exp(log_sum, log_weight)

        count = tf.convert_to_tensor(num_importance_samples, tf.int32)
        start = tf.fill(tf.shape(log_det), tf.constant(-float("inf")))
        _, log_sum = tf.while_loop(lambda k, _: k < count, add_draw, (tf.constant(0), start), parallel_iterations=1)
        return log_sum - tf.math.log(tf.cast(count, tf.float32)) + log_det

    def encode(self, images, seeds):
        """Posterior means float32 [N, *latent_shape]; `seeds` decide the dequantisation."""
        self._require("encode")
        return self._infer(self._features(images, RowNoise(seeds))[0]).distribution.loc

    def decode(self, latents):
        """Images uint8 [N, H, W, C]: the decoder's mean through the flow."""
        return units.quantize(self._pixels(self.decoder(latents)))

    def _require(self, ability):
        if ability not in self.abilities:
            raise self.cannot(ability)


MODEL = CQF
