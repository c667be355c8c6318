"""Perceptual loss of Hoshen and Wolf 2018, as GLANN and GLF use it (Xiao et al. 2019, Appendix B.1)."""

from collections.abc import Iterable

import tensorflow as tf


def perceptual_distance(pairs: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """The mean absolute difference, summed over levels, float32 [N].

    Args:
        pairs: two tensors [N, ...] for each level: the pixels of both images, then a network's features of both.
    """
    return sum(
        tf.reduce_mean(tf.abs(tf.cast(first - second, tf.float32)), axis=list(range(1, first.shape.rank)))
        for first, second in pairs
    )
