"""Losses of the game between a discriminator and a generator, on logits: D = sigmoid(logit). One value per example."""

import tensorflow as tf


def discriminator_cross_entropy(real_logits, generated_logits):
    """-log D(x) - log(1 - D(G(z))) (paper 000, Eq. 1, negated).

    Args:
        real_logits, generated_logits: float32 [N].

    Returns:
        float32 [N], nats; row i pairs real image i with generated image i.
    """
    return tf.nn.softplus(-real_logits) + tf.nn.softplus(generated_logits)


def generator_log_ratio(generated_logits):
    """-log(D / (1 - D)) = -logit (paper 000, Eq. 7). float32 [N] -> float32 [N], nats."""
    return -generated_logits


def gradient_penalty(discriminator, real, generated, mix):
    """(|grad_x D(x)|_2 - 1)^2 at points x between real and generated images (Gulrajani et al. 2017, Eq. 3).

    Args:
        discriminator: function from images float32 [N, H, W, C] to logits [N].
        real, generated: float32 [N, H, W, C], in the range that the discriminator sees.
        mix: float32 [N, 1, 1, 1] in [0, 1], the share of the real image.

    Returns:
        float32 [N], without its coefficient. The gradient is taken in float32.
    """
    points = mix * real + (1.0 - mix) * generated
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        logits = discriminator(points)
    gradient = tape.gradient(logits, points)
    # The constant keeps the root's slope finite where a gradient is exactly zero.
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3]) + 1e-12)
    return tf.square(norm - 1.0)
