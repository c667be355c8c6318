"""GLANN (Hoshen, Li and Malik 2019; Xiao et al. 2019, Table 1): a code for each training image, then a network that draws codes.

    GLO     trains codes c_i on the unit sphere and the generator G together: L = error(x_i, G(c_i)); `first_stage_steps`
    IMLE    trains T from noise e to codes. Each epoch draws a pool of `pool_factor` times as many e as there are images;
            image i gets the e_i whose T(e_i) is nearest to c_i. L = |T(e_i) - c_i|^2, without projecting T(e_i)

T starts with outputs whose mean squared norm is 1, that of a code, with and without batch normalisation. With larger ones the
shortest few are nearest to all codes, whatever their directions: one noise served 6,000 codes. How many different noises a
matching has found is logged as imle/distinct_noises.

To sample: e ~ N(0, I), T(e) projected to the unit sphere, G. There is no encoder and no density. The paper trains with the
perceptual loss (`--reconstruction=perceptual`).

Codes learn `codes_rate` times as fast as G, as in the authors' work (1e-2 and 1e-3). Adam's steps do not depend on the size of
gradients, so codes in units of `codes_rate` have this effect: c_i = codes_rate w_i, and w_i is the weight. Codes and their noise
are in checkpoints, to resume from, but not in exports.

An image keeps its code as long as the run continues, whatever happens to other images. The code of a missing image is not used.
If the content of an image has changed (`--accept_changed_data`), its code continues from its value and learns the new content
in the rest of the first stage. After that stage codes are not trained and images are not used.

Departures from the authors' code: T has no weight decay, and biases instead of batch normalisation, unless
`imle_batch_normalization`: the pool is then normalised by its own statistics, as there, and samples by the moving ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tfcq.config import GLANNConfig
from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.models.base import Array, Noise
from tfcq.networks.dense import Perceptron
from tfcq.networks.normalization import frozen_statistics

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

_NOISE = 0  # tag of the draws
_BLOCK = 256  # number of codes that are compared with all draws at once


def _rows(table: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Rows [N, d] of a table [M, d].

    The gradient is dense, by `scatter_nd`: TensorFlow's own is sparse, and what makes it dense, a sum of segments, has no
    deterministic kernel on GPUs.
    """
    shape = table.shape

    @tf.custom_gradient
    def gather(table):
        return tf.gather(table, indices), lambda upstream: tf.scatter_nd(indices[:, tf.newaxis], upstream, shape)

    return gather(tf.convert_to_tensor(table))


class GLANN(Autoencoder):
    """GLANN; see the module.

    Args:
        config: the configuration.
        image_shape: (H, W, C).
        seed: seed of the weights, of the codes and of the noise of training.
        name: name of the model.
    """

    config: GLANNConfig
    needs_indices = True

    def __init__(self, config: GLANNConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "glann"):
        super().__init__(config, image_shape, seed, name, encoder_outputs=0)
        self.reconstruction_error = ReconstructionError(config)
        normalized = config.imle_batch_normalization
        self.code_network = Perceptron(
            config.noise_dim,
            config.latent_dim,
            config.imle_units,
            config.imle_layers,
            # The mean square of a hidden unit is 1; of one that is normalised before its ReLU, a half.
            output_gain=((2.0 if normalized else 1.0) / config.latent_dim) ** 0.5,
            normalization="before" if normalized else "",
            seed=seed + 2,
            name="code_network",
        )
        self.codes: keras.Variable | None = None
        self.matched_noise: keras.Variable | None = None
        self._steps_per_epoch = 1
        self.built = True

    @property
    def stage_starts(self) -> tuple[int, ...]:
        return (0, self.config.first_stage_steps)

    @property
    def files_read(self) -> dict[str, str]:
        return self.reconstruction_error.files_read

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        self.reconstruction_error.load()
        count = dataset.num_images_at_start("train")
        self._steps_per_epoch = max(1, dataset.num_images("train") // batch_size)
        self.codes = self.add_weight(
            name="codes",
            shape=(count, self.config.latent_dim),
            dtype="float32",
            initializer=keras.initializers.RandomNormal(seed=self.seed + 3),
        )
        self.matched_noise = self.add_weight(
            name="matched_noise",
            shape=(count, self.config.noise_dim),
            dtype="float32",
            initializer="zeros",
            trainable=False,
        )
        self._project_codes()

    def players(self) -> list[Player]:
        generator = list(self.decoder.trainable_variables)
        if self.codes is not None:
            generator.append(self.codes)
        network = self.code_network.trainable_variables
        return [
            Player("generator", [Objective(self._reconstruction_loss, generator)]),
            Player("imle", [Objective(self._imle_loss, network)], stage=1),
        ]

    def averaged_variables(self) -> list[keras.Variable]:
        """The weights that have a running mean: those that are exported."""
        return [*self.decoder.trainable_variables, *self.code_network.trainable_variables]

    # The losses.

    def _reconstruction_loss(self, batch, noise, shared):
        images, indices = batch
        pixels = self.unit_pixels(images)
        codes = tf.math.l2_normalize(_rows(self._attached()[0].value, indices), axis=-1)
        error = self.reconstruction_error(pixels, self.decoder(codes, training=True))
        return Terms(error, {self.reconstruction_error.name: error})

    def _imle_loss(self, batch, noise, shared):
        _, indices = batch
        weights, matched_noise = self._attached()
        codes = tf.math.l2_normalize(tf.gather(weights.value, indices), axis=-1)
        drawn = self.code_network(tf.gather(matched_noise.value, indices), training=True)
        distance = tf.reduce_sum(tf.square(drawn - codes), axis=-1)
        return Terms(distance, {"squared_distance": distance})

    # Parts that are not learned by gradients.

    def _attached(self) -> tuple[keras.Variable, keras.Variable]:
        """The weights of the codes and the matched noise, which `attach` makes."""
        if self.codes is None or self.matched_noise is None:
            raise ValueError(f"{self.name}: expected a call of attach(dataset, batch_size) before training")
        return self.codes, self.matched_noise

    def begin_step(self, step: int) -> dict[str, float]:
        first = self.config.first_stage_steps
        if step < first:
            self._project_codes()
        elif (step - first) % self._steps_per_epoch == 0:
            return {"imle/distinct_noises": float(self._match((step - first) // self._steps_per_epoch))}
        return {}

    def long_begin_every(self, stage: int) -> int:
        """An epoch of the second stage, which begins with a search for each code."""
        return self._steps_per_epoch if stage == 1 else 0

    @property
    def training_note(self) -> str | None:
        first, epoch = self.config.first_stage_steps, self._steps_per_epoch
        if self.codes is None or first >= epoch:
            return None
        return (
            f"first_stage_steps={first}: the codes of about {1 - first / epoch:.0%} of the images stay random, as an epoch is "
            f"{epoch} steps; expected at least that many"
        )

    def _project_codes(self):
        """Projects the codes to the unit sphere; their weights are in units of codes_rate."""
        weights, _ = self._attached()
        weights.assign(tf.math.l2_normalize(weights.value, axis=-1) / self.config.codes_rate)

    def _match(self, epoch):
        """Gives each image the noise of the pool whose code is nearest to its own; returns how many noises that makes."""
        weights, matched_noise = self._attached()
        count = weights.shape[0]
        random = np.random.RandomState([self.seed, epoch])
        pool = random.standard_normal((self.config.pool_factor * count, self.config.noise_dim)).astype(np.float32)
        # By the pool's own statistics: the moving ones are of matched noises, which have no variance where one serves all codes.
        with frozen_statistics():
            parts = np.array_split(pool, self.config.pool_factor)
            drawn = tf.concat([self.code_network(part, training=True) for part in parts], axis=0)
        codes = tf.math.l2_normalize(weights.value, axis=-1)
        # |c - t|^2 = 1 - 2 c t + |t|^2.
        offset = 0.5 * tf.reduce_sum(tf.square(drawn), axis=-1)
        nearest = np.concatenate(
            [
                tf.argmax(tf.matmul(codes[start : start + _BLOCK], drawn, transpose_b=True) - offset, axis=-1)
                for start in range(0, count, _BLOCK)
            ]
        )
        matched_noise.assign(pool[nearest])
        return len(np.unique(nearest))

    # Abilities.

    def _codes_of(self, noise):
        """Codes on the unit sphere, float32 [N, latent_dim], of noise [N, noise_dim]."""
        return tf.math.l2_normalize(self.code_network(noise), axis=-1)

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        drawn = noise.normal((self.config.noise_dim,), _NOISE)
        return self._codes_of(drawn * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1]))


MODEL = GLANN
