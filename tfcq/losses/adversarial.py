"""Losses of the game between a discriminator and a generator, on logits: D = sigmoid(logit). One value per example."""

from collections.abc import Callable

import tensorflow as tf

from tfcq.errors import UserError


def discriminator_cross_entropy(real_logits: tf.Tensor, generated_logits: tf.Tensor) -> tf.Tensor:
    """-log D(x) - log(1 - D(G(z))) (Shmelkov et al. 2018, Eq. 1, negated).

    Args:
        real_logits, generated_logits: float32 [N].

    Returns:
        float32 [N], nats; row i pairs real image i with generated image i.
    """
    return tf.nn.softplus(-real_logits) + tf.nn.softplus(generated_logits)


def generator_log_ratio(generated_logits: tf.Tensor) -> tf.Tensor:
    """-log(D / (1 - D)) = -logit (Shmelkov et al. 2018, Eq. 7). float32 [N] -> float32 [N], nats."""
    return -generated_logits


def generator_non_saturating(generated_logits: tf.Tensor) -> tf.Tensor:
    """-log D (Goodfellow et al. 2014, section 3): steep where D is confident. float32 [N] -> float32 [N], nats."""
    return tf.nn.softplus(-generated_logits)


def generator_saturating(generated_logits: tf.Tensor) -> tf.Tensor:
    """log(1 - D) (Goodfellow et al. 2014, Eq. 1): the value of the game itself. float32 [N] -> float32 [N], nats, at most 0."""
    return -tf.nn.softplus(generated_logits)


GENERATOR_LOSSES = {
    "log_ratio": generator_log_ratio,
    "non_saturating": generator_non_saturating,
    "saturating": generator_saturating,
}
"""The values of --generator_loss: functions from the logits of generated images to the generator's loss."""

# The values of --gradient_penalty_form: functions of the squared norm of a gradient. The constant keeps the root's slope
# finite where a gradient is exactly zero.
_PENALTIES = {
    "two_sided": lambda squared: tf.square(tf.sqrt(squared + 1e-12) - 1.0),
    "one_sided": lambda squared: tf.square(tf.nn.relu(tf.sqrt(squared + 1e-12) - 1.0)),
    "real": lambda squared: 0.5 * squared,
}


def gradient_penalty(
    discriminator: Callable[[tf.Tensor], tf.Tensor],
    real: tf.Tensor,
    generated: tf.Tensor | None,
    mix: tf.Tensor | None,
    form: str = "two_sided",
) -> tf.Tensor:
    """A penalty on g, the norm of the discriminator's gradient with respect to each image.

    two_sided: (g - 1)^2, at points between real and generated images (Gulrajani et al. 2017, Eq. 3); one_sided:
    max(0, g - 1)^2, at the same points (their section 4; Petzka et al. 2018); real: g^2 / 2 at the real images (R1,
    Mescheder et al. 2018, Eq. 9).

    Args:
        discriminator: function from images float32 [N, H, W, C] to logits [N]; each logit depends on its own image only.
        real, generated: float32 [N, H, W, C], in the range that the discriminator takes; `generated` is not used for
            form="real" and may be None.
        mix: float32 [N, 1, 1, 1] in [0, 1], the weight of the real image; not used for form="real" and may be None.
        form: "two_sided", "one_sided" or "real".

    Returns:
        float32 [N], without the penalty's coefficient. The gradient is computed in float32.

    Raises:
        UserError: an unknown form, or None for an argument that the form uses.
    """
    if form not in _PENALTIES:
        raise UserError(f"form of a gradient penalty: expected one of {', '.join(_PENALTIES)}, received {form!r}")
    if form == "real":
        points = tf.identity(real)
    elif generated is None or mix is None:
        raise UserError(f"gradient penalty {form}: expected generated images and mix, received None; only real needs neither")
    else:
        points = mix * real + (1.0 - mix) * generated
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        logits = discriminator(points)
    gradient = tape.gradient(logits, points)
    return _PENALTIES[form](tf.reduce_sum(tf.square(gradient), axis=[1, 2, 3]))
