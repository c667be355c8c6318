"""Free bits: a lower limit of the KL of each channel, so that no channel is switched off early in training."""

import tensorflow as tf


def free_bits(kl: tf.Tensor, minimum: float) -> tf.Tensor:
    """The KL term of a layer of latents: per channel, the larger of `minimum` and the batch's mean KL.

    The batch mean of the result has the value and the gradient of `sum_c max(minimum, mean_n kl[n, c])` (Kingma et al. 2016,
    Eq. 15): a channel whose mean is below the minimum has no gradient.

    Args:
        kl: float32 [N, C], nats: the KL of each example and channel, summed over space.
        minimum: nats; 0: the sum of `kl` over the channels.

    Returns:
        float32 [N], nats.
    """
    if not minimum:
        return tf.reduce_sum(kl, axis=-1)
    mean = tf.reduce_mean(kl, axis=0)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, mean)
    return tf.reduce_sum(tf.where(mean > minimum, kl, minimum), axis=-1)
