"""The encoder of the hierarchy of latents (`tfcq.networks.hierarchy`), and what plain encoders and decoders are made of."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.networks.convolutions import Convolution, spawn_seeds
from tfcq.networks.latents import HEAD_GAIN, ClassTerm
from tfcq.networks.normalization import BatchNormalization
from tfcq.networks.plan import Plan
from tfcq.networks.residual import ResidualBlock

MOST_SEEDS = 4096
"""The largest number of seeds of an encoder or decoder: one for each layer."""


class Encoder(keras.layers.Layer):
    """Computes evidence for each layer of latents from features float32 [N, H, W, C].

    Its outputs are a list, from the top, of float32 [N, *latent_shape[:-1], statistics].

    Args:
        plan: the sizes.
        seed: an integer that fixes the initial values.
        name: the layer's name.
        num_classes: the number of classes of images, on which the evidence depends; 0: it does not. A class adds a term, 0 at
            first, to that of each layer; to that of the first one a term for each place.
    """

    def __init__(self, plan: Plan, seed: int | None = 0, name: str = "encoder", num_classes: int = 0):
        super().__init__(name=name)
        self.plan = plan
        self.seed = seed
        self.num_classes = num_classes
        self.build((None, *plan.image_shape))

    def build(self, features_shape: tuple[int | None, int, int, int]) -> None:
        """Makes all weights; called by the constructor."""
        plan = self.plan
        seeds = iter(spawn_seeds(self.seed, MOST_SEEDS))
        height, width, channels = plan.image_shape
        if plan.network == "residual":
            self.stem = Convolution(max(plan.width // 2, 1), 3, seed=next(seeds), name="stem", **plan.options)
            self.stem.build((None, *plan.image_shape))
            channels = max(plan.width // 2, 1)
        elif plan.network == "standard":
            convolution = Convolution(plan.width, 3, seed=next(seeds), **plan.options)
            self.stem = unit(plan.image_shape, convolution, plan, "stem")
            channels = plan.width
        for level in reversed(range(self._num_halved)):
            for index in range(self._num_blocks):
                name = f"level_{level}_{index}"
                if plan.network == "residual":
                    resampling = "down" if index == 0 and level < plan.halvings else "none"
                    block: keras.layers.Layer = ResidualBlock(
                        plan.channels(level), resampling, seed=next(seeds), name=name, **plan.block_options
                    )
                    block.build((None, height, width, channels))
                else:
                    convolution = Convolution(plan.channels(level), 4, 2, seed=next(seeds), **plan.options)
                    block = unit((height, width, channels), convolution, plan, name)
                setattr(self, name, block)
                height, width, channels = plan.state_shape(level)
        for layer in plan.layers:
            statistics = 2 * plan.latent_channels + plan.context_of(layer[0])
            gain = HEAD_GAIN * plan.head_scale(layer[0])
            options: dict[str, Any] = {"name": _head_name(layer), "dtype": "float32"}
            if len(plan.latent_shape(layer)) == 1:
                initializer = keras.initializers.VarianceScaling(2.0 * gain**2, seed=next(seeds))
                head: keras.layers.Layer = keras.layers.Dense(statistics, kernel_initializer=initializer, **options)
                head.build((None, int(np.prod(plan.state_shape(layer[0])))))
            else:
                options |= {"weight_normalization": plan.normalization == "weight", "gain": gain}
                head = Convolution(statistics, 3, seed=next(seeds), **options)
                head.build((None, *plan.state_shape(layer[0])))
            setattr(self, head.name, head)
            if self.num_classes:
                term = ClassTerm(_class_shape(plan.latent_shape(layer), statistics, layer), name=f"class_{head.name}")
                term.build((None, self.num_classes))
                setattr(self, term.name, term)

    @property
    def _num_halved(self):
        """The number of resolutions with blocks: with "standard" the stem alone is at the image's own."""
        return self.plan.halvings if self.plan.network == "standard" else self.plan.num_resolutions

    @property
    def _num_blocks(self):
        """The number of blocks at each resolution."""
        return self.plan.blocks if self.plan.network == "residual" else 1

    def call(
        self, features: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """The evidence for each layer of latents, from the top; see the class. `condition`: classes as one-hot, or None."""
        plan = self.plan
        evidence: dict[tuple[int, int], tf.Tensor] = {}
        hidden = features
        if plan.network == "residual":
            hidden = self.stem(features)
        elif plan.network == "standard":
            hidden = self.stem(features, training=training)
        for level in reversed(range(self._num_halved)):
            seen = []
            for index in range(self._num_blocks):
                hidden = getattr(self, f"level_{level}_{index}")(hidden, training=training)
                seen.append(tf.nn.elu(hidden) if plan.network == "residual" else hidden)
            # The last block on the way up belongs to the first on the way down.
            for layer in plan.layers:
                if layer[0] == level:
                    source = seen[-1 - layer[1]] if plan.network == "residual" else seen[0]
                    head = getattr(self, _head_name(layer))
                    if len(plan.latent_shape(layer)) == 1:
                        source = tf.reshape(source, [-1, int(np.prod(source.shape[1:]))])
                    evidence[layer] = head(source)
                    if condition is not None:
                        evidence[layer] += getattr(self, f"class_{head.name}")(condition)
        return [evidence[layer] for layer in plan.layers]


def _class_shape(latent_shape, statistics, layer):
    """The shape of a class's term of the evidence for a layer."""
    space = latent_shape[:-1] if layer == (0, 0) else (1,) * (len(latent_shape) - 1)
    return (*space, statistics)


def _head_name(layer):
    return f"head_{layer[0]}_{layer[1]}"


def normalization_of(plan: Plan) -> list[keras.layers.Layer]:
    """The layers of normalisation after a convolution of plain networks, none or one."""
    if plan.normalization == "batch":
        return [BatchNormalization()]
    return []


def unit(shape: tuple[int, ...], layer: keras.layers.Layer, plan: Plan, name: str) -> keras.Sequential:
    """`layer`, of inputs of `shape`, normalised as the plan says, and ELU: a block of plain networks."""
    return keras.Sequential([keras.Input(shape), layer, *normalization_of(plan), keras.layers.ELU()], name=name)
