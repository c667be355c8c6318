"""The discriminator's part of the systems that have one: the network, its loss, and what the generator feels of it.

Both losses look at the same generated images (`share` of the model): the generator's is taken with the discriminator that has
just learned from them.
"""

import tensorflow as tf

from tfcq import images as units
from tfcq.engine.players import Terms
from tfcq.losses import adversarial
from tfcq.networks import convolutional, residual

DEQUANTIZATION, MIX = 0, 1
"""Tags of the draws of a discriminator's turn."""


def build(options, image_shape, smallest_size):
    """The discriminator of `tfcq.config.groups.AdversaryOptions`: images float32 [N, H, W, C] about [-1, 1] -> logits [N].

    Args:
        options: `AdversaryOptions`.
        image_shape: (H, W, C).
        smallest_size: side, in pixels, down to which images are halved.
    """
    layout = {
        "width": options.discriminator_width,
        "weight_normalization": options.discriminator_weight_normalization,
        "name": "discriminator",
    }
    if options.discriminator_network == "residual":
        return residual.discriminator(image_shape, smallest_size, blocks=options.discriminator_blocks, **layout)
    return convolutional.discriminator(image_shape, smallest_size, **layout)


def discriminator_terms(options, discriminator, images, generated, noise):
    """The discriminator's loss (Eq. 1, negated) with its gradient penalty, `Terms` of [N].

    Args:
        options: `AdversaryOptions`.
        discriminator: function from images about [-1, 1] to logits [N].
        images: uint8 [N, H, W, C], real.
        generated: float32 [N, H, W, C] about [-1, 1]; no gradient goes into them.
        noise: of this turn.
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


def quality_terms(options, discriminator, generated, step):
    """lambda L_Q (Eq. 7) on `generated` float32 [N, H, W, C] about [-1, 1]; lambda at `step`, `Terms` of [N]."""
    loss = adversarial.GENERATOR_LOSSES[options.generator_loss](discriminator(generated))
    weight = options.quality_weight
    if options.quality_ramp_steps:
        weight *= tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / options.quality_ramp_steps)
    return Terms(weight * loss, {"quality": loss, "quality_weight": weight})
