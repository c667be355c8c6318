"""Soft-IntroVAE (Daniel and Tamar 2021), on the networks of IntroVAE: an exponential in the place of the hinge and its margin.

    L_E = s (b_rec R(x) + b_kl KL(x)) + 1/4 sum_{s' in r, p} exp(-2 s (b_rec R(ng(x_s')) + b_neg KL(ng(x_s'))))
    L_G = s (b_rec R(x) + 1/2 b_kl (KL(x_r) + KL(x_p)) + 1/2 10^-8 b_rec (R'(x_r) + R'(x_p)))

with s = 1 / (H W C), R the squared error of an image and its reconstruction, summed, KL as in IntroVAE, ng without gradient, and
R' the error of a generated image, held fixed, and its reconstruction from held latents.

There is no margin: the encoder pushes a generated image less and less, and (without R) no harder than it pulls a real one from

    KL = ln(b_neg / (2 b_kl)) / (2 s b_neg)

on, which is the balance of the two. Real images must stay below it. By s it hangs on the number of an image's values: with
b_neg = 256, its authors' for 32x32 in colour, it is 29 nats there and 9.7 nats of one channel.
"""

import math

import tensorflow as tf

from tfcq.models.introspective import IntrospectiveVAE, draw, kl_of, squared_error
from tfcq.models.players import Terms
from tfcq.networks.normalization import frozen_statistics

_AGAIN = {"reconstructed": 2, "sampled": 3}  # tags of the draws of the generated images' latents
_GENERATED_ERROR = 1e-8  # the weight of R'


class SoftIntroVAE(IntrospectiveVAE):
    """See the module.

    Args:
        config: `tfcq.SoftIntroVAEConfig`.
        image_shape: (S, S, C), S a power of two.
        seed: of the weights and of the noise of training.
    """

    def __init__(self, config, image_shape, seed=0, name="soft_introvae"):
        super().__init__(config, image_shape, seed, name)
        self.scale = 1.0 / math.prod(self.image_shape)
        self.built = True

    def weighted_vae_loss(self, error, kl):
        return self.scale * (self.config.reconstruction_weight * error + self.config.kl_weight * kl)

    level_name = "balance"

    @property
    def level(self):
        push, pull = 0.5 * self.config.negative_weight, self.config.kl_weight
        if not push or not pull:
            return math.inf if push else 0.0
        return max(0.0, math.log(push / pull)) / (4.0 * self.scale * push)

    def unbalanced(self, level, real, *generated):
        if not real > level:
            return None
        highest = 2.0 * math.e * self.config.kl_weight  # the b_neg of the highest balance
        other = "lower" if self.config.negative_weight > highest else "higher"
        return (
            "real images are above the KL from which on the encoder pushes generated ones less than it pulls real ones; "
            f"a {other} --negative_weight (that KL is highest at {highest:.3g}) or a lower --reconstruction_weight would help"
        )

    def _encoder_loss(self, images, noise, shared):
        config, total = self.config, 0.0
        given = {name: tf.stop_gradient(shared[name]) for name in _AGAIN}
        parameters = {name: self.posterior_of_generated(given[name]) for name in _AGAIN}
        again, logs = self._again(parameters, noise), {}
        for name in _AGAIN:
            error, kl = squared_error(given[name], again[name]), kl_of(*parameters[name])
            weighted = config.reconstruction_weight * error + config.negative_weight * kl
            total += 0.25 * tf.exp(-2.0 * self.scale * weighted)
            logs |= {f"kl_{name}": kl, f"reconstruction_of_{name}": error}
        error = squared_error(self.unit_pixels(images), shared["reconstructed"])
        real = kl_of(shared["mean"], shared["log_variance"])
        logs |= {"kl_real": real, "reconstruction": error, self.level_name: self.level}
        return Terms(total + self.weighted_vae_loss(error, real), logs)

    def _generator_loss(self, images, noise, shared):
        config = self.config
        error = squared_error(self.unit_pixels(images), shared["reconstructed"])
        parameters = {name: self.posterior_of_generated(shared[name]) for name in _AGAIN}
        again, logs = self._again(tf.nest.map_structure(tf.stop_gradient, parameters), noise), {}
        total = config.reconstruction_weight * error
        for name in _AGAIN:
            of_generated, kl = squared_error(tf.stop_gradient(shared[name]), again[name]), kl_of(*parameters[name])
            total += 0.5 * (config.kl_weight * kl + _GENERATED_ERROR * config.reconstruction_weight * of_generated)
            logs |= {f"kl_{name}": kl}
        return Terms(self.scale * total, logs | {"reconstruction": error})

    def _again(self, parameters, noise):
        """{name: reconstructions} of generated images, of {name: (mean, log-variance) of their latents}."""
        draws = {name: draw(*parameters[name], noise.normal(self.latent_shape, tag)) for name, tag in _AGAIN.items()}
        with frozen_statistics():
            return self.generate(draws)


MODEL = SoftIntroVAE
