"""IntroVAE (Huang, Li, He, Sun, Tan 2018): the encoder is the discriminator.

    L_E = KL(x) + alpha sum_{s in r, p} [m - KL(ng(x_s))]+ + beta L_AE            (Eq. 11)
    L_G = alpha sum_{s in r, p} KL(x_s) + beta L_AE                               (Eq. 12)
    L_AE = 1/2 |x_r - x|^2                                                        (Eq. 10)

with KL(x) that of q(z|x) and N(0, I), ng without gradient, [.]+ the positive part. beta weighs a sum over pixels, and so hangs
on their number: other sizes need others. With alpha = 0 it is a plain VAE, trained as one. The hinge is each image's own, as in
Eq. 11; in the authors' code it is the batch mean's (--margin_form=batch_mean), and alpha of the generator 0.5
(--generator_adversarial_weight).
"""

import tensorflow as tf

from tfcq.engine.players import BalanceWarning, Terms
from tfcq.engine.trainer import of_all_replicas
from tfcq.machine.terminal import say
from tfcq.models.introspective.base import GENERATED, IntrospectiveVAE, kl_of, squared_error
from tfcq.randomness import row_seeds

SUGGESTED = 2.0
"""The margin that is suggested, in units of the mean KL of real images when the pre-training is over.

The paper says slightly above it; 2.0 had the better Frechet distance than 1.1 on Fashion-MNIST (configs/README.md).
"""

_MARGIN_IMAGES = 1000  # training images that this mean is over


class IntroVAE(IntrospectiveVAE):
    """See the module.

    Args:
        config: `tfcq.IntroVAEConfig`.
        image_shape: (S, S, C), S a power of two.
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="introvae"):
        super().__init__(config, image_shape, seed, name)
        # In the checkpoint: with margin=auto it is known when the pre-training is over.
        self.margin = self.add_weight(
            name="margin", shape=(), dtype="float32", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )
        if config.margin != "auto":
            self.margin.assign(float(config.margin))
        self._dataset, self._images_at_a_time = None, 0
        self.built = True

    def attach(self, dataset, batch_size):
        self._dataset, self._images_at_a_time = dataset, batch_size // tf.distribute.get_strategy().num_replicas_in_sync

    def begin_step(self, step):
        """Suggests a margin when the pre-training is over; takes it, where it is to be found out."""
        if step == 0 or step != self.stage_starts[-1]:
            return
        count = min(_MARGIN_IMAGES, self._dataset.num_images("train"))
        size = max(1, self._images_at_a_time // self.micro_batches)  # what a step has in memory at a time
        batches = (self._dataset.images("train", range(start, min(start + size, count))) for start in range(0, count, size))
        energy = tf.function(self.energy, reduce_retracing=True)
        mean = sum(float(tf.reduce_sum(energy(images, row_seeds(len(images))))) for images in batches) / count
        taken = self.config.margin == "auto"
        if taken:
            self.margin.assign(SUGGESTED * mean)
        say(
            f"pre-training is over: KL of real images {mean:.4g} nats; suggested --margin={SUGGESTED * mean:.4g}, "
            + ("which is used" if taken else f"--margin={self.config.margin} was given and is used")
        )

    level_name = "margin"

    @property
    def level(self):
        return self.margin.value

    def unbalanced(self, level: float, real: float, generated: tuple[float, ...]) -> BalanceWarning | None:
        if real > level:
            return BalanceWarning(
                "real above the margin",
                "real images are above the margin; a higher --margin or a lower --reconstruction_weight would help",
            )
        if any(kl > 2.0 * level for kl in generated):  # this factor and the next are ours: a balance is near the margin
            return BalanceWarning(
                "generator behind",
                "the generator is far behind the encoder; a --generator_adversarial_weight above "
                f"{self.generator_weight:g} or a lower --margin would help",
            )
        if any(kl < 0.5 * level for kl in generated):
            return BalanceWarning(
                "encoder behind",
                "the encoder no longer tells generated images; a --generator_adversarial_weight below "
                f"{self.generator_weight:g} or a lower --margin would help",
            )
        return None

    # The losses.

    @property
    def introspective(self):
        return self.config.adversarial_weight > 0.0

    @property
    def generator_weight(self):
        """alpha of Eq. 12."""
        return self.config.generator_adversarial_weight or self.config.adversarial_weight

    def weighted_vae_loss(self, error, kl):
        return kl + self.config.reconstruction_weight * 0.5 * error

    def _hinge(self, kl):
        kl = tf.reduce_mean(of_all_replicas(kl)) if self.config.margin_form == "batch_mean" else kl
        return tf.nn.relu(self.margin.value - kl)

    def _encoder_loss(self, images, noise, shared):
        total, logs = self.of_real(images, shared)
        posteriors = self.posteriors_of_generated({name: tf.stop_gradient(shared[name]) for name in GENERATED})
        for name, parameters in posteriors.items():
            kl = logs[f"kl_{name}"] = kl_of(*parameters)
            total += self.config.adversarial_weight * self._hinge(kl)
        return Terms(total, logs)

    def _generator_loss(self, images, noise, shared):
        error = squared_error(self.unit_pixels(images), shared["reconstructed"])
        total, logs = self.config.reconstruction_weight * 0.5 * error, {"squared_error": error}
        for name, parameters in self.posteriors_of_generated(shared).items():
            kl = logs[f"kl_{name}"] = kl_of(*parameters)
            total += self.generator_weight * kl
        return Terms(total, logs)


MODEL = IntroVAE
