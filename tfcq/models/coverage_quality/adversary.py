"""The discriminator of the systems that have one: the network, its loss, and the generator's loss.

Both losses use the same generated images (`shared_tensors` of the model). The generator's loss is computed with the
discriminator that has just been trained on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcq import images as units
from tfcq.config.groups import AdversaryOptions
from tfcq.engine.players import Terms
from tfcq.losses import adversarial
from tfcq.models.base import Noise
from tfcq.networks import convolutional, residual

DEQUANTIZATION, MIX = 0, 1
"""Tags of the draws in the discriminator's turn."""


def build(options: AdversaryOptions, image_shape: tuple[int, int, int], smallest_size: int) -> keras.Sequential:
    """Builds the discriminator: images float32 [N, H, W, C] around [-1, 1] to logits [N].

    Args:
        options: the options of the discriminator.
        image_shape: (H, W, C).
        smallest_size: side, in pixels, down to which images are halved.
    """
    layout: dict[str, Any] = {
        "width": options.discriminator_width,
        "weight_normalization": options.discriminator_weight_normalization,
        "name": "discriminator",
    }
    if options.discriminator_network == "residual":
        return residual.discriminator(image_shape, smallest_size, blocks=options.discriminator_blocks, **layout)
    return convolutional.discriminator(image_shape, smallest_size, network=options.discriminator_network, **layout)


def discriminator_terms(
    options: AdversaryOptions,
    discriminator: Callable[[tf.Tensor], tf.Tensor],
    images: tf.Tensor,
    generated: tf.Tensor,
    noise: Noise,
) -> Terms:
    """The discriminator's loss (Eq. 1, negated) with its gradient penalty.

    Args:
        options: the options of the discriminator.
        discriminator: function from images around [-1, 1] to logits [N].
        images: real images, uint8 [N, H, W, C].
        generated: generated images, float32 [N, H, W, C] around [-1, 1]; they get no gradient.
        noise: noise of this turn.
    """
    dequantization = noise.uniform(images.shape[1:], DEQUANTIZATION) if options.dequantize_real else 0.5
    real, generated = units.to_network_range(units.dequantize(images, dequantization)), tf.stop_gradient(generated)
    real_logits, generated_logits = tf.split(discriminator(tf.concat([real, generated], 0)), 2)
    cross_entropy = adversarial.discriminator_cross_entropy(real_logits, generated_logits)
    logs = {"cross_entropy": cross_entropy, "real_logits": real_logits, "generated_logits": generated_logits}
    if not options.gradient_penalty:
        return Terms(cross_entropy, logs)
    mix = noise.uniform((1, 1, 1), MIX)
    penalty = adversarial.gradient_penalty(discriminator, real, generated, mix, options.gradient_penalty_form)
    return Terms(cross_entropy + options.gradient_penalty * penalty, logs | {"gradient_penalty": penalty})


def quality_terms(
    options: AdversaryOptions, discriminator: Callable[[tf.Tensor], tf.Tensor], generated: tf.Tensor, step: tf.Tensor
) -> Terms:
    """The generator's loss lambda L_Q (Eq. 7), with lambda at `step`, of generated images float32 [N, H, W, C] around [-1, 1]."""
    loss = adversarial.GENERATOR_LOSSES[options.generator_loss](discriminator(generated))
    weight = options.quality_weight
    if options.quality_ramp_steps:
        weight *= tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / options.quality_ramp_steps)
    return Terms(weight * loss, {"quality": loss, "quality_weight": weight})
