"""Every flow layer, small, for the suite that all of them must pass: a new flow is tested by adding it to `CASES`."""

import numpy as np
import tensorflow as tf

from tfcq import flows
from tfcq.flows.dense_conditioner import DenseConditioner

# Couplings with little networks; the suite runs eagerly, so no case is traced more than it must.
SMALL = {"width": 4, "blocks": 1}


def _coupling(**options):
    return lambda dtype, seed: flows.AffineCoupling(**SMALL, **options, seed=seed, dtype=dtype)


def _image_flow(**options):
    return lambda dtype, seed: flows.ImageFlow(couplings=2, **SMALL, **options, seed=seed, dtype=dtype)


def _autoregressive(**options):
    return lambda dtype, seed: flows.InverseAutoregressiveFlow(4, **options, seed=seed, dtype=dtype)


def _multi_scale(dtype, seed):
    fine = flows.AffineCoupling(**SMALL, seed=seed, dtype=dtype)
    coarse = flows.AffineCoupling("channel", **SMALL, seed=seed + 1, dtype=dtype)
    return flows.MultiScale(fine, coarse, dtype=dtype)


def _chain(dtype, seed):
    return flows.Chain(
        [
            flows.ActNorm(dtype=dtype),
            flows.Squeeze(dtype=dtype),
            flows.ChannelPermutation(seed=seed, dtype=dtype),
            flows.AffineCoupling("channel", parity=1, **SMALL, seed=seed, dtype=dtype),
        ],
        dtype=dtype,
    )


# name: (factory of (dtype, seed), the images' (H, W, C))
CASES = {
    "checkerboard_even": (_coupling(), (4, 4, 1)),
    "checkerboard_odd": (_coupling(parity=1), (4, 3, 3)),
    "channel_first": (_coupling(mask="channel"), (4, 4, 2)),
    "channel_second_odd": (_coupling(mask="channel", parity=1), (3, 4, 3)),
    "plain_kernels": (_coupling(weight_normalization=False), (4, 4, 2)),
    "conditioner_batch_normalization": (_coupling(batch_normalization=True), (4, 4, 2)),
    "dense_conditioner": (_coupling(mask="channel", conditioner=DenseConditioner.maker(8, 2)), (4, 4, 2)),
    "actnorm": (lambda dtype, seed: flows.ActNorm(dtype=dtype), (4, 3, 3)),
    "batch_normalization": (lambda dtype, seed: flows.BatchNormalizationFlow(dtype=dtype), (4, 3, 3)),
    "permutation": (lambda dtype, seed: flows.ChannelPermutation(seed=seed, dtype=dtype), (2, 2, 7)),
    "squeeze": (lambda dtype, seed: flows.Squeeze(dtype=dtype), (4, 6, 2)),
    "squeeze_diagonals": (lambda dtype, seed: flows.Squeeze(diagonals_first=True, dtype=dtype), (4, 4, 3)),
    "unsqueeze": (lambda dtype, seed: flows.Unsqueeze(dtype=dtype), (2, 3, 8)),
    "unsqueeze_diagonals": (lambda dtype, seed: flows.Unsqueeze(diagonals_first=True, dtype=dtype), (2, 2, 4)),
    "multi_scale": (_multi_scale, (4, 4, 1)),
    "autoregressive": (_autoregressive(layers=2), (2, 3, 2)),
    "autoregressive_vector": (_autoregressive(kernel_size=1), (1, 1, 4)),
    "chain": (_chain, (4, 4, 1)),
    "chain_empty": (lambda dtype, seed: flows.Chain([], dtype=dtype), (2, 2, 1)),
    "image_flow_no_scale": (_image_flow(scales=0), (3, 3, 1)),
    "image_flow_one_scale": (_image_flow(scales=1), (4, 4, 3)),
    "image_flow_two_scales": (_image_flow(scales=2, normalization="batch"), (4, 4, 3)),
    "image_flow_three_scales": (_image_flow(scales=3, normalization="none"), (8, 8, 1)),
}


def make(name, dtype="float64", seed=0, perturbed=True):
    """The built flow of a case and a batch of five images for it, standard normal."""
    factory, shape = CASES[name]
    flow = factory(dtype, seed)
    images = batch(shape, dtype="float64" if dtype == "float64" else "float32")
    flow.build((None, *shape))
    if perturbed:
        perturb(flow)
    return flow, images


def batch(shape, size=5, seed=7, dtype="float64"):
    """`[size, *shape]` standard normal values, a tensor."""
    return tf.constant(np.random.default_rng(seed).normal(size=(size, *shape)), dtype)


def perturb(flow, seed=3):
    """Moves every weight well away from where it starts, variances staying positive and permutations as they are."""
    generator = np.random.default_rng(seed)
    for weight in flow.weights:
        if "int" in weight.dtype:
            continue
        offset = generator.uniform(0.2, 0.6, weight.shape)
        if "variance" not in weight.path:
            offset *= generator.choice([-1.0, 1.0], weight.shape)
        weight.assign(weight.numpy() + offset)


def jacobian(function, inputs):
    """`[N, D, D]`: d outputs / d inputs of each example, by reverse-mode differentiation.

    One backward pass gives all rows: the batch holds every example D times; copy k asks for the gradient of output k.
    """
    size, dims = inputs.shape[0], int(np.prod(inputs.shape[1:]))
    copies = tf.repeat(inputs, dims, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        outputs = tf.reshape(function(copies), [size, dims, dims])
        picked = tf.reduce_sum(tf.linalg.diag_part(outputs))
    return tf.reshape(tape.gradient(picked, copies), [size, dims, dims]).numpy()
