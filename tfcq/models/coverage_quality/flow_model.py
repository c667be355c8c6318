"""The base of CQF and RealNVP: a flow between images and features, a loss of a likelihood and one of a discriminator.

An image x8 becomes pixels v = x8 + u, u ~ U[0, 1); l = logit(0.05 + 0.9 v / 256); features y = f(l), with f a RealNVP in the
direction from image to feature. The system defines the distribution of features. Each loss may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq import images as units
from tfcq.config import CQFConfig, RealNVPConfig
from tfcq.distributions.pixels import pixel_bijector
from tfcq.engine.players import BalanceWarning, Objective, Player, Terms
from tfcq.flows.image_flow import ImageFlow
from tfcq.models.base import Array, Noise
from tfcq.models.class_conditional import ClassConditional
from tfcq.models.coverage_quality import adversary
from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.networks.host_variables import value_of
from tfcq.networks.projection import ClassProjection
from tfcq.randomness import StepNoise

DEQUANTIZATION, LATENT = 0, 1
"""Tags of the draws; a system with several layers of latents numbers them from LATENT on."""


class FlowModel(ClassConditional):
    """Base of both. A system defines `coverage_loss`, `generate_features` and the variables that each loss trains.

    Args:
        config: the configuration of the system, which has `AdversaryOptions` and `FlowOptions`.
        image_shape: (H, W, C).
        smallest_size: side at which the discriminator stops halving images, in pixels.
        seed: seed of the weights and of the noise of training.
        name: name of the model.
        classes: {name of a class: its probability}, if flow and discriminator depend on the class of an image; None: they do not.
    """

    def __init__(
        self,
        config: CQFConfig | RealNVPConfig,
        image_shape: tuple[int, int, int],
        smallest_size: int,
        seed: int,
        name: str,
        classes: Mapping[str, float] | None = None,
    ):
        super().__init__(image_shape, seed, name)
        self.set_classes(classes)
        self.config: CQFConfig | RealNVPConfig = config
        self.flow = ImageFlow.of(config, seed, condition_size=len(self.class_names))
        self.flow.build((None, *self.image_shape))
        self.discriminator: keras.Sequential | None = None
        if config.quality_weight:
            self.discriminator = adversary.build(config, self.image_shape, smallest_size)
            if self.class_names:
                self.class_projection = ClassProjection(len(self.class_names), self.discriminator.layers[-2].kernel.shape[0])

    # Hooks that a system defines.

    def coverage_loss(self, images: tf.Tensor, noise: Noise, shared: Any) -> Terms:
        """L_C, the loss of an objective, nats per image."""
        raise NotImplementedError

    def coverage_variables(self) -> list[keras.Variable]:
        """The variables that L_C trains."""
        raise NotImplementedError

    def quality_variables(self) -> list[keras.Variable]:
        """The variables that L_Q trains, without those of networks that it only passes through."""
        raise NotImplementedError

    def generate_features(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Features of generated images, float32 [N, H, W, C], in training; `condition`: their classes, if there are any."""
        raise NotImplementedError

    def initialize_networks(self, features: tf.Tensor) -> None:
        """Runs the networks other than the flow once, eagerly, on `features` of real images; does nothing by default.

        Weight-normalised layers initialise themselves from their inputs.
        """

    # What follows from them.

    @property
    def transform(self) -> tfp.bijectors.Bijector:
        """A fresh bijector from the flow's images to pixels. It is not stored, because TFP's bijectors cache tensors."""
        return pixel_bijector(self.config.pixel_transform)

    def players(self) -> list[Player]:
        players: list[Player] = []
        objectives: list[Objective] = []
        if self.config.coverage:
            objectives.append(Objective(self.coverage_loss, self.coverage_variables()))
        if self.discriminator:
            judging = [*self.discriminator.trainable_variables]
            judging += self.class_projection.trainable_variables if self.class_names else []
            discriminator = Objective(self._discriminator_loss, judging)
            players.append(Player("discriminator", [discriminator], turns=self.config.discriminator_steps))
            objectives.append(Objective(self._quality_loss, self.quality_variables()))
        return [*players, Player("generator", objectives)]

    def balance_warning(self, logs: dict[str, float]) -> BalanceWarning | None:
        """A warning if mean logs show that discriminator and generator have lost their balance; None otherwise."""
        return adversary.balance_warning(self.config, logs)

    def initialize(self, images: tf.Tensor) -> None:
        """Data-dependent initialisation from uint8 [N, H, W, C]: of the flow's ActNorm layers and weight-normalised networks."""
        pixels = units.dequantize(images, 0.5)
        features = self.flow.initialize(self.transform.inverse(pixels))
        if self.config.data_dependent_initialization:
            with data_dependent_initialization():
                self.initialize_networks(features)
                if self.discriminator:
                    self.discriminator(units.to_network_range(pixels))

    def shared_tensors(self, images: tf.Tensor, noise: StepNoise, kept: Any = None) -> dict[str, Any]:
        """{"generated": the generated images of a step, float32 [N, H, W, C] around [-1, 1]}; empty without a discriminator."""
        condition = self.unpacked(images)[1]  # generated images have the classes of the real ones
        if not self.discriminator:
            return {}
        return {"generated": self._shown(self.generate_features(noise, condition), condition)}

    def features(
        self, images: Array, noise: Noise, training: bool = False, condition: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Features y of dequantised images, float32 [N, H, W, C], and log|det dy/dv|, [N], nats."""
        pixels = units.dequantize(images, noise.uniform(self.image_shape, DEQUANTIZATION))
        transform = self.transform
        features, log_det = self.flow.inverse_and_log_det(transform.inverse(pixels), training=training, condition=condition)
        return features, log_det + transform.inverse_log_det_jacobian(pixels, event_ndims=3)

    def pixels(self, features: Array, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Pixels float32, around [0, 256), of features; does not update the statistics of the flow."""
        unbounded, _ = self.flow.forward_and_log_det(features, training=False, condition=condition)
        return self.transform.forward(unbounded)

    def _shown(self, features: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Images as the discriminator sees them, around [-1, 1], of features."""
        return units.to_network_range(self.pixels(features, condition))

    def _with_penalty(
        self, loss: tf.Tensor, logs: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """L_C, [N], nats, with the penalty on the flow's magnitudes, if there is one, which the logs then have, too."""
        if not self.config.flow_magnitude_penalty:
            return loss, logs
        penalty = self.config.flow_magnitude_penalty * self.flow.squared_magnitudes()
        return loss + penalty, logs | {"flow_magnitude_penalty": penalty}

    def _quality_loss(self, images, noise, shared):
        judge = self._judge_of(self.unpacked(images)[1])
        return adversary.quality_terms(self.config, judge, shared["generated"], value_of(self.step))

    def _discriminator_loss(self, images, noise, shared):
        images, condition = self.unpacked(images)
        return adversary.discriminator_terms(self.config, self._judge_of(condition), images, shared["generated"], noise)

    def _judge_of(self, condition):
        assert self.discriminator is not None  # otherwise there is no such objective
        if condition is None:
            return self.discriminator
        return adversary.given_classes(self.discriminator, self.class_projection, condition)
