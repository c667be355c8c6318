"""What IntroVAE and Soft-IntroVAE share: a VAE whose encoder tells real from generated images by its own KL (Huang et al. 2018).

Two players with the networks of the paper's Appendix B, the encoder and then the generator, see the same images of a step:

    z ~ q(z|x),   x_r = G(z),   x_p = G(e),  e ~ N(0, I)

which are made once (`share`). The encoder feels x_r through z in its reconstruction, and sees x_r and x_p as given images; the
generator meets the encoder that has just moved, and feels x_r and x_p but not z. Before that, `pretraining_steps` train both
as one VAE (alpha = 0 in the paper).

Batch normalisation of the encoder sees real, reconstructed and sampled images apart, and its moving statistics are those of
real images alone, also where `energy` is asked of others. (Seeing generated images by these in training too let their KLs grow
without bound: configs/README.md.) That of the generator sees reconstructions and samples as one batch (while both are a VAE:
reconstructions alone). Both depart from the authors' code, where all passes are apart and all move the statistics: its
generator normalises by statistics of latents of one kind while it learns and by a mixture of both kinds afterwards, which
spoilt reconstructions here.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.engine.players import BalanceWarning, Objective, Player, Terms
from tfcq.models.autoencoders.autoencoder import Autoencoder
from tfcq.networks import introvae
from tfcq.networks.normalization import frozen_statistics

tfd = tfp.distributions

GENERATED = ("reconstructed", "sampled")
"""Names of x_r and x_p."""

LATENT, SAMPLED = 0, 1
"""Tags of the draws of z and e."""

LOG_VARIANCES = (-20.0, 20.0)
"""Limits of a posterior's log-variance (ours), so that exp stays finite; gradients go through them."""


class IntrospectiveVAE(Autoencoder):
    """Base of both.

    Args:
        config: `IntrospectiveOptions` of the system.
        image_shape: (S, S, C), S a power of two.
        seed: of the weights and of the noise of training.
        name: of the model.
    """

    def __init__(self, config, image_shape, seed, name):
        super().__init__(config, image_shape, seed, name, encoder_outputs=2 * config.latent_dim)

    def make_networks(self, outputs, seed):
        config = self.config
        options = {
            "width": config.width,
            "normalization": config.network_normalization,
            "recompute": config.recompute_gradients,
        }
        encoder = introvae.encoder(self.image_shape, outputs, seed=seed, **options)
        return encoder, introvae.generator(self.image_shape, config.latent_dim, seed=seed + 1, **options)

    @property
    def abilities(self):
        return super().abilities | {"energy", "latent_likelihood"}

    @property
    def stage_starts(self):
        return (0, self.config.pretraining_steps) if self.config.pretraining_steps and self.introspective else (0,)

    def players(self):
        encoder, generator = self.encoder.trainable_variables, self.decoder.trainable_variables
        vae = Player("vae", [Objective(self._vae_loss, [*encoder, *generator])], shares=False)
        if not self.introspective:
            return [vae]
        main = len(self.stage_starts) - 1
        return [
            *([vae] if main else []),
            Player("encoder", [Objective(self._encoder_loss, encoder)], stage=main),
            Player("generator", [Objective(self._generator_loss, generator)], stage=main),
        ]

    # What a system offers.

    introspective = True
    """Whether encoder and generator play against each other at all; otherwise both are a plain VAE to the end."""

    def weighted_vae_loss(self, error, kl):
        """What a VAE of these weights minimises, [N], of reconstruction errors and KLs, [N]."""
        raise NotImplementedError

    def _encoder_loss(self, images, noise, shared):
        raise NotImplementedError

    def _generator_loss(self, images, noise, shared):
        raise NotImplementedError

    level_name = ""
    """What the KL is called that generated images are held at, in logs and warnings."""

    @property
    def level(self):
        """That KL, nats: a float or a scalar tensor."""
        raise NotImplementedError

    def unbalanced(self, level: float, real: float, generated: tuple[float, ...]) -> BalanceWarning | None:
        """What is wrong where KLs stand like this to the level, nats, and which option would help; else None."""
        raise NotImplementedError

    def balance_warning(self, logs: dict[str, float]) -> BalanceWarning | None:
        """Where encoder and generator have lost their balance, to judge by mean logs; else None."""
        names = [f"encoder/kl_{name}" for name in ("real", *GENERATED)]
        if any(name not in logs for name in names):
            return None
        level, (real, reconstructed, sampled) = float(tf.convert_to_tensor(self.level)), (logs[name] for name in names)
        wrong = self.unbalanced(level, real, (reconstructed, sampled))
        if wrong is None:
            return None
        seen = f"KL of real {real:.4g}, reconstructed {reconstructed:.4g}, sampled {sampled:.4g} nats"
        return BalanceWarning(wrong.kind, f"{seen}, {self.level_name} {level:.4g}: {wrong.text}")

    # What a step shares.

    def share(self, images, noise, kept=None):
        """{"mean", "log_variance": of z (only where nothing was kept), "latents": z, "reconstructed": x_r, "sampled": x_p}."""
        posterior = {}
        if kept is None:
            mean, log_variance = self.posterior_of(self.unit_pixels(images), training=True)
            kept = {"latents": draw(mean, log_variance, noise.normal(self.latent_shape, LATENT))}
            posterior = {"mean": mean, "log_variance": log_variance}
        latents = [kept["latents"], noise.normal(self.latent_shape, SAMPLED)]
        return posterior | kept | self.generate(dict(zip(GENERATED, latents)))

    def keep(self, images, noise):
        with frozen_statistics():
            parameters = self.posterior_of(self.unit_pixels(images), training=True)
        return {"latents": draw(*parameters, noise.normal(self.latent_shape, LATENT))}

    # Parts of losses.

    def generate(self, latents):
        """{name: images [N, S, S, C]} of {name: latents [N, latent_dim]}, made as one batch."""
        images = self.decoder(tf.concat(list(latents.values()), axis=0), training=True)
        return dict(zip(latents, tf.split(images, len(latents), axis=0)))

    def posterior_of(self, pixels, training=False):
        """Mean and log-variance of q(z|x), float32 [N, latent_dim], of pixels float32 [N, S, S, C] in [0, 1]."""
        mean, log_variance = tf.split(self.encoder(pixels, training=training), 2, axis=-1)
        return mean, tfp.math.clip_by_value_preserve_gradient(log_variance, *LOG_VARIANCES)

    def posteriors_of_generated(self, images):
        """{name of `GENERATED`: the same of images[name]}, which are not real: their statistics are used, and forgotten."""
        with frozen_statistics():
            return {name: self.posterior_of(images[name], training=True) for name in GENERATED}

    def of_real(self, images, shared):
        """What a VAE minimises of a step's images, [N], and what their encoder logs."""
        error = squared_error(self.unit_pixels(images), shared["reconstructed"])
        kl = kl_of(shared["mean"], shared["log_variance"])
        return self.weighted_vae_loss(error, kl), {"kl_real": kl, "squared_error": error, self.level_name: self.level}

    def _vae_loss(self, images, noise, shared):
        pixels = self.unit_pixels(images)
        mean, log_variance = self.posterior_of(pixels, training=True)
        reconstructed = self.decoder(draw(mean, log_variance, noise.normal(self.latent_shape, LATENT)), training=True)
        error, kl = squared_error(pixels, reconstructed), kl_of(mean, log_variance)
        return Terms(self.weighted_vae_loss(error, kl), {"squared_error": error, "kl_real": kl})

    # What it can do.

    def posterior_mean(self, pixels, training=False):
        return self.posterior_of(pixels, training)[0]

    def draw_latents(self, noise, temperature=1.0):
        return noise.normal(self.latent_shape, LATENT) * tf.reshape(tf.cast(temperature, tf.float32), [-1, 1])

    def latent_log_prob(self, latents):
        return tfd.Independent(tfd.Normal(tf.zeros(self.latent_shape), 1.0), 1).log_prob(latents)

    def energy(self, images, seeds):
        """KL(q(z|x) || p(z)), float32 [N], nats, of each image by itself; seeds decide nothing.

        What the encoder tells real (low) from generated (high) images by while it learns. With batch normalisation it tells
        generated ones by the statistics of their batch, which one image has not, and this score does not tell them: see
        configs/README.md. `network_normalization="none"` scores as it learns.
        """
        return kl_of(*self.posterior_of(self.unit_pixels(images)))


def draw(mean, log_variance, noise):
    """Latents of a posterior, all [N, d]."""
    return mean + tf.exp(0.5 * log_variance) * noise


def kl_of(mean, log_variance):
    """KL of diagonal Gaussians, [N, d] each, and N(0, I): [N], nats (Eq. 9)."""
    return 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - log_variance - 1.0, axis=-1)


def squared_error(images, others):
    """Squares of the differences, summed over an image's values: [N]."""
    return tf.reduce_sum(tf.square(images - others), axis=[1, 2, 3])
