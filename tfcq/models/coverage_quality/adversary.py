"""The discriminator of the systems that have one: the network, its loss, and the generator's loss.

Both losses use the same generated images (`shared_tensors` of the model). The generator's loss is computed with the
discriminator that has just been trained on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfcq import images as units
from tfcq.config.groups import AdversaryOptions
from tfcq.engine.players import BalanceWarning, Terms
from tfcq.losses import adversarial
from tfcq.models.base import Noise
from tfcq.networks import convolutional, residual
from tfcq.networks.projection import ClassProjection

DEQUANTIZATION, MIX = 0, 1
"""Tags of the draws in the discriminator's turn."""

CHANCE_LEVEL = 2.0 * math.log(2.0)
"""The cross-entropy, nats, of a discriminator that does not distinguish: D = 1/2 for every real and every generated image."""

_AHEAD, _BEHIND = 0.3, 2.0
"""Multiples of `CHANCE_LEVEL` (not in the paper) beyond which a mean cross-entropy is a lost balance.

Good runs of CQF stayed between 0.4 and 0.75; 0.29 (with too small a quality_weight) and 2.9 (too large a one) were lost.
"""

_SAME = 1e-3
"""Mean logits of real and of generated images that are nearer than this are those of a discriminator that has died.

In a run of CQF whose units had all stopped they were at most 2e-4 apart, and the gradient penalty was 1.0, that of no gradient;
in a run beside it whose discriminator lived, at least 0.05. The cross-entropy, at chance level, shows nothing of it.
"""

_SLOWER, _FASTER = ("lower", "higher", "lower"), ("higher", "lower", "higher")
"""Quality weight, discriminator's rate and gradient penalty that slow the generator down, or the discriminator."""


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


def given_classes(
    discriminator: keras.Sequential, projection: ClassProjection, condition: tf.Tensor
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The discriminator of images of given classes (Miyato and Koyama 2018): its logits, and the projection of its features.

    Args:
        discriminator: from `build`; its last layers are a Dense and the Reshape of the logits.
        projection: of the features before the Dense.
        condition: classes as one-hot, float32 [N, classes].

    Returns:
        A function from images around [-1, 1], k N of them in k groups of these classes, to logits [k N].
    """
    *before, dense, reshape = discriminator.layers

    def judge(images):
        features = images
        for layer in before:
            features = layer(features)
        classes = tf.tile(condition, [tf.shape(images)[0] // tf.shape(condition)[0], 1])
        return reshape(dense(features)) + projection(features, classes)

    return judge


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
    logs = {
        "cross_entropy": cross_entropy,
        "real_logits": real_logits,
        "generated_logits": generated_logits,
        "accuracy_real": tf.cast(real_logits > 0.0, tf.float32),
        "accuracy_generated": tf.cast(generated_logits < 0.0, tf.float32),
    }
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


def balance_warning(options: AdversaryOptions, logs: Mapping[str, float]) -> BalanceWarning | None:
    """A warning if mean logs show that discriminator and generator have lost their balance; None otherwise.

    While quality_weight still rises (quality_ramp_steps), a discriminator that is ahead is no lost balance.

    Args:
        options: the options of the discriminator.
        logs: {"player/term": mean over several steps}, with the terms of `discriminator_terms` and `quality_terms`.
    """
    cross_entropy = logs.get("discriminator/cross_entropy")
    if cross_entropy is None:
        return None
    apart = abs(logs["discriminator/real_logits"] - logs["discriminator/generated_logits"])
    if apart < _SAME and abs(cross_entropy - CHANCE_LEVEL) < 0.05 * CHANCE_LEVEL:
        penalty = f", a lower --gradient_penalty than {options.gradient_penalty:g}" if options.gradient_penalty else ""
        return BalanceWarning(
            "discriminator dead",
            "the discriminator answers the same to real and to generated images, and learns no more: its units have died; in a "
            f"new run a lower --discriminator_learning_rate beside --learning_rate{penalty} or a longer --warmup_steps would "
            "help",
        )
    ramp = logs.get("generator/quality_weight", options.quality_weight) < 0.999 * options.quality_weight
    if cross_entropy > _BEHIND * CHANCE_LEVEL:
        kind, problem, weight, rate, penalty = "discriminator behind", "the generator outruns the discriminator", *_SLOWER
    elif cross_entropy < _AHEAD * CHANCE_LEVEL and not ramp:
        kind, problem, weight, rate, penalty = "discriminator ahead", "the discriminator has won", *_FASTER
    else:
        return None
    # Without the likelihood the weight only scales the generator's loss, which optimizers such as Adam undo.
    help_by = [f"a {weight} --quality_weight than {options.quality_weight:g}"] if options.coverage else []
    help_by += [f"a {rate} --discriminator_learning_rate beside --learning_rate"]
    if options.gradient_penalty or penalty == "higher":
        help_by += [f"a {penalty} --gradient_penalty than {options.gradient_penalty:g}"]
    if kind == "discriminator behind":
        help_by += ["more stable training (--clip_norm, --warmup_steps, --ema_decay)"]
    accuracies = (f"{logs[f'discriminator/accuracy_{name}']:.0%} of {name}" for name in ("real", "generated"))
    return BalanceWarning(
        kind,
        f"{problem}: its cross-entropy is {cross_entropy:.3g} nats (chance level: {CHANCE_LEVEL:.3g}), and it recognises "
        f"{' and '.join(accuracies)} images; in a new run {', '.join(help_by[:-1])} or {help_by[-1]} would help",
    )
