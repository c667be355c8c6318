"""Perceptual loss of Hoshen and Wolf 2018, as GLANN and GLF use it (Xiao et al. 2019, Appendix B.1)."""

import tensorflow as tf


def perceptual_distance(pairs):
    """The sum over levels of the mean absolute difference, float32 [N].

    Args:
        pairs: list of two tensors [N, ...] each: the pixels, then what a network makes of both at each of its levels.
    """
    return sum(
        tf.reduce_mean(tf.abs(tf.cast(first - second, tf.float32)), axis=list(range(1, first.shape.rank)))
        for first, second in pairs
    )
