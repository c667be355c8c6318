"""RealNVP on images, in the composition of its authors' program; `ImageFlow` says what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Chain, Flow, ImagesShape
from tfcq.flows.coupling import AffineCoupling
from tfcq.flows.multi_scale import MultiScale
from tfcq.flows.normalization import ActNorm, BatchNormalizationFlow
from tfcq.flows.squeeze import Squeeze, Unsqueeze
from tfcq.networks.convolutions import spawn_seeds

if TYPE_CHECKING:
    from tfcq.config.groups import FlowOptions

NORMALIZATIONS = ("actnorm", "batch", "none")


class ImageFlow(Chain):
    """A flow of one or several scales; the features have the images' shape.

    A scale, image to feature, has `couplings` checkerboard couplings of alternating parity, first that which keeps the
    upper left pixel. If another scale follows, there are also a squeeze, `couplings` channel couplings of alternating
    parity, first that which keeps the first half, and an unsqueeze; then half of the dimensions are features, and the
    other half, a diagonal of each 2x2 block, goes on to the next scale (`MultiScale`). The last of several scales has one
    more checkerboard coupling. Without scales the flow is the identity, without weights.

    Scale s, counted from 0, has conditioners of `width * width_factor**s` channels in its checkerboard couplings and
    `channel_width_factor` times as many in its channel couplings, which see four times the channels. Couplings, masks,
    squeezes and widths are those of the program of RealNVP's authors with the defaults, `couplings=3` and two or more
    scales. What differs from that program:

      * A single scale has only `couplings` checkerboards, the three layers of Shmelkov et al. (2018); theirs has a
        fourth.
      * The squeeze before channel couplings orders values pixel by pixel, theirs colour by colour. So the first half is
        the upper row of each 2x2 block, theirs (of three colours) one colour and two pixels of the second.
      * The factor `a` of the log-scale starts at 0 in all couplings, theirs at 1 in channel couplings.
      * Batch normalisation after a coupling is that of all values, theirs that of the half that moved.
      * The conditioners: see `ResidualConditioner`. "actnorm" and "none" are not theirs.

    Args:
        scales: the number of scales, 0 or more.
        couplings: the number of couplings of each kind in a scale.
        blocks: the number of residual blocks of each conditioner.
        width: the number of channels of the conditioners in the first scale.
        width_factor: the factor of the width at each further scale; the authors of RealNVP double it.
        channel_width_factor: the factor of the width in channel couplings, against the checkerboards of their scale: 2, as
            by the authors of RealNVP; flows of earlier versions had 1.
        normalization: "actnorm", before each coupling; "batch", after each, as by the authors of RealNVP; "none".
        weight_normalization: whether the conditioners' convolutions are weight-normalised.
        conditioner_batch_normalization: whether the conditioners have batch normalisation.
        output_kernel_size: the side of the conditioners' last kernel: 1, as by the authors of RealNVP, or 3.
        seed: an integer that fixes the initial values.
        conditioner: makes other conditioners, see `AffineCoupling`; the options of the usual ones then have no effect.
        condition_size: how many values the condition has on which all couplings depend; 0: there is none.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: a number out of range or an unknown normalisation; when built, a height or width that is not
            divisible by `2 ** (scales - 1)`.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, sections 3.6 and 4.1; Lucas et al.,
        "Adaptive density estimation for generative models", 2019, section 5.
    """

    def __init__(
        self,
        scales: int = 1,
        couplings: int = 3,
        blocks: int = 2,
        width: int = 32,
        normalization: str = "actnorm",
        weight_normalization: bool = True,
        conditioner_batch_normalization: bool = False,
        output_kernel_size: int = 1,
        seed: int | None = 0,
        width_factor: int = 2,
        channel_width_factor: int = 2,
        conditioner: Callable[[int, int | None, str, Any], keras.layers.Layer] | None = None,
        condition_size: int = 0,
        **kwargs: Any,
    ):
        if scales < 0 or couplings < 1:
            raise UserError(
                f"an image flow needs scales >= 0 and couplings >= 1, got scales={scales} and couplings={couplings}"
            )
        if normalization not in NORMALIZATIONS:
            expected = ", ".join(NORMALIZATIONS)
            raise UserError(f"unknown normalization of a flow: expected one of {expected}, got {normalization!r}")
        options: dict[str, Any] = {
            "blocks": blocks,
            "weight_normalization": weight_normalization,
            "batch_normalization": conditioner_batch_normalization,
            "output_kernel_size": output_kernel_size,
            "conditioner": conditioner,
            "condition_size": condition_size,
            "dtype": kwargs.get("dtype"),
        }
        # A scale has at most 2 * couplings + 1 couplings, with a seed each.
        seeds = iter(spawn_seeds(seed, scales * (2 * couplings + 1)))

        def coupling_flows(mask: str, count: int, scale: int) -> list[Flow]:
            flows: list[Flow] = []
            channels = width * width_factor**scale * (channel_width_factor if mask == "channel" else 1)
            for index in range(count):
                name = f"scale_{scale}_{mask}_{index}"
                coupling = AffineCoupling(
                    mask, index % 2, channels, seed=next(seeds), name=f"{name}_coupling", **options
                )
                if normalization == "actnorm":
                    flows += [ActNorm(name=f"{name}_actnorm", dtype=options["dtype"]), coupling]
                elif normalization == "batch":
                    flows += [coupling, BatchNormalizationFlow(name=f"{name}_batch", dtype=options["dtype"])]
                else:
                    flows += [coupling]
            return flows

        def scale_flows(scale: int) -> list[Flow]:
            last = scale == scales - 1
            flows = coupling_flows("checkerboard", couplings + (1 if last and scales > 1 else 0), scale)
            if last:
                return flows
            dtype = options["dtype"]
            flows += [Squeeze(name=f"scale_{scale}_squeeze", dtype=dtype)]
            flows += coupling_flows("channel", couplings, scale)
            flows += [Unsqueeze(name=f"scale_{scale}_unsqueeze", dtype=dtype)]
            fine = Chain(flows, name=f"scale_{scale}", dtype=dtype)
            coarse = Chain(scale_flows(scale + 1), name=f"after_scale_{scale}", dtype=dtype)
            return [MultiScale(fine, coarse, name=f"multi_scale_{scale}", dtype=dtype)]

        super().__init__(scale_flows(0) if scales else [], **kwargs)
        self.scales = scales

    @classmethod
    def of(cls, options: FlowOptions, seed: int | None, name: str = "flow", condition_size: int = 0) -> ImageFlow:
        """The flow that `options` describe."""
        return cls(
            scales=options.flow_scales,
            couplings=options.flow_couplings,
            blocks=options.flow_blocks,
            width=options.flow_width,
            width_factor=options.flow_width_factor,
            channel_width_factor=options.flow_channel_width_factor,
            normalization=options.flow_normalization,
            weight_normalization=options.flow_weight_normalization,
            conditioner_batch_normalization=options.flow_conditioner_batch_normalization,
            output_kernel_size=options.flow_output_kernel_size,
            seed=seed,
            name=name,
            condition_size=condition_size,
        )

    def build(self, images_shape: ImagesShape) -> None:
        """Builds every coupling for `images_shape`, `(N, H, W, C)`."""
        _, height, width, _ = images_shape
        divisor = 2 ** max(self.scales - 1, 0)
        if height % divisor or width % divisor:
            raise UserError(
                f"a flow of {self.scales} scales halves the images {self.scales - 1} times: expected height and width "
                f"divisible by {divisor}, got {height}x{width}; crop or resize the images, or use fewer scales"
            )
        super().build(images_shape)

    def squared_magnitudes(self) -> tf.Tensor:
        """The sum of the squares of the kernels' magnitudes and of the couplings' factors `a`, a scalar of their dtype.

        The authors of RealNVP penalise this sum, with the coefficient 5e-5, beside a likelihood in nats per image. In their
        program it lacks the factors of channel couplings, and the first kernels of a conditioner and of its blocks, which
        have no magnitude there.
        """
        penalised = [variable for variable in self.trainable_variables if variable.name in ("magnitude", "log_scale_factor")]
        if not penalised:  # the identity
            return tf.zeros([], self.transform_dtype)
        return tf.reduce_sum(tf.square(tf.concat([tf.reshape(variable.value, [-1]) for variable in penalised], axis=0)))
