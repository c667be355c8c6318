"""The kernel two-sample statistic of WAE-MMD (Tolstikhin, Bousquet, Gelly, Schoelkopf 2018; Gretton et al. 2012)."""

import tensorflow as tf

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of the kernel, relative to 2 d sigma^2; the kernels' sum is used."""


def inverse_multiquadratic_mmd(first, second, sigma=1.0):
    """The unbiased estimate of MMD^2 by k(a, b) = sum_s C_s / (C_s + |a - b|^2), C_s = s 2 d sigma^2: a scalar.

    Args:
        first, second: [N, d], N of at least 2, of one type, which the result has too; of each sample, pairs of a vector with
            itself are left out.
        sigma: deviation of a value of the prior that the latents are compared with.
    """
    first, second = tf.convert_to_tensor(first), tf.convert_to_tensor(second)
    count, dim = tf.cast(tf.shape(first)[0], first.dtype), first.shape[-1]
    within = [_squared_distances(sample, sample) for sample in (first, second)]
    across = _squared_distances(first, second)
    pairs = count * (count - 1.0)
    total = 0.0
    for scale in SCALES:
        constant = scale * 2.0 * dim * sigma**2
        # k(a, a) = 1: the diagonal is taken off as N.
        inside = sum(tf.reduce_sum(constant / (constant + squares)) - count for squares in within) / pairs
        total += inside - 2.0 * tf.reduce_mean(constant / (constant + across))
    return total


def _squared_distances(first, second):
    """|a_i - b_j|^2, [N, M], of [N, d] and [M, d]; by differences, so that a vector is at 0 from itself."""
    return tf.reduce_sum(tf.square(first[:, None] - second[None]), axis=-1)
