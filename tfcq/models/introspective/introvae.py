"""IntroVAE (Huang, Li, He, Sun, Tan 2018): the encoder is the discriminator.

    L_E = KL(x) + alpha sum_{s in r, p} [m - KL(ng(x_s))]+ + beta L_AE            (Eq. 11)
    L_G = alpha sum_{s in r, p} KL(x_s) + beta L_AE                               (Eq. 12)
    L_AE = 1/2 |x_r - x|^2                                                        (Eq. 10)

with KL(x) that of q(z|x) and N(0, I), ng without gradient, [.]+ the positive part. beta is the weight of a sum over pixels, so
its best value depends on their number. With alpha = 0 this is a plain VAE. The hinge is applied to each image, as in Eq. 11; in
the authors' code it is applied to the batch mean (--margin_form=batch_mean), and the generator's alpha is 0.5
(--generator_adversarial_weight).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tfcq.config import IntroVAEConfig
from tfcq.engine.players import BalanceWarning, Terms
from tfcq.engine.trainer import of_all_replicas
from tfcq.errors import UserError
from tfcq.machine.terminal import say
from tfcq.models.introspective.base import GENERATED, IntrospectiveVAE, kl_of, squared_error
from tfcq.randomness import row_seeds

if TYPE_CHECKING:
    import keras

    from tfcq.data import ImageDataset

SUGGESTED = 2.0
"""The suggested margin, relative to the mean KL of real images at the end of the pre-training.

The paper suggests a margin slightly above this mean; 2.0 gave a better Frechet distance than 1.1 on Fashion-MNIST
(configs/README.md).
"""

_MARGIN_IMAGES = 1000  # training images for this mean


class IntroVAE(IntrospectiveVAE):
    """IntroVAE; see the module.

    Args:
        config: the configuration.
        image_shape: (S, S, C), S a power of two.
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: IntroVAEConfig

    def __init__(self, config: IntroVAEConfig, image_shape: tuple[int, int, int], seed: int = 0, name: str = "introvae"):
        super().__init__(config, image_shape, seed, name)
        # Kept in the checkpoint, because with margin=auto it is determined at the end of the pre-training.
        self.margin = self.add_weight(
            name="margin", shape=(), dtype="float32", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )
        if config.margin != "auto":
            self.margin.assign(float(config.margin))
        self._dataset: ImageDataset | None = None
        self._images_at_a_time = 0
        self.built = True

    def inherited_variables(self) -> list[keras.Variable]:
        """Without the margin, where the options give it."""
        return [one for one in super().inherited_variables() if self.config.margin == "auto" or one is not self.margin]

    def check_inherited(self) -> None:
        """Raises UserError if the margin follows from a pre-training that the other run has not finished."""
        if self.introspective and not float(tf.convert_to_tensor(self.margin)) > 0.0:
            raise UserError(
                "init_from with margin=auto: expected a run whose pre-training is over, from which the margin follows; train it "
                "further, or give --margin=NUMBER"
            )

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        self._dataset, self._images_at_a_time = dataset, batch_size // tf.distribute.get_strategy().num_replicas_in_sync

    def begin_step(self, step: int) -> dict[str, float]:
        """Suggests a margin at the end of the pre-training; with margin=auto, uses it."""
        logs = super().begin_step(step)
        if step == 0 or step != self.stage_starts[-1]:
            return logs
        assert self._dataset is not None  # set by attach, before training
        count = min(_MARGIN_IMAGES, self._dataset.num_images("train"))
        size = max(1, self._images_at_a_time // self.micro_batches)  # the number of images that a step has in memory at once
        batches = (self._dataset.images("train", range(start, min(start + size, count))) for start in range(0, count, size))
        energy = tf.function(self.energy, autograph=False, reduce_retracing=True)
        mean = sum(float(tf.reduce_sum(energy(images, row_seeds(len(images))))) for images in batches) / count
        taken = self.config.margin == "auto"
        if taken:
            self.margin.assign(SUGGESTED * mean)
        say(
            f"pre-training is over: KL of real images {mean:.4g} nats; suggested --margin={SUGGESTED * mean:.4g}, "
            + ("which is used" if taken else f"--margin={self.config.margin} was given and is used")
        )
        return logs

    level_name = "margin"

    @property
    def level(self) -> tf.Tensor:
        return self.margin.value

    def unbalanced(self, level: float, real: float, generated: tuple[float, ...]) -> BalanceWarning | None:
        if real > level:
            return BalanceWarning(
                "real above the margin",
                "real images are above the margin; a higher --margin or a lower --reconstruction_weight would help",
            )
        # The factors are not in the paper. In balance, the KLs of generated images are near the margin.
        if any(kl > 2.0 * level for kl in generated):
            return BalanceWarning(
                "generator behind",
                "the generator is far behind the encoder; a --generator_adversarial_weight above "
                f"{self.generator_weight:g} or a lower --margin would help",
            )
        if any(kl < 0.5 * level for kl in generated):
            return BalanceWarning(
                "encoder behind",
                "the encoder no longer distinguishes generated images; a --generator_adversarial_weight below "
                f"{self.generator_weight:g} or a lower --margin would help",
            )
        return None

    # The losses.

    @property
    def introspective(self) -> bool:
        return self.config.adversarial_weight > 0.0

    @property
    def generator_weight(self) -> float:
        """alpha in Eq. 12."""
        return self.config.generator_adversarial_weight or self.config.adversarial_weight

    def weighted_vae_loss(self, error: tf.Tensor, kl: tf.Tensor) -> tf.Tensor:
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
