"""The flow of latent vectors of the GLF family (Xiao et al. 2019, Fig. 1b): blocks of two couplings and a fixed permutation.

Couplings are `tfb.RealNVP` (Dinh et al. 2017). For a vector (a, b), forward, from noise to latents,

    a' = a,    b' = b exp(s(a)) + t(a),    log|det| = sum s(a)

and the second coupling of a block keeps b and changes a. s and t are the two halves of a perceptron's outputs. Unlike in the
paper, s is limited to (-3, 3) by 3 tanh(s / 3): without a limit, one bad batch overflows exp. At first both are small.

The authors' code normalises the perceptrons' hidden layers by their batch, which the paper does not mention; here it is an
option. In training, the log-determinants are then those of the map with the batch's statistics held fixed.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.flows.permutation import Permute
from tfcq.networks.convolutions import spawn_seeds
from tfcq.networks.dense import Perceptron
from tfcq.networks.host_variables import value_of
from tfcq.networks.normalization import frozen_statistics

tfb = tfp.bijectors
tfd = tfp.distributions

LOG_SCALE_LIMIT = 3.0
OUTPUT_GAIN = 0.1  # initial size of s and t


def weight_decay(layer: keras.layers.Layer, rate: float) -> tf.Tensor:
    """rate / 2 times the sum of the squares of a layer's weights, a scalar of their dtype.

    Its gradient is the term that optimizers with weight decay that is not decoupled add (such as PyTorch's Adam).
    """
    return 0.5 * rate * sum(tf.reduce_sum(tf.square(variable.value)) for variable in layer.trainable_variables)


class LatentFlow(keras.layers.Layer):
    """A bijection between noise [N, dim] and latents [N, dim]; forward, in TFP's direction, makes latents.

    The permutations are weights that are not trained, so that a reloaded model has the same ones.

    Args:
        dim: number of values of a vector, at least 2.
        blocks: number of blocks, each of two couplings and a permutation.
        units: units of each hidden layer of a coupling's network.
        layers: number of hidden layers of a coupling's network.
        seed: an integer that fixes permutations and initial values.
        name: the layer's name.
        dtype: dtype of weights, vectors and densities; the tests' reference is float64.
        normalized: whether the hidden layers of the couplings' networks have batch normalisation.
        condition_size: how many values the condition has on which all couplings depend, such as a class as one-hot; 0: there is
            none. The condition enters the couplings' networks, and the noise stays standard normal: a class may then change the
            shape of its latents' distribution, and not only where it lies and how wide it is.
    """

    def __init__(
        self,
        dim: int,
        blocks: int = 4,
        units: int = 64,
        layers: int = 2,
        seed: int | None = 0,
        name: str = "latent_flow",
        dtype: str = "float32",
        normalized: bool = False,
        condition_size: int = 0,
    ):
        super().__init__(name=name, dtype=dtype)
        self.dim, self.blocks, self.units, self.layers, self.seed = dim, blocks, units, layers, seed
        self.normalized, self.condition_size = normalized, condition_size
        self.build()

    @classmethod
    def of(cls, options: Any, seed: int | None, condition_size: int = 0) -> LatentFlow:
        """The flow that `options`, which are `LatentFlowOptions` and `AutoencoderOptions` at once, describe."""
        return cls(
            options.latent_dim, options.latent_flow_blocks, options.latent_flow_units, options.latent_flow_layers, seed,
            normalized=options.latent_flow_normalization == "batch", condition_size=condition_size,
        )  # fmt: skip

    def build(self, latents_shape: tuple[int | None, int] | None = None) -> None:
        """Makes all weights; called by the constructor."""
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
                    normalization="after" if self.normalized else "",
                    condition_size=self.condition_size,
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

    def bijector(self, training: bool = False, condition: tf.Tensor | None = None) -> tfp.bijectors.Bijector:
        """A fresh `tfb.Chain` over the weights. Do not store it.

        In `training`, batch normalisations use a batch's statistics, and move their own once: do not use it for two batches.
        `condition`, [N, condition_size], is that of the N vectors that it transforms; None: without.
        """
        chain: list[tfp.bijectors.Bijector] = []
        for block in range(self.blocks):
            chain += [self._coupling(block, 0, training, condition), self._coupling(block, 1, training, condition)]
            chain += [Permute(permutation=value_of(getattr(self, f"permutation_{block}")))]
        return tfb.Chain(chain)

    def distribution(
        self, temperature: float = 1.0, training: bool = False, condition: tf.Tensor | None = None
    ) -> tfp.distributions.Distribution:
        """The distribution of latents: N(0, temperature^2 I) transformed by the flow, a `tfd.TransformedDistribution`.

        `training` and `condition` are those of `bijector`.
        """
        noise = tfd.MultivariateNormalDiag(scale_diag=temperature * tf.ones(self.dim, self.compute_dtype))
        return tfd.TransformedDistribution(noise, self.bijector(training, condition))

    def _num_kept(self, index):
        """The number of values that a block's coupling number `index` leaves unchanged."""
        return self.dim // 2 if index == 0 else self.dim - self.dim // 2

    def _coupling(self, block, index, training, condition):
        network = getattr(self, f"coupling_{block}_{index}")
        kept, called = self._num_kept(index), False

        def shift_and_log_scale(inputs, moved, **_):
            nonlocal called
            with frozen_statistics(called):  # TFP runs it for the value, and again for the log-determinant
                shift, raw = tf.split(network(inputs, training=training, condition=condition), 2, axis=-1)
            called = True
            return shift, LOG_SCALE_LIMIT * tf.tanh(raw / LOG_SCALE_LIMIT)

        # A negative number keeps the last values.
        return tfb.RealNVP(num_masked=kept if index == 0 else -kept, shift_and_log_scale_fn=shift_and_log_scale)
