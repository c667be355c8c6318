"""Free bits: a floor under the KL of each channel, so that none is switched off early in training."""

import tensorflow as tf


def free_bits(kl, minimum):
    """What a layer of latents is charged: the larger of `minimum` and the batch's mean KL, channel by channel.

    The mean over the batch of the result is `sum_c max(minimum, mean_n kl[n, c])` (Kingma et al. 2016, Eq. 15), and so is its
    gradient: a channel whose mean is below the floor has none.

    Args:
        kl: float32 [N, C], nats, of each example and channel, summed over space.
        minimum: float, nats.

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
