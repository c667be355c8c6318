"""Bijectors between the unbounded space of flows and decoders and pixels in (0, 256).

In TFP's direction: forward = unbounded -> pixels. Both are fresh TFP bijectors without weights, with log-determinants in
nats per image that already count the factor 256.
"""

import math

import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors

_MARGIN = 0.05  # keeps the logit finite at 0 and 256 (Dinh et al. 2017, Section 4.1, which Shmelkov et al. 2018 follows)
_INSIDE = 1.0 - 2.0 * _MARGIN  # the fraction of (0, 1) between the margins


class PixelLogit(tfp.bijectors.Bijector):
    """v = 256 (sigmoid(l) - 0.05) / 0.9, so that l = logit(0.05 + 0.9 v / 256); log|dl/dv| in nats per value.

    An l whose sigmoid leaves [0.05, 0.95] maps outside [0, 256], by up to 15 grey levels. The gradient is finite for
    every finite l; that of TFP's Sigmoid (0.25) is NaN beyond about 100, which a generator's early samples reach.

    `log|dl/dv| = softplus(l) + softplus(-l) + log(0.9 / 256)`.
    """

    def __init__(self, validate_args: bool = False, name: str = "pixel_logit"):
        parameters = dict(locals())
        super().__init__(
            forward_min_event_ndims=0, dtype=tf.float32, validate_args=validate_args, parameters=parameters, name=name
        )

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward(self, unbounded):
        return (tf.sigmoid(unbounded) - _MARGIN) * (256.0 / _INSIDE)

    def _inverse(self, pixels):
        probability = _MARGIN + pixels * (_INSIDE / 256.0)
        return tf.math.log(probability) - tf.math.log1p(-probability)

    def _forward_log_det_jacobian(self, unbounded):
        return -tf.nn.softplus(unbounded) - tf.nn.softplus(-unbounded) - math.log(_INSIDE / 256.0)


def pixel_bijector(name: str) -> tfp.bijectors.Bijector:
    """The bijector for a value of `CQFConfig.pixel_transform`: "logit": `PixelLogit`; "affine": v = 128 (l + 1).

    Raises:
        ValueError: an unknown name.
    """
    if name == "logit":
        return PixelLogit()
    if name == "affine":
        return tfb.Chain([tfb.Shift(128.0), tfb.Scale(128.0)])
    raise ValueError(f"pixel_transform: expected logit or affine, received {name!r}")
