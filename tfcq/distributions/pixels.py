"""From pixels in (0, 256) to the unbounded space where flows and decoders live.

TFP's direction: forward = unbounded -> pixels. Both are fresh TFP bijectors without weights, with log-determinants in
nats per image that already count the factor 256.
"""

import math

import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors

_MARGIN = 0.05  # keeps the logit finite at 0 and 256 (Dinh et al. 2017, Section 4.1, which Shmelkov et al. 2018 follows)
_SHARE = 1.0 - 2.0 * _MARGIN


class PixelLogit(tfb.Bijector):
    """v = 256 (sigmoid(l) - 0.05) / 0.9, so that l = logit(0.05 + 0.9 v / 256); log|dl/dv| a value in nats.

    An l whose sigmoid leaves [0.05, 0.95] maps outside [0, 256], by up to 15 grey levels. The gradient is finite for
    every finite l; that of TFP's Sigmoid (0.25) is NaN from about 100 on, which early samples of a generator reach.

    `log|dl/dv| = softplus(l) + softplus(-l) + log(0.9 / 256)`.
    """

    def __init__(self, validate_args=False, name="pixel_logit"):
        parameters = dict(locals())
        super().__init__(
            forward_min_event_ndims=0, dtype=tf.float32, validate_args=validate_args, parameters=parameters, name=name
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward(self, unbounded):
        return (tf.sigmoid(unbounded) - _MARGIN) * (256.0 / _SHARE)

    def _inverse(self, pixels):
        share = _MARGIN + pixels * (_SHARE / 256.0)
        return tf.math.log(share) - tf.math.log1p(-share)

    def _forward_log_det_jacobian(self, unbounded):
        return -tf.nn.softplus(unbounded) - tf.nn.softplus(-unbounded) - math.log(_SHARE / 256.0)


def pixel_bijector(name):
    """The bijector of `CQFConfig.pixel_transform`: "logit": `PixelLogit`; "affine": v = 128 (l + 1).

    Raises:
        ValueError: another name.
    """
    if name == "logit":
        return PixelLogit()
    if name == "affine":
        return tfb.Chain([tfb.Shift(128.0), tfb.Scale(128.0)])
    raise ValueError(f"pixel_transform: expected logit or affine, received {name!r}")
