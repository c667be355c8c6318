"""RealNVP on images, composed as its authors did."""

from tfcq.errors import UserError
from tfcq.flows.base import Chain
from tfcq.flows.coupling import AffineCoupling
from tfcq.flows.multi_scale import MultiScale
from tfcq.flows.normalization import ActNorm, BatchNormalizationFlow
from tfcq.flows.squeeze import Squeeze, Unsqueeze
from tfcq.networks.convolutions import spawn_seeds

NORMALIZATIONS = ("actnorm", "batch", "none")


class ImageFlow(Chain):
    """A flow of one or several scales; the features have the images' shape.

    A scale, image to feature: `couplings` checkerboard couplings of alternating parity; where another scale follows,
    these are followed by a squeeze, `couplings` channel couplings of alternating parity, an unsqueeze, and half of the
    dimensions leaves (`MultiScale`), the other half meeting the next scale, usually of twice the width. The last of several
    scales has one checkerboard coupling more. One scale is just `couplings` checkerboards (the three layers of the
    coverage-and-quality-driven models); none is the identity, without weights.

    Args:
        scales: the number of scales, 0 or more.
        couplings: the number of couplings of each kind in a scale.
        blocks: the residual blocks of each conditioner.
        width: the channels of the conditioners in the first scale.
        width_factor: what these are multiplied by at each further scale; the authors of RealNVP double them.
        normalization: "actnorm", before each coupling; "batch", after each, as the authors of RealNVP; "none".
        weight_normalization: whether the conditioners' convolutions are weight-normalised.
        conditioner_batch_normalization: whether the conditioners have batch normalisation.
        output_kernel_size: the side of the conditioners' last kernel: 1, as the authors of RealNVP, or 3.
        seed: an integer that fixes the initial values.
        conditioner: makes other conditioners, as of `AffineCoupling`; blocks, width and the like are then without meaning.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for a number or a normalisation out of range; when built for images whose height or width is not
            divisible by `2 ** (scales - 1)`.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, sections 3.6 and 4.1; Lucas et al.,
        "Adaptive density estimation for generative models", 2019, section 5.
    """

    def __init__(
        self,
        scales=1,
        couplings=3,
        blocks=2,
        width=32,
        normalization="actnorm",
        weight_normalization=True,
        conditioner_batch_normalization=False,
        output_kernel_size=1,
        seed=0,
        width_factor=2,
        conditioner=None,
        **kwargs,
    ):
        if scales < 0 or couplings < 1:
            raise UserError(
                f"an image flow needs scales >= 0 and couplings >= 1, got scales={scales} and couplings={couplings}"
            )
        if normalization not in NORMALIZATIONS:
            expected = ", ".join(NORMALIZATIONS)
            raise UserError(f"unknown normalization of a flow: expected one of {expected}, got {normalization!r}")
        options = {
            "blocks": blocks,
            "weight_normalization": weight_normalization,
            "batch_normalization": conditioner_batch_normalization,
            "output_kernel_size": output_kernel_size,
            "conditioner": conditioner,
            "dtype": kwargs.get("dtype"),
        }
        # One for each of at most 2 * couplings + 1 couplings of a scale.
        seeds = iter(spawn_seeds(seed, scales * (2 * couplings + 1)))

        def coupling_flows(mask, count, scale):
            flows = []
            for index in range(count):
                name = f"scale_{scale}_{mask}_{index}"
                coupling = AffineCoupling(
                    mask, index % 2, width * width_factor**scale, seed=next(seeds), name=f"{name}_coupling", **options
                )
                if normalization == "actnorm":
                    flows += [ActNorm(name=f"{name}_actnorm", dtype=options["dtype"]), coupling]
                elif normalization == "batch":
                    flows += [coupling, BatchNormalizationFlow(name=f"{name}_batch", dtype=options["dtype"])]
                else:
                    flows += [coupling]
            return flows

        def scale_flows(scale):
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
    def of(cls, options, seed, name="flow"):
        """The flow that `tfcq.config.groups.FlowOptions` describe."""
        return cls(
            scales=options.flow_scales,
            couplings=options.flow_couplings,
            blocks=options.flow_blocks,
            width=options.flow_width,
            width_factor=options.flow_width_factor,
            normalization=options.flow_normalization,
            weight_normalization=options.flow_weight_normalization,
            conditioner_batch_normalization=options.flow_conditioner_batch_normalization,
            output_kernel_size=options.flow_output_kernel_size,
            seed=seed,
            name=name,
        )

    def build(self, images_shape):
        """Builds every coupling for `images_shape`, `(N, H, W, C)`."""
        _, height, width, _ = images_shape
        divisor = 2 ** max(self.scales - 1, 0)
        if height % divisor or width % divisor:
            raise UserError(
                f"a flow of {self.scales} scales halves the images {self.scales - 1} times: expected height and width "
                f"divisible by {divisor}, got {height}x{width}; crop or resize the images, or use fewer scales"
            )
        super().build(images_shape)
