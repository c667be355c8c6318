"""The kernel two-sample statistic of WAE-MMD (Tolstikhin, Bousquet, Gelly, Schoelkopf 2018; Gretton et al. 2012)."""

import tensorflow as tf

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Scales of the kernels, relative to 2 d sigma^2; the kernels are added."""


def inverse_multiquadratic_mmd(first: tf.Tensor, second: tf.Tensor, sigma: float = 1.0) -> tf.Tensor:
    """The unbiased estimate of MMD^2 with the kernel k(a, b) = sum_s C_s / (C_s + |a - b|^2), C_s = s 2 d sigma^2.

    Within a sample, pairs of a vector with itself are left out.

    Args:
        first, second: [N, d] of one dtype, N at least 2.
        sigma: standard deviation of each value of the prior that the latents are compared with.

    Returns:
        A scalar of the same dtype.
    """
    first, second = tf.convert_to_tensor(first), tf.convert_to_tensor(second)
    count, dim = tf.cast(tf.shape(first)[0], first.dtype), first.shape[-1]
    within = [_squared_distances(sample, sample) for sample in (first, second)]
    across = _squared_distances(first, second)
    pairs = count * (count - 1.0)
    total = 0.0
    for scale in SCALES:
        constant = scale * 2.0 * dim * sigma**2
        # k(a, a) = 1, so the diagonal sums to N.
        inside = sum(tf.reduce_sum(constant / (constant + squares)) - count for squares in within) / pairs
        total += inside - 2.0 * tf.reduce_mean(constant / (constant + across))
    return total


def _squared_distances(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """|a_i - b_j|^2, [N, M], of [N, d] and [M, d]; computed from differences, so that equal vectors have distance 0."""
    return tf.reduce_sum(tf.square(first[:, None] - second[None]), axis=-1)
