"""The flow of latent vectors of the GLF family (Xiao et al. 2019, Fig. 1b): blocks of two couplings and a fixed permutation.

Couplings are `tfb.RealNVP` (Dinh et al. 2017): of a vector (a, b), forward, from noise to latents,

    a' = a,    b' = b exp(s(a)) + t(a),    log|det| = sum s(a)

and the second coupling of a block keeps b and moves a. s and t are the two halves of a perceptron's outputs. s is limited to
(-3, 3) by 3 tanh(s / 3), which the paper does not do: unlimited, one bad batch overflows exp. At first both are small.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.networks.convolutions import spawn_seeds
from tfcq.networks.dense import Perceptron

tfb = tfp.bijectors
tfd = tfp.distributions

LOG_SCALE_LIMIT = 3.0
OUTPUT_GAIN = 0.1  # of s and t at first


def weight_decay(layer, rate):
    """rate / 2 times the sum of the squares of a layer's weights, a scalar of their type.

    Its gradient is what optimizers with a weight decay that is not decoupled add to theirs (PyTorch's Adam).
    """
    return 0.5 * rate * sum(tf.reduce_sum(tf.square(variable.value)) for variable in layer.trainable_variables)


class LatentFlow(keras.layers.Layer):
    """Bijection between noise [N, dim] and latents [N, dim], of its dtype; TFP's direction: forward makes latents.

    Args:
        dim: values of a vector, at least 2.
        blocks: of two couplings and a permutation.
        units: of a hidden layer of a coupling's network.
        layers: hidden layers of a coupling's network.
        seed: an integer that fixes permutations and initial values.
        name: the layer's name.
        dtype: of weights, vectors and densities; the tests' reference is float64.

    The permutations are weights that do not train: a reloaded model must have the same ones.
    """

    def __init__(self, dim, blocks=4, units=64, layers=2, seed=0, name="latent_flow", dtype="float32"):
        super().__init__(name=name, dtype=dtype)
        self.dim, self.blocks, self.units, self.layers, self.seed = dim, blocks, units, layers, seed
        self.build()

    @classmethod
    def of(cls, options, seed):
        """The flow that `options`, `LatentFlowOptions` and `AutoencoderOptions`, describe."""
        return cls(
            options.latent_dim, options.latent_flow_blocks, options.latent_flow_units, options.latent_flow_layers, seed
        )

    def build(self, latents_shape=None):
        """Makes all weights (the constructor calls it)."""
        seeds = iter(spawn_seeds(self.seed, 3 * self.blocks))
        for block in range(self.blocks):
            for index in range(2):
                kept = self._num_kept(index)
                network = Perceptron(
                    kept,
                    2 * (self.dim - kept),
                    self.units,
                    self.layers,
                    OUTPUT_GAIN,
                    seed=next(seeds),
                    name=f"coupling_{block}_{index}",
                    dtype=self.dtype_policy,
                )
                setattr(self, network.name, network)
            order = np.random.default_rng(next(seeds)).permutation(self.dim)
            weight = self.add_weight(
                name=f"permutation_{block}",
                shape=(self.dim,),
                dtype="int32",
                initializer=lambda shape, dtype, order=order: tf.constant(order, dtype),
                trainable=False,
            )
            setattr(self, f"permutation_{block}", weight)

    def bijector(self):
        """A fresh `tfb.Chain` over the weights. Use it and let it go: do not store it."""
        chain = []
        for block in range(self.blocks):
            chain += [self._coupling(block, 0), self._coupling(block, 1)]
            chain += [tfb.Permute(permutation=tf.convert_to_tensor(getattr(self, f"permutation_{block}")))]
        return tfb.Chain(chain)

    def distribution(self, temperature=1.0):
        """The density of latents: N(0, temperature^2 I) through the flow, a `tfd.TransformedDistribution`."""
        noise = tfd.MultivariateNormalDiag(scale_diag=temperature * tf.ones(self.dim, self.compute_dtype))
        return tfd.TransformedDistribution(noise, self.bijector())

    def _num_kept(self, index):
        """How many values a block's coupling number `index` leaves as they are."""
        return self.dim // 2 if index == 0 else self.dim - self.dim // 2

    def _coupling(self, block, index):
        network = getattr(self, f"coupling_{block}_{index}")
        kept = self._num_kept(index)

        def shift_and_log_scale(inputs, moved, **_):
            shift, raw = tf.split(network(inputs), 2, axis=-1)
            return shift, LOG_SCALE_LIMIT * tf.tanh(raw / LOG_SCALE_LIMIT)

        # A negative number keeps the last values.
        return tfb.RealNVP(num_masked=kept if index == 0 else -kept, shift_and_log_scale_fn=shift_and_log_scale)
