"""The base of IntroVAE and Soft-IntroVAE: a VAE whose encoder distinguishes real from generated images by its KL.

Two players with the networks of Huang et al. (2018, Appendix B), first the encoder and then the generator, use the same images
of a step:

    z ~ q(z|x),   x_r = G(z),   x_p = G(e),  e ~ N(0, I)

which are computed once (`shared_tensors`). The encoder gets gradients through z from the reconstruction error of x_r; in its
other terms x_r and x_p are fixed images. The generator's loss uses the encoder that has just been updated; it gets gradients
through x_r and x_p, but not through z. Before that, `pretraining_steps` train both as one VAE (alpha = 0 in the paper).

In training, batch normalisation of the encoder normalises real, reconstructed and sampled images separately. Its moving
statistics are those of real images only, and `energy` uses them for all images. (Using them for generated images in training,
too, let their KLs grow without bound: configs/README.md.) Batch normalisation of the generator normalises reconstructions and
samples as one batch (in the pre-training: reconstructions alone). Both depart from the authors' code, where all passes are
separate and all update the statistics: its generator normalises by the statistics of one kind of latents in training and by a
mixture of both kinds afterwards, which spoilt reconstructions here.

In the last `final_encoder_steps` the encoder alone is trained (not in the papers): both networks normalise all images by their
moving statistics, which stay, so the KLs of training are those of `energy`, and samples stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.config.introspective import IntrospectiveOptions
from tfcq.engine.players import BalanceWarning, Objective, Player, Terms
from tfcq.machine.terminal import say
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.models.base import Array, Noise, log_mean_exp
from tfcq.networks import introvae
from tfcq.networks.normalization import frozen_statistics
from tfcq.randomness import RowNoise, StepNoise

tfd = tfp.distributions

GENERATED = ("reconstructed", "sampled")
"""Names of x_r and x_p."""

LATENT, SAMPLED = 0, 1
"""Tags of the draws of z and e."""

LOG_VARIANCES = (-20.0, 20.0)
"""Limits of a posterior's log-variance (not in the paper), so that exp stays finite; gradients pass through them."""


class IntrospectiveVAE(Autoencoder):
    """Base of both.

    Args:
        config: the configuration of the system.
        image_shape: (S, S, C), S a power of two.
        seed: seed of the weights and of the noise of training.
        name: name of the model.
    """

    config: IntrospectiveOptions
    encoder: keras.Sequential

    def __init__(self, config: IntrospectiveOptions, image_shape: tuple[int, int, int], seed: int, name: str):
        super().__init__(config, image_shape, seed, name, encoder_outputs=2 * config.latent_dim)
        self._encoder_alone = False

    def make_networks(self, outputs: int, seed: int) -> tuple[keras.Sequential, keras.Sequential]:
        config = self.config
        options: dict[str, Any] = {"width": config.width, "recompute": config.recompute_gradients}
        of_encoder, of_generator = config.normalization_of_encoder, config.network_normalization
        return (
            introvae.encoder(self.image_shape, outputs, normalization=of_encoder, seed=seed, **options),
            introvae.generator(self.image_shape, config.latent_dim, normalization=of_generator, seed=seed + 1, **options),
        )

    @property
    def abilities(self) -> frozenset[str]:
        return super().abilities | {"energy", "latent_likelihood", "unit_gaussian_likelihood"}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        steps = 0 if self.starts_trained else self.config.pretraining_steps
        return (0, steps) if steps and self.introspective else (0,)

    def begin_step(self, step: int) -> dict[str, float]:
        """Leaves the encoder alone for the last steps, where the options say so."""
        first = self.training_config.train_steps - self.config.final_encoder_steps
        self._encoder_alone = self.config.final_encoder_steps > 0 and step >= first
        if self._encoder_alone and step == first:
            say(f"step {step + 1}: from here on the encoder alone is trained, by fixed statistics; building its step ...")
        return super().begin_step(step)

    @property
    def graph_variant(self) -> bool:
        return self._encoder_alone

    def takes_part(self, player: Player) -> bool:
        return player.name == "encoder" or not self._encoder_alone

    def players(self) -> list[Player]:
        encoder, generator = self.encoder.trainable_variables, self.decoder.trainable_variables
        vae = Player("vae", [Objective(self._vae_loss, [*encoder, *generator])], uses_shared_tensors=False)
        if not self.introspective:
            return [vae]
        main = len(self.stage_starts) - 1
        pair = [
            Player("encoder", [Objective(self._encoder_loss, encoder)], stage=main),
            Player("generator", [Objective(self._generator_loss, generator)], stage=main),
        ]
        return [vae, *pair] if main else pair

    # Hooks that a system defines.

    @property
    def introspective(self) -> bool:
        """Whether encoder and generator play against each other; otherwise both are trained as a plain VAE throughout."""
        return True

    def weighted_vae_loss(self, error: tf.Tensor, kl: tf.Tensor) -> tf.Tensor:
        """The loss [N] of a plain VAE with this system's weights, from reconstruction errors and KLs, both [N]."""
        raise NotImplementedError

    def _encoder_loss(self, images, noise, shared):
        raise NotImplementedError

    def _generator_loss(self, images, noise, shared):
        raise NotImplementedError

    level_name = ""
    """The name of `level` in logs and warnings."""

    @property
    def level(self) -> float | tf.Tensor:
        """The KL at which generated images are held, nats: a float or a scalar tensor."""
        raise NotImplementedError

    def unbalanced(self, level: float, real: float, generated: tuple[float, ...]) -> BalanceWarning | None:
        """A warning if these KLs, in nats, show a lost balance, with the option that would help; None otherwise."""
        raise NotImplementedError

    def balance_warning(self, logs: dict[str, float]) -> BalanceWarning | None:
        """A warning if mean logs show that encoder and generator have lost their balance; None otherwise."""
        names = [f"encoder/kl_{name}" for name in ("real", *GENERATED)]
        if any(name not in logs for name in names):
            return None
        level, (real, reconstructed, sampled) = float(tf.convert_to_tensor(self.level)), (logs[name] for name in names)
        wrong = self.unbalanced(level, real, (reconstructed, sampled))
        if wrong is None:
            return None
        kls = f"KL of real {real:.4g}, reconstructed {reconstructed:.4g}, sampled {sampled:.4g} nats"
        return BalanceWarning(wrong.kind, f"{kls}, {self.level_name} {level:.4g}: {wrong.text}")

    # The shared tensors of a step.

    def shared_tensors(self, images: tf.Tensor, noise: StepNoise, kept: Any = None) -> dict[str, tf.Tensor]:
        """{"mean", "log_variance": of q(z|x), only if nothing was kept; "latents": z; "reconstructed": x_r; "sampled": x_p}."""
        posterior = {}
        if kept is None:
            mean, log_variance = self.posterior_of(self.unit_pixels(images), training=True)
            kept = {"latents": draw(mean, log_variance, noise.normal(self.latent_shape, LATENT))}
            posterior = {"mean": mean, "log_variance": log_variance}
        latents = [kept["latents"], noise.normal(self.latent_shape, SAMPLED)]
        return posterior | kept | self.generate(dict(zip(GENERATED, latents)))

    def keep(self, images: tf.Tensor, noise: StepNoise) -> dict[str, tf.Tensor]:
        with frozen_statistics():
            mean, log_variance = self.posterior_of(self.unit_pixels(images), training=True)
        return {"latents": draw(mean, log_variance, noise.normal(self.latent_shape, LATENT))}

    # Parts of losses.

    def generate(self, latents: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """{name: images [N, S, S, C]} for {name: latents [N, latent_dim]}, generated as one batch, or as they are served."""
        images = self.decoder(tf.concat(list(latents.values()), axis=0), training=not self._encoder_alone)
        return dict(zip(latents, tf.split(images, len(latents), axis=0)))

    def posterior_of(self, pixels: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log-variance of q(z|x), float32 [N, latent_dim], of pixels float32 [N, S, S, C] in [0, 1]."""
        by_batch = training and not self._encoder_alone
        mean, log_variance = tf.split(self.encoder(pixels, training=by_batch), 2, axis=-1)
        return mean, tfp.math.clip_by_value_preserve_gradient(log_variance, *LOG_VARIANCES)

    def posteriors_of_generated(self, images: Mapping[str, tf.Tensor]) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """{name: `posterior_of` images[name]} for the names in `GENERATED`.

        Batch normalisation uses the statistics of these images, but does not add them to the moving ones.
        """
        with frozen_statistics():
            return {name: self.posterior_of(images[name], training=True) for name in GENERATED}

    def of_real(self, images: tf.Tensor, shared: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, Any]]:
        """The plain VAE's loss of a step's real images, [N], and the encoder's logs for them."""
        error = squared_error(self.unit_pixels(images), shared["reconstructed"])
        kl = kl_of(shared["mean"], shared["log_variance"])
        return self.weighted_vae_loss(error, kl), {"kl_real": kl, "squared_error": error, self.level_name: self.level}

    def _vae_loss(self, images, noise, shared):
        pixels = self.unit_pixels(images)
        mean, log_variance = self.posterior_of(pixels, training=True)
        reconstructed = self.decoder(draw(mean, log_variance, noise.normal(self.latent_shape, LATENT)), training=True)
        error, kl = squared_error(pixels, reconstructed), kl_of(mean, log_variance)
        return Terms(self.weighted_vae_loss(error, kl), {"squared_error": error, "kl_real": kl})

    # Abilities.

    def posterior_mean(self, pixels: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.posterior_of(pixels, training)[0]

    def draw_latents(self, noise: Noise, temperature: float | Array = 1.0) -> tf.Tensor:
        return noise.normal(self.latent_shape, LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])

    def latent_log_prob(self, latents: tf.Tensor) -> tf.Tensor:
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_shape), 1.0), 1).log_prob(latents)

    def energy(self, images: Array, seeds: Array) -> Array:
        """KL(q(z|x) || p(z)), float32 [N], nats, of each image by itself; seeds have no effect.

        In training, the encoder distinguishes real (low) from generated (high) images by this KL. With batch normalisation it
        does so by the statistics of a batch of generated images; a single image has no such statistics, so this score does
        not distinguish them (see configs/README.md). With another `encoder_normalization` the score is the KL of training.
        """
        mean, log_variance = self.posterior_of(self.unit_pixels(images))
        return kl_of(mean, log_variance)

    def unit_gaussian_likelihood(self, images: Array, seeds: Array, num_importance_samples: int | Array = 1) -> Array:
        """log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), p(x|z) = N(decoder(z), 1), pixels in [0, 1]: float32 [N], nats.

        The score by which Soft-IntroVAE's authors tell data sets apart (Daniel and Tamar 2021, with K = 5 by their function in
        issue 15 of their repository). A deviation of 1 is far above the error of a reconstruction, so that this is no density
        that the model was trained for, and its values compare images under one model alone. Their function draws from and
        weighs by a Gaussian whose variances are q's deviations; here they are q's variances.
        """
        noise, pixels = RowNoise(seeds), self.unit_pixels(images)
        mean, log_variance = self.posterior_of(pixels)
        normalizer = 0.5 * math.prod(self.image_shape) * math.log(2.0 * math.pi)

        def log_weight(k):
            drawn = noise.fold(k).normal(self.latent_shape, LATENT)
            latents = draw(mean, log_variance, drawn)
            # log p(z) - log q(z|x)
            log_ratio = 0.5 * tf.reduce_sum(tf.square(drawn) + log_variance - tf.square(latents), axis=-1)
            return log_ratio - 0.5 * squared_error(pixels, self.decoder(latents)) - normalizer

        return log_mean_exp(log_weight, num_importance_samples, tf.shape(pixels)[:1])


def draw(mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Latents drawn from a posterior with standard normal noise; all [N, d]."""
    return mean + tf.exp(0.5 * log_variance) * noise


def kl_of(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """The KL of diagonal Gaussians with parameters [N, d] from N(0, I): [N], nats (Eq. 9)."""
    return 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - log_variance - 1.0, axis=-1)


def squared_error(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
    """The sum of squared differences over an image's values: [N]."""
    return tf.reduce_sum(tf.square(images - reconstructions), axis=[1, 2, 3])
