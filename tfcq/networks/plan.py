"""The sizes of the hierarchical encoder and decoder (`tfcq.networks.hierarchy`)."""

import dataclasses
from typing import Any

NETWORKS = ("standard", "plain", "residual")
RESIDUAL_SCALE = 0.1  # factor of a block's residual (Kingma et al. 2016, in their code)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sizes that encoder and decoder agree on. Level 0 is the coarsest resolution.

    Attributes:
        image_shape: (H, W, C) of the features.
        halvings: number of times that the image is halved.
        width: number of channels at the finest resolution of the networks.
        network: one of `NETWORKS`.
        normalization: "none", "batch" or "weight".
        latent_channels: number of channels of each layer of latents.
        latent_form: form of the coarsest layer of latents: "map" or "vector".
        levels: number of resolutions with latents, from the coarsest on; 0: all.
        blocks: number of layers of latents at each resolution.
        context_channels: number of channels of the context of the posteriors' flows; None: those of the level, as in the
            program of Kingma et al. 2016; 0: no flows.
        inference: whether there are posteriors.
        width_scale: factor of the channels of all states, each of which is rounded.
    """

    image_shape: tuple[int, int, int]
    halvings: int
    width: int
    network: str = "plain"
    normalization: str = "none"
    latent_channels: int = 32
    latent_form: str = "map"
    levels: int = 0
    blocks: int = 1
    context_channels: int | None = 0
    inference: bool = True
    width_scale: float = 1.0

    @property
    def num_resolutions(self) -> int:
        """The number of resolutions at which the networks have states: all, with "plain" all but the images' own."""
        return self.halvings if self.network == "plain" else self.halvings + 1

    @property
    def most_levels(self) -> int:
        """The largest number of resolutions with latents: residual networks alone may have some at the images' own."""
        return self.halvings + 1 if self.network == "residual" else self.halvings

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(level, index at that level) of all layers of latents, from the top."""
        return [(level, index) for level in range(self.levels or self.most_levels) for index in range(self.blocks)]

    def side(self, level: int) -> int:
        """The side of the maps at a level, in pixels."""
        return self.image_shape[0] >> (self.halvings - level)

    def channels(self, level: int) -> int:
        """The number of channels of the state at a level."""
        return max(round(self.width_scale * self.width * 2 ** (self.num_resolutions - 1 - level)), 1)

    def state_shape(self, level: int) -> tuple[int, int, int]:
        """(side, side, channels) of the state at a level."""
        return (self.side(level), self.side(level), self.channels(level))

    def state_channels(self, level: int) -> int:
        """The number of channels of the decoder's first state at a level.

        A block of a residual decoder doubles the side, and the next one halves the number of channels: 256 - 256 - 128 - 64 - 32
        (Table 6).
        """
        return self.channels(max(level - 1, 0) if self.network == "residual" else level)

    def block_channels(self, level: int, index: int) -> tuple[int, int]:
        """The number of channels before and after one of the blocks of a residual decoder."""
        return self.channels(level) if index else self.state_channels(level), self.channels(level)

    def context_of(self, level: int) -> int:
        """The number of channels of the context of the posteriors' flows at a level; 0: no flows."""
        return self.channels(level) if self.context_channels is None else self.context_channels

    def head_scale(self, level: int) -> float:
        """The factor of the initial statistics of latents at a level.

        The KL of a latent grows with the square of its statistics, and a map has side^2 latents. With this factor each layer
        of a residual ladder starts with about the same KL; otherwise the finest maps start with 64 times that of the coarsest.
        """
        return self.side(0) / self.side(level) if self.network == "residual" else 1.0

    def latent_shape(self, layer: tuple[int, int]) -> tuple[int, ...]:
        """The shape of the latents of one of `layers`."""
        if layer == (0, 0) and self.latent_form == "vector":
            return (self.latent_channels,)
        return (self.side(layer[0]), self.side(layer[0]), self.latent_channels)

    @property
    def options(self) -> dict[str, Any]:
        """Options of every convolution; before a batch normalisation, which would subtract it, there is no bias."""
        return {"weight_normalization": self.normalization == "weight", "use_bias": self.normalization != "batch"}

    @property
    def block_options(self) -> dict[str, Any]:
        """Options of every residual block."""
        return {
            "activation": "elu",
            "residual_scale": RESIDUAL_SCALE,
            "weight_normalization": self.normalization == "weight",
            "batch_normalization": self.normalization == "batch",
        }
