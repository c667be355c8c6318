"""An encoder and a decoder with one hierarchy of latents, inferred from the top down (Shmelkov et al. 2018, Section 5.1).

The encoder goes up, halving the image to its coarsest resolution, and leaves evidence for each layer of latents. The decoder
starts with the coarsest layer and comes down: at each layer it draws latents, from the prior to generate or from the posterior,
which also hears the evidence, to infer; the draw joins its state. At the bottom are the means of the features.

    plain      4x4 convolutions of stride 2, ELU (Table 1). Resolutions with latents: from the coarsest to half the image's.
    residual   3x3 convolution of width / 2, a residual block at the image's resolution, one that halves for each further one;
               the decoder mirrors it (Table 6: 16 - 32 - 64 - 128 - 256 for 32x32 with width 32). Latents up to the image's
               resolution.

Channels are `width` at the finest of these resolutions and double at each halving.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfcq.networks.convolutions import Convolution, TransposedConvolution, spawn_seeds
from tfcq.networks.latents import HEAD_GAIN, LatentLayer
from tfcq.networks.normalization import BatchNormalization
from tfcq.networks.residual import ResidualBlock

RESIDUAL_SCALE = 0.1  # of what a block adds to its state (Kingma et al. 2016, their program)
_MOST_LAYERS = 4096  # with a seed each


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sizes that encoder and decoder agree on. Level 0 is the coarsest resolution.

    Attributes:
        image_shape: (H, W, C) of the features.
        halvings: how many times the image is halved.
        width: channels at the finest resolution of the networks.
        network: "plain" or "residual".
        normalization: "none", "batch" or "weight".
        latent_channels: of each layer.
        latent_form: of the coarsest layer: "map" or "vector".
        levels: resolutions that have latents; 0: all.
        blocks: layers of latents at each.
        context_channels: of the posteriors' flows; 0: no flows.
        inference: whether there are posteriors.
    """

    image_shape: tuple
    halvings: int
    width: int
    network: str = "plain"
    normalization: str = "none"
    latent_channels: int = 32
    latent_form: str = "map"
    levels: int = 0
    blocks: int = 1
    context_channels: int = 0
    inference: bool = True

    @property
    def num_resolutions(self):
        """Resolutions at which the networks have states."""
        return self.halvings + (self.network == "residual")

    @property
    def layers(self):
        """[(level, index at that level)] of all layers of latents, from the top."""
        return [(level, index) for level in range(self.levels or self.num_resolutions) for index in range(self.blocks)]

    def side(self, level):
        """Pixels."""
        return self.image_shape[0] >> (self.halvings - level)

    def channels(self, level):
        """Channels of the state at a level."""
        return self.width * 2 ** (self.num_resolutions - 1 - level)

    def state_shape(self, level):
        """(side, side, channels)."""
        return (self.side(level), self.side(level), self.channels(level))

    def latent_shape(self, layer):
        """Shape of the latents of one of `layers`."""
        if layer == (0, 0) and self.latent_form == "vector":
            return (self.latent_channels,)
        return (self.side(layer[0]), self.side(layer[0]), self.latent_channels)

    @property
    def options(self):
        """Of every convolution: weight normalisation, or the bias that a batch normalisation would subtract."""
        return {"weight_normalization": self.normalization == "weight", "use_bias": self.normalization != "batch"}

    @property
    def block_options(self):
        """Of every residual block."""
        return {
            "activation": "elu",
            "residual_scale": RESIDUAL_SCALE,
            "weight_normalization": self.normalization == "weight",
            "batch_normalization": self.normalization == "batch",
        }


class Encoder(keras.layers.Layer):
    """Features float32 [N, H, W, C] -> a list of evidence, float32 [N, *latents[:-1], statistics], of each layer from the top.

    Args:
        plan: `Plan`.
        seed: an integer that fixes the initial values.
    """

    def __init__(self, plan, seed=0, name="encoder"):
        super().__init__(name=name)
        self.plan = plan
        self.seed = seed
        self.build((None, *plan.image_shape))

    def build(self, features_shape):
        """Makes all weights (the constructor calls it)."""
        plan = self.plan
        seeds = iter(spawn_seeds(self.seed, _MOST_LAYERS))
        height, width, channels = plan.image_shape
        if plan.network == "residual":
            self.stem = Convolution(max(plan.width // 2, 1), 3, seed=next(seeds), name="stem", **plan.options)
            self.stem.build((None, *plan.image_shape))
            channels = max(plan.width // 2, 1)
        for level in reversed(range(plan.num_resolutions)):
            for index in range(self._num_ways):
                name = f"level_{level}_{index}"
                if plan.network == "residual":
                    resampling = "down" if index == 0 and level < plan.halvings else "none"
                    way = ResidualBlock(
                        plan.channels(level), resampling, seed=next(seeds), name=name, **plan.block_options
                    )
                    way.build((None, height, width, channels))
                else:
                    convolution = Convolution(plan.channels(level), 4, 2, seed=next(seeds), **plan.options)
                    way = _unit((height, width, channels), convolution, plan, name)
                setattr(self, name, way)
                height, width, channels = plan.state_shape(level)
        statistics = 2 * plan.latent_channels + plan.context_channels
        for layer in plan.layers:
            options = {"name": _head_name(layer), "dtype": "float32"}
            if len(plan.latent_shape(layer)) == 1:
                initializer = keras.initializers.VarianceScaling(2.0 * HEAD_GAIN**2, seed=next(seeds))
                head = keras.layers.Dense(statistics, kernel_initializer=initializer, **options)
                head.build((None, int(np.prod(plan.state_shape(layer[0])))))
            else:
                head = Convolution(
                    statistics,
                    3,
                    weight_normalization=plan.normalization == "weight",
                    gain=HEAD_GAIN,
                    seed=next(seeds),
                    **options,
                )
                head.build((None, *plan.state_shape(layer[0])))
            setattr(self, head.name, head)

    @property
    def _num_ways(self):
        """Networks at each resolution."""
        return self.plan.blocks if self.plan.network == "residual" else 1

    def call(self, features, training=False):
        """See the class."""
        plan, evidence = self.plan, {}
        hidden = self.stem(features) if plan.network == "residual" else features
        for level in reversed(range(plan.num_resolutions)):
            seen = []
            for index in range(self._num_ways):
                hidden = getattr(self, f"level_{level}_{index}")(hidden, training=training)
                seen.append(tf.nn.elu(hidden) if plan.network == "residual" else hidden)
            # The last block on the way up stands before the first on the way down.
            for layer in plan.layers:
                if layer[0] == level:
                    source = seen[-1 - layer[1]] if plan.network == "residual" else seen[0]
                    head = getattr(self, _head_name(layer))
                    if len(plan.latent_shape(layer)) == 1:
                        source = tf.reshape(source, [-1, int(np.prod(source.shape[1:]))])
                    evidence[layer] = head(source)
        return [evidence[layer] for layer in plan.layers]


class Decoder(keras.layers.Layer):
    """Latents of all layers -> means of the features, float32 [N, H, W, C]; with the priors and posteriors on the way.

    Latents of all layers in one tensor are [N, *latent_shape]: those of the one layer, or, of several, all values in a row.

    Args:
        plan: `Plan`.
        make_flow: function of a seed and of the latents' side that makes a posterior's flow; `context_channels` says whether
            there are any.
        seed: an integer that fixes the initial values.
    """

    def __init__(self, plan, make_flow=None, seed=0, name="decoder"):
        super().__init__(name=name)
        self.plan = plan
        self.seed = seed
        self._make_flow = make_flow
        self.build()

    def build(self, latents_shape=None):
        """Makes all weights (the constructor calls it)."""
        plan = self.plan
        seeds = iter(spawn_seeds(self.seed, _MOST_LAYERS))
        self.latents = []
        for layer in plan.layers:
            has_flow = plan.context_channels and plan.inference
            latent = LatentLayer(
                plan.latent_shape(layer),
                None if layer == (0, 0) else plan.channels(layer[0]),
                plan.inference,
                self._make_flow(next(seeds), plan.latent_shape(layer)[0] if len(plan.latent_shape(layer)) == 3 else 1)
                if has_flow
                else None,
                plan.context_channels,
                plan.normalization == "weight",
                next(seeds),
                name=f"latents_{layer[0]}_{layer[1]}",
            )
            latent.build()
            self._hold(latent)
            self.latents.append(latent)
        self._build_top(next(seeds))
        (self._build_residual if plan.network == "residual" else self._build_plain)(seeds)

    @property
    def latent_shape(self):
        """Of all latents together."""
        if len(self.latents) == 1:
            return self.latents[0].shape
        return (sum(int(np.prod(latent.shape)) for latent in self.latents),)

    def infer(self, evidence, noise, tag, training=False):
        """Draws all latents from their posteriors.

        Args:
            evidence: of the `Encoder`.
            noise: `tfcq.randomness` noise; layer i draws with the tag `tag` + i. None: posteriors' central values.
            training: for batch normalisation.

        Returns:
            means float32 [N, H, W, C], and a list of `Inferred`, from the top.
        """
        inferred = []

        def choose(latent, state):
            shape = latent.shape
            normal = noise.normal(shape, tag + len(inferred)) if noise else tf.zeros(shape)
            inferred.append(latent.infer(state, evidence[len(inferred)], normal))
            return inferred[-1].latents

        return self._descend(choose, training), inferred

    def generate(self, noise, tag, temperature=1.0, training=False):
        """Means float32 [N, H, W, C] of latents drawn from the priors; `temperature`, float or [N], scales the deviations."""
        drawn = []

        def choose(latent, state):
            scale = tf.reshape(tf.cast(temperature, tf.float32), [-1] + [1] * len(latent.shape))
            drawn.append(latent.generate(state, noise.normal(latent.shape, tag + len(drawn)), scale))
            return drawn[-1]

        return self._descend(choose, training)

    def decode(self, latents):
        """Means float32 [N, H, W, C] of `latents`, float32 [N, *latent_shape]."""
        parts = [latents]
        if len(self.latents) > 1:
            sizes = [int(np.prod(latent.shape)) for latent in self.latents]
            parts = tf.split(latents, sizes, axis=-1)
        values = iter(
            tf.reshape(part, [-1, *latent.shape]) for part, latent in zip(parts, self.latents, strict=True)
        )
        return self._descend(lambda latent, state: next(values), training=False)

    def join(self, latents):
        """A list of each layer's latents as one tensor [N, *latent_shape]."""
        if len(latents) == 1:
            return latents[0]
        return tf.concat([tf.reshape(part, [-1, int(np.prod(part.shape[1:]))]) for part in latents], axis=-1)

    # The way down: `choose(layer of latents, state)` gives its latents.

    def _descend(self, choose, training):
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
        way = getattr(self, f"level_{level}_{index}", None)
        if self.plan.network == "residual":
            inputs = state if latents is None else tf.concat([state, tf.cast(latents, state.dtype)], axis=-1)
            return way(inputs, training=training)
        if latents is not None:
            state = state + getattr(self, f"join_{level}_{index}")(latents)
        return state if way is None else way(state, training=training)

    def _build_top(self, seed):
        """From the coarsest latents to the first state."""
        plan, shape = self.plan, self.plan.state_shape(0)
        linear = [keras.Input(self.latents[0].shape)]
        if len(self.latents[0].shape) == 1:
            initializer = keras.initializers.HeNormal(seed)
            dense = keras.layers.Dense(
                int(np.prod(shape)), use_bias=plan.options["use_bias"], kernel_initializer=initializer
            )
            if plan.network == "residual":
                linear += [dense, keras.layers.Reshape(shape)]
            else:
                linear += [dense, *_normalization(plan), keras.layers.ELU(), keras.layers.Reshape(shape)]
        elif plan.network == "residual":
            linear += [Convolution(plan.channels(0), 3, seed=seed, **plan.options)]
        else:
            linear += [Convolution(plan.channels(0), 3, seed=seed, **plan.options), *_normalization(plan), keras.layers.ELU()]
        self.top = keras.Sequential(linear, name="top")

    def _build_plain(self, seeds):
        plan = self.plan
        for layer, latent in zip(plan.layers[1:], self.latents[1:]):
            # Half of a convolution's usual size: it adds to a state that is there already.
            join = Convolution(plan.channels(layer[0]), 3, gain=0.5, seed=next(seeds), name=f"join_{layer[0]}_{layer[1]}",
                               weight_normalization=plan.normalization == "weight")
            join.build((None, *latent.shape))
            self._hold(join)
        for level in range(plan.num_resolutions - 1):
            up = TransposedConvolution(plan.channels(level + 1), 4, 2, seed=next(seeds), **plan.options)
            self._hold(_unit(plan.state_shape(level), up, plan, f"level_{level}_{plan.blocks - 1}"))
        self._build_output(TransposedConvolution, 4, 2, next(seeds))

    def _build_residual(self, seeds):
        plan = self.plan
        for level in range(plan.num_resolutions):
            side, _, channels = plan.state_shape(level)
            for index in range(plan.blocks):
                last = index == plan.blocks - 1
                up = last and level < plan.halvings
                joined = plan.latent_channels if (level, index) in plan.layers[1:] else 0
                block = ResidualBlock(
                    plan.channels(level + 1) if up else channels,
                    "up" if up else "none",
                    seed=next(seeds),
                    name=f"level_{level}_{index}",
                    **plan.block_options,
                )
                block.build((None, side, side, channels + joined))
                self._hold(block)
        self._build_output(Convolution, 3, 1, next(seeds))

    def _build_output(self, kind, kernel_size, strides, seed):
        """From the last state to the means, in float32 whatever the precision policy."""
        plan = self.plan
        options = {"weight_normalization": plan.normalization == "weight", "seed": seed, "dtype": "float32"}
        self.output_layer = kind(plan.image_shape[2], kernel_size, strides, name="output", **options)
        self.output_layer.build((None, *plan.state_shape(plan.num_resolutions - 1)))

    def _hold(self, layer):
        # tf.train.Checkpoint follows attributes; what stands only in a list on a Keras layer it leaves out in silence.
        setattr(self, layer.name, layer)


def _head_name(layer):
    return f"head_{layer[0]}_{layer[1]}"


def _normalization(plan):
    if plan.normalization == "batch":
        return [BatchNormalization()]
    return []


def _unit(shape, layer, plan, name):
    return keras.Sequential([keras.Input(shape), layer, *_normalization(plan), keras.layers.ELU()], name=name)

