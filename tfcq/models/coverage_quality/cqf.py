"""CQF: coverage and quality driven training (Shmelkov, Lucas, Alahari, Schmid, Verbeek 2018; the later version is Adaptive
Density Estimation, Lucas et al. 2019).

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); features y = f(l), with f a RealNVP in the
direction from image to feature. A VAE models y:

    L_C = E_q[-log N(y; mu(z), sigma^2 I)] + KL(q(z|y) || p(z)) - log|det dy/dv|                      (Eq. 6)
    L_Q = -E_z[logit D(v(mu(z)))]                                                                    (Eq. 7)

sigma is one learned scalar. L_C, in nats per image, trains encoder, decoder, sigma and flow. lambda L_Q passes through the flow,
on decoder means, and trains only the decoder and its priors. The discriminator D is trained with cross-entropy and a gradient
penalty. z is a hierarchy of latents, inferred from the top down (`tfcq.networks.hierarchy`); KL(q || p) is the sum over its
layers, each given the draws above it.

With batch normalisation in the decoder, the features of a step's real and of its generated images are normalised together.

With classes (`--class_conditional`, not in the papers) everything is given the class y of the image: a class shifts means and
log-deviations of the priors p(z | y), and of the first layer at each place; the encoder's evidence, so q(z | y, x); the first
convolution of each coupling of the flow; and D is a projection discriminator (Miyato and Koyama 2018). All of it is 0 at first,
where the model is the one without classes. Training's bound, of log p(x | y), is called class_elbo.

Departures from the paper: ActNorm is the flow's default normalisation, because with batch normalisation the generating direction
uses statistics that differ from those in training; D and the generator use the same draws of a step. In residual networks
latents enter the state by a 1x1 convolution of their own, of a size with which all layers start alike, besides 0.1 times the
residual; in the program of Kingma et al. 2016, which the paper uses, by the latter alone.

Rows of Table 1: `gan` has only L_Q and neither encoder nor flow, `vae` only L_C without a flow, `cq` both losses without a flow,
`cqf` everything; `tfcq.reproduction.tables` has their options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.config import CQFConfig
from tfcq.engine.players import Terms
from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.losses.free_bits import free_bits
from tfcq.models.base import Array, Noise, log_mean_exp
from tfcq.models.coverage_quality.flow_model import LATENT, FlowModel
from tfcq.networks.encoder import Encoder
from tfcq.networks.hierarchy import Decoder
from tfcq.networks.latents import Inferred
from tfcq.networks.normalization import frozen_statistics, statistics_may_move
from tfcq.networks.plan import Plan
from tfcq.randomness import RowNoise, StepNoise, row_seeds

tfd = tfp.distributions

_OF_LATENTS = frozenset({"encode", "decode", "reconstruct", "interpolate"})


class CQF(FlowModel):
    """CQF; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights and of the noise of training.
        name: name of the model.
        classes: {name of a class: its probability}, with `class_conditional`; None: without classes.
    """

    config: CQFConfig

    def __init__(
        self,
        config: CQFConfig,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        name: str = "cqf",
        classes: Mapping[str, float] | None = None,
    ):
        super().__init__(config, image_shape, config.discriminator_size or config.latent_size, seed, name, classes)
        num_classes = len(self.class_names)
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
            context_channels=(config.iaf_width or None) if config.posterior == "iaf" else 0,
            inference=config.coverage,
            width_scale=config.width_scale,
        )

        def make_flow(seed: int | None, side: int, width: int, gain: float) -> InverseAutoregressiveFlow:
            return InverseAutoregressiveFlow(width, config.iaf_layers, 1 if side == 1 else 3, seed, gain)

        self.decoder = Decoder(plan, make_flow, seed, num_classes=num_classes)
        self.latent_shape = self.decoder.latent_shape
        self.encoder: Encoder | None = None
        self.log_sigma: keras.Variable | None = None
        if config.coverage:
            self.encoder = Encoder(plan, seed + 1, num_classes=num_classes)
            self.log_sigma = self.add_weight(
                name="log_sigma",
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(math.log(config.initial_sigma)),
            )
        self.built = True

    @property
    def abilities(self) -> frozenset[str]:
        both = {"sample", "interpolate_noise", "decode"}
        more = {"likelihood", "encode", "reconstruct", "interpolate"}
        own = frozenset(both | more if self.config.coverage else both)
        if not self.class_names:
            return own
        # Latents are decoded by a flow that needs the class, which they do not say.
        given = {f"{name}_given_class" for name in _OF_LATENTS & own}
        of_classes = self.abilities_of_classes if self.config.coverage else {"sample_class", "name_classes"}
        return (own - _OF_LATENTS) | given | of_classes

    @property
    def trained_bound(self) -> str:  # type: ignore[override]
        return "class_elbo" if self.class_names else "elbo"

    @property
    def weights_changed(self) -> str:  # type: ignore[override]
        """See `Trainer`: residual networks have other weights than those that earlier versions trained."""
        if self.config.network != "residual":
            return ""
        return (
            "those of --network=residual changed after commit 39bd3e7 of tfcq 0.1.0 (CHANGELOG.md): a run that an earlier "
            "version began goes on with that version, whose commit is in its environment.json"
        )

    def coverage_variables(self) -> list[keras.Variable]:
        if self.encoder is None:
            raise self.cannot("likelihood")
        networks = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        return [*networks, self.log_sigma, *self.flow.trainable_variables]

    def quality_variables(self) -> list[keras.Variable]:
        return self.decoder.trainable_variables

    def initialize_networks(self, features: tf.Tensor) -> None:
        noise = RowNoise(row_seeds(len(features), self.seed))
        if self.config.coverage:
            self.decoder.infer(self._evidence(features), noise, LATENT)
        else:
            self.decoder.generate(noise, LATENT)

    # The model.

    def _evidence(
        self, features: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """The encoder's evidence for each layer of latents."""
        if self.encoder is None:
            raise self.cannot("encode")
        return self.encoder(features, training=training, condition=condition)

    def _feature_distribution(self, means: tf.Tensor) -> tfp.distributions.Distribution:
        """p(y|z): N(mu(z), sigma^2 I)."""
        if self.log_sigma is None:
            raise self.cannot("likelihood")
        # One sigma per row, so that its gradient is summed row by row. TensorFlow's threads sum a whole batch into one
        # scalar in an order that changes from run to run, and with it the last bit.
        sigma = tf.fill([tf.shape(means)[0], 1, 1, 1], tf.exp(self.log_sigma.value))
        return tfd.Independent(tfd.Normal(means, sigma), 3)

    # The losses.

    def _coverage_terms(
        self, images: Array, noise: Noise, training: bool = False, condition: tf.Tensor | None = None
    ) -> tuple[dict[str, tf.Tensor], list[Inferred]]:
        """The terms of L_C, [N] each, nats, and the results of all layers of latents."""
        features, log_det = self.features(images, noise, training, condition)
        evidence = self._evidence(features, training, condition)
        means, inferred = self.decoder.infer(evidence, noise, LATENT, training, condition)
        return self._terms_of(features, log_det, means, inferred), inferred

    def _terms_of(self, features, log_det, means, inferred):
        reconstruction = -self._feature_distribution(means).log_prob(features)
        kl = sum(tf.reduce_sum(layer.kl, axis=-1) for layer in inferred)
        terms = {"elbo": log_det - reconstruction - kl, "kl": kl, "reconstruction": reconstruction, "log_det": log_det}
        if len(inferred) > 1:
            terms |= {f"kl/{number}": tf.reduce_sum(layer.kl, axis=-1) for number, layer in enumerate(inferred)}
        return terms

    @property
    def _normalizes_jointly(self):
        """Whether reconstructions and generated images go through the decoder as one batch.

        Batch normalisation with statistics for each of them would let the decoder be two functions, one of them trained by
        the likelihood alone and one by the discriminator alone, of which the moving statistics can keep one only.
        """
        return bool(self.config.coverage and self.discriminator and self.config.network_normalization == "batch")

    def shared_tensors(self, images: tf.Tensor, noise: StepNoise, kept: Any = None) -> dict[str, Any]:
        """As the base's; where batch normalisation sees both, also "terms" of L_C and "kls", [N, C] of each layer of latents."""
        if not self._normalizes_jointly:
            return super().shared_tensors(images, noise, kept)
        images, condition = self.unpacked(images)
        # With micro-batches, the discriminator's turn computes these tensors, too. A flow's batch normalisation has no
        # trainable weights that say whose turn moves its statistics (`statistics_may_move`). log_sigma says it for the flow:
        # the same player trains both.
        with frozen_statistics(not statistics_may_move(self.log_sigma)):
            features, log_det = self.features(images, noise, training=True, condition=condition)
            evidence = self._evidence(features, training=True, condition=condition)
            means, inferred, generated = self.decoder.infer_and_generate(evidence, noise, noise.fold(1), LATENT, condition)
        terms = self._terms_of(features, log_det, means, inferred)
        return {"generated": self._shown(generated, condition), "terms": terms, "kls": [layer.kl for layer in inferred]}

    def coverage_loss(self, images: tf.Tensor, noise: Noise, shared: dict[str, Any]) -> Terms:
        if self._normalizes_jointly:
            terms, kls = shared["terms"], shared["kls"]
        else:
            images, condition = self.unpacked(images)
            terms, inferred = self._coverage_terms(images, noise, training=True, condition=condition)
            kls = [layer.kl for layer in inferred]
        kl = sum(free_bits(of_layer, self.config.free_bits) for of_layer in kls)
        total = terms["reconstruction"] - terms["log_det"] + kl
        logs = {} if self.log_sigma is None else {"sigma": tf.exp(self.log_sigma.value)}
        return Terms(*self._with_penalty(total, logs), self.bound_measures(terms, self.trained_bound))

    def generate_features(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return self.decoder.generate(noise, LATENT, training=True, condition=condition)

    # Abilities.

    def draw_given(self, noise: Noise, temperature: float | Array, condition: tf.Tensor | None) -> Array:
        """Images uint8 [N, H, W, C]: the decoder's means through the flow, like those that the discriminator is trained on."""
        return units.quantize(self.pixels(self.decoder.generate(noise, LATENT, temperature, condition=condition), condition))

    def elbo_terms(self, images: Array, seeds: Array) -> dict[str, Array]:
        """-L_C with one draw of (u, z): elbo = log_det - reconstruction - kl, and kl/i of layer i from the top.

        A layer's KL is exact given the draws above it or, if its posterior has a flow, estimated from this draw. With classes it
        is `marginal_bound`.
        """
        noise = RowNoise(seeds)
        return self.marginal_bound(lambda condition: self._coverage_terms(images, noise, condition=condition)[0], images)

    def log_prob(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """log 1/K sum_k p(v, z_k) / q(z_k | v), with one u per image and K draws of z: a bound that tightens with K.

        Memory does not grow with K, because one draw for all rows is made at a time.

        Args:
            images: uint8 [N, H, W, C].
            seeds: int32 [N, 2].
            num_importance_samples: K, int or scalar int tensor.
        """
        return self.marginal(
            lambda condition: self.log_prob_given(images, seeds, num_importance_samples, condition), images
        )

    def log_prob_given(
        self, images: Array, seeds: Array, num_importance_samples: int | Array, condition: tf.Tensor | None
    ) -> tf.Tensor:
        noise = RowNoise(seeds)
        features, log_det = self.features(images, noise, condition=condition)
        evidence = self._evidence(features, condition=condition)

        def log_weight(k):
            means, inferred = self.decoder.infer(evidence, noise.fold(k), LATENT, condition=condition)
            return self._feature_distribution(means).log_prob(features) + sum(layer.log_ratio for layer in inferred)

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(log_det)) + log_det

    def encode(self, images: Array, seeds: Array) -> Array:
        """The posteriors' central values from the top down, float32 [N, *latent_shape]; `seeds` decide the dequantisation."""
        return self.encode_given(images, seeds, None)

    def decode(self, latents: Array) -> Array:
        """Images uint8 [N, H, W, C]: the decoder's means through the flow."""
        return self.decode_given(latents, None)

    def encode_given(self, images: Array, seeds: Array, condition: tf.Tensor | None) -> tf.Tensor:
        features, _ = self.features(images, RowNoise(seeds), condition=condition)
        _, inferred = self.decoder.infer(self._evidence(features, condition=condition), None, LATENT, condition=condition)
        return self.decoder.join([layer.latents for layer in inferred])

    def decode_given(self, latents: Array, condition: tf.Tensor | None) -> Array:
        return units.quantize(self.pixels(self.decoder.decode(latents), condition))


MODEL = CQF
