"""GLANN (Hoshen, Li and Malik 2019; Xiao et al. 2019, Table 1): a code for each training image, then a network that draws codes.

    GLO     codes c_i on the unit sphere and the generator G, together: L = error(x_i, G(c_i))           `first_stage_steps`
    IMLE    T from noise e to codes: each epoch, of `pool_factor` times as many draws of e as there are images, the one whose
            T(e) is nearest to c_i is given to image i;  L = |T(e_i) - c_i|^2, of T(e) as it is, not taken to the sphere

To sample: e ~ N(0, I), T(e) taken to the unit sphere, G. There is no encoder and no density. The paper trains by the perceptual
loss (`--reconstruction=perceptual`).

Codes learn `codes_rate` times as fast as G, as they do in the authors' work (1e-2 and 1e-3). With Adam, whose steps do not
depend on the size of gradients, that is what codes in units of `codes_rate` do; so c_i = codes_rate w_i, and w_i is a weight.
Codes and their noise are in the checkpoints to resume from and in no export.

An image keeps its code for as long as the run goes on, whatever becomes of others. The code of one that is gone lies idle. Where
an image has another content (`--accept_changed_data`), its code goes on from where it is, as from any first value, and learns
that content in what is left of the first stage; after that, codes learn no more and images are not looked at.

Where this departs from the authors' code: T has biases, and neither batch normalisation nor weight decay.
"""

import keras
import numpy as np
import tensorflow as tf

from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.networks.dense import Perceptron

_NOISE = 0  # tag of the draws
_BLOCK = 256  # codes that are compared with all draws at a time


class GLANN(Autoencoder):
    """See the module.

    Args:
        config: `tfcq.GLANNConfig`.
        image_shape: (H, W, C).
        seed: of the weights, of the codes and of the noise of training.
    """

    needs_indices = True

    def __init__(self, config, image_shape, seed=0, name="glann"):
        super().__init__(config, image_shape, seed, name, encoder_outputs=0)
        self.reconstruction_error = ReconstructionError(config)
        self.code_network = Perceptron(
            config.noise_dim, config.latent_dim, config.imle_units, config.imle_layers, seed=seed + 2, name="code_network"
        )
        self.codes = self.matched_noise = None
        self._steps_per_epoch = None
        self.built = True

    @property
    def stage_starts(self):
        return (0, self.config.first_stage_steps)

    @property
    def files_read(self):
        return self.reconstruction_error.files_read

    def attach(self, dataset, batch_size):
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

    def players(self):
        generator = [*self.decoder.trainable_variables, *([self.codes] if self.codes is not None else [])]
        network = self.code_network.trainable_variables
        return [
            Player("generator", [Objective(self._reconstruction_loss, generator)]),
            Player("imle", [Objective(self._imle_loss, network)], stage=1),
        ]

    def averaged_variables(self):
        """The weights that a running mean is kept of: those that are exported."""
        return [*self.decoder.trainable_variables, *self.code_network.trainable_variables]

    # The losses.

    def _reconstruction_loss(self, batch, noise, shared):
        images, indices = batch
        pixels = self.unit_pixels(images)
        codes = tf.math.l2_normalize(tf.gather(self.codes.value, indices), axis=-1)
        error = self.reconstruction_error(pixels, self.decoder(codes, training=True))
        return Terms(error, {self.reconstruction_error.name: error})

    def _imle_loss(self, batch, noise, shared):
        _, indices = batch
        codes = tf.math.l2_normalize(tf.gather(self.codes.value, indices), axis=-1)
        drawn = self.code_network(tf.gather(self.matched_noise.value, indices))
        distance = tf.reduce_sum(tf.square(drawn - codes), axis=-1)
        return Terms(distance, {"squared_distance": distance})

    # What is not learned by gradients.

    def begin_step(self, step):
        first = self.config.first_stage_steps
        if step < first:
            self._project_codes()
        elif (step - first) % self._steps_per_epoch == 0:
            self._match((step - first) // self._steps_per_epoch)

    def _project_codes(self):
        """To the unit sphere, in units of codes_rate."""
        self.codes.assign(tf.math.l2_normalize(self.codes.value, axis=-1) / self.config.codes_rate)

    def _match(self, epoch):
        """Gives each image the noise of the pool whose code is nearest to its own."""
        count = self.codes.shape[0]
        random = np.random.RandomState([self.seed, epoch])
        pool = random.standard_normal((self.config.pool_factor * count, self.config.noise_dim)).astype(np.float32)
        drawn = tf.concat([self.code_network(part) for part in np.array_split(pool, self.config.pool_factor)], axis=0)
        codes = tf.math.l2_normalize(self.codes.value, axis=-1)
        # |c - t|^2 = 1 - 2 c t + |t|^2.
        offset = 0.5 * tf.reduce_sum(tf.square(drawn), axis=-1)
        nearest = np.concatenate(
            [
                tf.argmax(tf.matmul(codes[start : start + _BLOCK], drawn, transpose_b=True) - offset, axis=-1)
                for start in range(0, count, _BLOCK)
            ]
        )
        self.matched_noise.assign(pool[nearest])

    # What it can do.

    def _codes_of(self, noise):
        """Codes on the unit sphere, float32 [N, latent_dim], of noise [N, noise_dim]."""
        return tf.math.l2_normalize(self.code_network(noise), axis=-1)

    def draw_latents(self, noise, temperature=1.0):
        drawn = noise.normal((self.config.noise_dim,), _NOISE)
        return self._codes_of(drawn * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1]))


MODEL = GLANN
