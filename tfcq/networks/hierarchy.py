"""An encoder and a decoder with a hierarchy of latents, inferred from the top down (Shmelkov et al. 2018, Section 5.1).

The encoder goes up: it halves the image down to the coarsest resolution and computes evidence for each layer of latents. The
decoder starts with the coarsest layer and goes down. At each layer it draws latents: from the prior to generate, or from the
posterior, which also uses the evidence, to infer. The latents then enter its state. Its outputs are the means of the features.

    standard   Table 1: the standard CNN of Miyato et al. 2018 as decoder, 4x4 transposed convolutions of stride 2 (512 - 256 -
               128 - 64 channels for 32x32 images and width 64) and a 3x3 convolution to the outputs; ELU. The encoder mirrors
               it. Resolutions with latents: from the coarsest to half the image's.
    plain      4x4 convolutions of stride 2 alone, ELU: no state at the image's resolution. Latents as with standard.
    residual   3x3 convolution to width / 2, a residual block at the image's resolution, and a halving block for each further
               resolution (Table 6: 16 - 32 - 64 - 128 - 256 for 32x32 with width 32). The decoder: up to 256 channels at
               8x8, up to 128 at 16x16, up to 64 at 32x32, 32, a 3x3 convolution. Latents up to the image's resolution.

A block of the residual decoder reads the latents beside its state. At the start each of n layers of latents is responsible for
1 / n of the state's variance and, with weight normalisation, for about as much KL as any other, whatever the sizes of their
maps (without it the KLs of a narrow ladder at 32x32 differ by 3.5 times). The first layer is apart, for its prior is fixed: it
starts with about a third of the others' KL, or less without data-dependent initialisation.

The number of channels is `width` at the finest of these resolutions and doubles at each halving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.networks.convolutions import Convolution, TransposedConvolution, spawn_seeds
from tfcq.networks.encoder import MOST_SEEDS, normalization_of, unit
from tfcq.networks.latents import HEAD_GAIN, Inferred, LatentLayer
from tfcq.networks.plan import Plan
from tfcq.networks.residual import LINEAR_GAIN, ResidualBlock
from tfcq.randomness import RowNoise, StepNoise

if TYPE_CHECKING:
    from tfcq.flows import InverseAutoregressiveFlow


class Decoder(keras.layers.Layer):
    """Computes the means of the features, float32 [N, H, W, C], from the latents of all layers; has priors and posteriors.

    The latents of all layers in one tensor are [N, *latent_shape]: the latents themselves if there is one layer, otherwise the
    concatenation of all layers' values.

    Args:
        plan: the sizes.
        make_flow: function (seed, side of the latents, channels of the context, gain: the relative size of the initial
            outputs) that makes a posterior's flow; needed if the plan has `context_channels`.
        seed: an integer that fixes the initial values.
        name: the layer's name.
        num_classes: the number of classes of images, on which the priors depend; 0: they do not. Methods then take `condition`,
            classes as one-hot, [N, num_classes].
    """

    def __init__(
        self,
        plan: Plan,
        make_flow: Callable[[int | None, int, int, float], InverseAutoregressiveFlow] | None = None,
        seed: int | None = 0,
        name: str = "decoder",
        num_classes: int = 0,
    ):
        super().__init__(name=name)
        self.plan = plan
        self.seed = seed
        self.num_classes = num_classes
        self._make_flow = make_flow
        self.build()

    def build(self, latents_shape: tuple[int | None, ...] | None = None) -> None:
        """Makes all weights; called by the constructor."""
        plan = self.plan
        seeds = iter(spawn_seeds(self.seed, MOST_SEEDS))
        self.latents: list[LatentLayer] = []
        for layer in plan.layers:
            level = layer[0]
            shape, flow = plan.latent_shape(layer), None
            context, scale = plan.context_of(level), plan.head_scale(level)
            if context and plan.inference:
                if self._make_flow is None:
                    raise ValueError(f"{self.name}: expected make_flow for a plan with context_channels, received None")
                flow = self._make_flow(next(seeds), shape[0] if len(shape) == 3 else 1, context, scale)
            latent = LatentLayer(
                shape,
                None if layer == (0, 0) else plan.block_channels(*layer)[0],
                plan.inference,
                flow,
                context,
                plan.normalization == "weight",
                HEAD_GAIN * scale,
                next(seeds),
                self.num_classes,
                name=f"latents_{layer[0]}_{layer[1]}",
            )
            latent.build()
            self._hold(latent)
            self.latents.append(latent)
        self._build_top(next(seeds))
        if plan.network == "residual":
            self._build_residual(seeds)
        else:
            self._build_plain(seeds)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the latents of all layers in one tensor."""
        if len(self.latents) == 1:
            return self.latents[0].shape
        return (sum(int(np.prod(latent.shape)) for latent in self.latents),)

    def infer(
        self,
        evidence: list[tf.Tensor],
        noise: RowNoise | StepNoise | None,
        tag: int,
        training: bool = False,
        condition: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list[Inferred]]:
        """Draws all latents from their posteriors.

        Args:
            evidence: outputs of the `Encoder`.
            noise: layer i draws with the tag `tag` + i. None: the posteriors' central values instead of draws.
            tag: see `noise`.
            training: whether batch normalisation is in training mode.
            condition: see the class.

        Returns:
            The means of the features, float32 [N, H, W, C], and the results of all layers, from the top.
        """
        inferred: list[Inferred] = []

        def choose(latent, state):
            shape = latent.shape
            normal = noise.normal(shape, tag + len(inferred)) if noise else tf.zeros(shape)
            inferred.append(latent.infer(state, evidence[len(inferred)], normal, condition))
            return inferred[-1].latents

        return self._descend(choose, training), inferred

    def generate(
        self,
        noise: RowNoise | StepNoise,
        tag: int,
        temperature: float | tf.Tensor = 1.0,
        training: bool = False,
        condition: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Draws all latents from their priors; returns the means of the features, float32 [N, H, W, C].

        Args:
            noise: layer i draws with the tag `tag` + i.
            tag: see `noise`.
            temperature: a float, or [N]: the factor of the priors' standard deviations.
            training: whether batch normalisation is in training mode.
            condition: see the class.
        """
        drawn: list[tf.Tensor] = []

        def choose(latent, state):
            scale = tf.reshape(tf.cast(temperature, tf.float32), [-1] + [1] * len(latent.shape))
            drawn.append(latent.generate(state, noise.normal(latent.shape, tag + len(drawn)), scale, condition))
            return drawn[-1]

        return self._descend(choose, training)

    def infer_and_generate(
        self,
        evidence: list[tf.Tensor],
        noise: StepNoise,
        prior_noise: StepNoise,
        tag: int,
        condition: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list[Inferred], tf.Tensor]:
        """`infer` and `generate` in training, as one batch: batch normalisation has the same statistics for both.

        Args:
            evidence: outputs of the `Encoder`.
            noise: posterior i draws with the tag `tag` + i.
            prior_noise: prior i draws with the tag `tag` + i.
            tag: see `noise`.
            condition: see the class; of both.

        Returns:
            The means of the features, the results of all layers, from the top, and the means of generated features.
        """
        inferred: list[Inferred] = []

        def choose(latent, state):
            of_inferred, of_generated = (None, None) if state is None else tf.split(state, 2)
            shape, layer_tag = latent.shape, tag + len(inferred)
            inferred.append(latent.infer(of_inferred, evidence[len(inferred)], noise.normal(shape, layer_tag), condition))
            generated = latent.generate(of_generated, prior_noise.normal(shape, layer_tag), tf.constant(1.0), condition)
            return tf.concat([inferred[-1].latents, generated], axis=0)

        means, generated = tf.split(self._descend(choose, training=True), 2)
        return means, inferred, generated

    def decode(self, latents: tf.Tensor) -> tf.Tensor:
        """The means of the features, float32 [N, H, W, C], for `latents`, float32 [N, *latent_shape]."""
        parts = [latents]
        if len(self.latents) > 1:
            sizes = [int(np.prod(latent.shape)) for latent in self.latents]
            parts = tf.split(latents, sizes, axis=-1)
        values = iter(
            tf.reshape(part, [-1, *latent.shape]) for part, latent in zip(parts, self.latents, strict=True)
        )
        return self._descend(lambda latent, state: next(values), training=False)

    def join(self, latents: list[tf.Tensor]) -> tf.Tensor:
        """The latents of all layers as one tensor [N, *latent_shape]."""
        if len(latents) == 1:
            return latents[0]
        return tf.concat([tf.reshape(part, [-1, int(np.prod(part.shape[1:]))]) for part in latents], axis=-1)

    def _descend(self, choose: Callable[[LatentLayer, tf.Tensor | None], tf.Tensor], training: bool) -> tf.Tensor:
        """Goes down through all layers, whose latents are `choose(layer of latents, state)`."""
        state = None
        for level in range(self.plan.num_resolutions):
            for index in range(self.plan.blocks):
                latents, latent = None, getattr(self, f"latents_{level}_{index}", None)
                if latent is not None:
                    read = tf.nn.elu(state) if state is not None and self.plan.network == "residual" else state
                    latents = choose(latent, read)
                if state is None:
                    state = self.top(latents, training=training)
                    latents = None
                state = self._step(state, latents, level, index, training)
        return self.output_layer(tf.nn.elu(state) if self.plan.network == "residual" else state)

    def _step(self, state, latents, level, index, training):
        name = f"level_{level}_{index}"
        if self.plan.network == "residual":
            inputs = state if latents is None else tf.concat([state, tf.cast(latents, state.dtype)], axis=-1)
            return getattr(self, name)(inputs, training=training)
        if latents is not None:
            state = state + getattr(self, f"join_{level}_{index}")(latents)
        block = getattr(self, name, None)
        return state if block is None else block(state, training=training)

    def _build_top(self, seed):
        """Makes the network from the coarsest latents to the first state."""
        plan, shape = self.plan, self.plan.state_shape(0)
        linear = [keras.Input(self.latents[0].shape)]
        if len(self.latents[0].shape) == 1:
            # Latents come from no activation, which would halve the variance: residual ladders keep it.
            variance = 1.0 if plan.network == "residual" else 2.0
            initializer = keras.initializers.VarianceScaling(variance, seed=seed)
            dense = keras.layers.Dense(
                int(np.prod(shape)), use_bias=plan.options["use_bias"], kernel_initializer=initializer
            )
            if plan.network == "residual":
                linear += [dense, keras.layers.Reshape(shape)]
            else:
                linear += [dense, *normalization_of(plan), keras.layers.ELU(), keras.layers.Reshape(shape)]
        elif plan.network == "residual":
            linear += [Convolution(plan.channels(0), 3, gain=LINEAR_GAIN, seed=seed, **plan.options)]
        else:
            linear += [Convolution(plan.channels(0), 3, seed=seed, **plan.options), *normalization_of(plan), keras.layers.ELU()]
        self.top = keras.Sequential(linear, name="top")

    def _build_plain(self, seeds: Iterator[Any]) -> None:
        plan = self.plan
        for layer, latent in zip(plan.layers[1:], self.latents[1:]):
            # Half of a convolution's usual size, because it is added to an existing state.
            join = Convolution(plan.channels(layer[0]), 3, gain=0.5, seed=next(seeds), name=f"join_{layer[0]}_{layer[1]}",
                               weight_normalization=plan.normalization == "weight")
            height, width, channels = latent.shape
            join.build((None, height, width, channels))
            self._hold(join)
        for level in range(plan.num_resolutions - 1):
            up = TransposedConvolution(plan.channels(level + 1), 4, 2, seed=next(seeds), **plan.options)
            self._hold(unit(plan.state_shape(level), up, plan, f"level_{level}_{plan.blocks - 1}"))
        if plan.network == "plain":
            self._build_output(TransposedConvolution, 4, 2, next(seeds))
        else:
            self._build_output(Convolution, 3, 1, next(seeds))

    def _build_residual(self, seeds: Iterator[Any]) -> None:
        plan = self.plan
        for level in range(plan.num_resolutions):
            for index in range(plan.blocks):
                above = plan.layers.index((level, index)) if (level, index) in plan.layers else 0
                before, after = plan.block_channels(level, index)
                block = ResidualBlock(
                    after,
                    "up" if index == plan.blocks - 1 and level < plan.halvings else "none",
                    # Below k layers of latents, 1 / (k + 1) of the variance: all layers start alike.
                    joined=plan.latent_channels if above else 0,
                    joined_fraction=1.0 / (above + 1),
                    seed=next(seeds),
                    name=f"level_{level}_{index}",
                    **plan.block_options,
                )
                block.build((None, plan.side(level), plan.side(level), before + block.joined))
                self._hold(block)
        self._build_output(Convolution, 3, 1, next(seeds))

    def _build_output(self, kind, kernel_size, strides, seed):
        """Makes the layer from the last state to the means, in float32 whatever the precision policy."""
        plan = self.plan
        options = {"weight_normalization": plan.normalization == "weight", "seed": seed, "dtype": "float32"}
        self.output_layer = kind(plan.image_shape[2], kernel_size, strides, name="output", **options)
        self.output_layer.build((None, *plan.state_shape(plan.num_resolutions - 1)))

    def _hold(self, layer):
        # tf.train.Checkpoint follows attributes; it silently leaves out layers that are only in a list on a Keras layer.
        setattr(self, layer.name, layer)
