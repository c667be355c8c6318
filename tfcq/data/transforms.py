"""From a source image of any size to the shape that a model sees: cut, resize, colour. All exact integer arithmetic.

The steps, in this order:

1. A centred square is cut: side `center_crop`, or the largest that fits. Where the margin is odd, the extra row
   (column) stays below (right of) the cut.
2. `area`: every target pixel is the mean of the source over its own footprint, source pixels that lie partly inside
   weighted by that part. Shrinking is thus antialiased; enlarging by a whole factor repeats pixels. `pad`: the cut is
   centred, unscaled, in zeros (an odd margin's extra row or column lies below or to the right).
3. Grey from RGB is ITU-R BT.601-7's luma, 0.299 R + 0.587 G + 0.114 B, of the resized pixels; RGB from grey repeats the
   channel.

Means and lumas are computed as exact integers, then rounded half up: the same bytes on every machine, whatever its
BLAS. An image that already has the target size is never changed by step 2.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from tfcq.config import DataConfig
from tfcq.data.unfit import UnfitImage

KINDS = {1: "grey", 3: "rgb"}


@dataclasses.dataclass(frozen=True)
class Transform:
    """A function from uint8 [N, h, w, c] to uint8 [N, image_size, image_size, channels].

    Args:
        image_size: side of the result, pixels.
        center_crop: side of the centred square that is cut first, source pixels; 0: the largest.
        resize: "area" or "pad".
        channels: of the result, 1 (grey) or 3 (rgb).
        same_channels_as: if not empty, images with another number of channels than `channels` are refused instead of
            converted; the name of an image with that number, for the message.
    """

    image_size: int
    center_crop: int
    resize: str
    channels: int
    same_channels_as: str = ""

    @classmethod
    def of(cls, config: DataConfig, source_channels: int, example: str) -> Transform:
        """The transform of a DataConfig for a source whose image named `example` has `source_channels` channels."""
        convert = {"grey": 1, "rgb": 3}
        return cls(config.image_size, config.center_crop, config.resize, convert.get(config.color, source_channels),
                   "" if config.color in convert else example)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the result."""
        return self.image_size, self.image_size, self.channels

    def check(self, shape: tuple[int, ...], name: str) -> None:
        """Raises UnfitImage, naming the image, if one of `shape` (h, w, c) cannot be cut, padded or mixed with the others."""
        height, width, channels = shape
        size = f"{height}x{width}"
        if channels not in KINDS:
            raise UnfitImage(f"{name}: expected 1 (grey) or 3 (rgb) channels, received {channels}", name, str(channels))
        if self.same_channels_as and channels != self.channels:
            kind = KINDS[channels]
            raise UnfitImage(f"{name} is {kind} but {self.same_channels_as} is {KINDS[self.channels]}: expected one kind with "
                             "color=source; color=grey or color=rgb converts them all", name, kind)
        if self.center_crop > min(height, width):
            raise UnfitImage(f"{name}: expected at least center_crop={self.center_crop} pixels a side, received {size}; "
                             "remove it or lower center_crop", name, size)
        side = self._cut_side(height, width)
        if self.resize == "pad" and side > self.image_size:
            raise UnfitImage(f"{name}: its {side}x{side} square does not fit into image_size={self.image_size} with "
                             "resize=pad; expected a smaller center_crop, a larger image_size or resize=area", name, size)

    def changes(self, shape: tuple[int, ...]) -> bool:
        """Whether images of `shape` (h, w, c) are altered at all."""
        return tuple(shape) != self.shape or self._cut_side(*shape[:2]) != self.image_size

    def steps(self, shape: tuple[int, ...]) -> str:
        """What is done to an image of `shape` (h, w, c), in words: "cut, shrunk, converted to grey"; "" if nothing is."""
        height, width, channels = shape
        side, steps = self._cut_side(height, width), []
        if (height, width) != (side, side):
            steps.append("cut")
        if side != self.image_size:
            scaled = "shrunk" if side > self.image_size else "enlarged"
            steps.append("padded" if self.resize == "pad" else scaled)
        if channels != self.channels:
            steps.append(f"converted to {KINDS[self.channels]}")
        return ", ".join(steps)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, h, w, c] -> uint8 [N, image_size, image_size, channels]; `check` has passed for (h, w, c)."""
        side = self._cut_side(*images.shape[1:3])
        images = cut_center(images, side)
        if side != self.image_size:
            images = (pad_center if self.resize == "pad" else resize_area)(images, self.image_size)
        return to_channels(images, self.channels)

    def _cut_side(self, height, width):
        return self.center_crop or min(height, width)


def cut_center(images: np.ndarray, side: int) -> np.ndarray:
    """The centred side x side square of [N, h, w, c]."""
    top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    return images[:, top:top + side, left:left + side]


def pad_center(images: np.ndarray, side: int) -> np.ndarray:
    """[N, h, w, c], with h and w at most `side`, centred in zeros: [N, side, side, c]."""
    padded = np.zeros((len(images), side, side, images.shape[3]), images.dtype)
    top, left = (side - images.shape[1]) // 2, (side - images.shape[2]) // 2
    padded[:, top:top + images.shape[1], left:left + images.shape[2]] = images
    return padded


def resize_area(images: np.ndarray, side: int) -> np.ndarray:
    """Area means: uint8 [N, h, w, c] -> uint8 [N, side, side, c], rounded half up (the module's step 2)."""
    height, width = images.shape[1:3]
    sums = _overlap_sums(_overlap_sums(images, side).swapaxes(1, 2), side).swapaxes(1, 2)
    # Each sum is an integer below 255 * h * w <= 2^37, hence exact in float64, and so are the integers of the division.
    area = height * width
    return ((2 * sums.astype(np.int64) + area) // (2 * area)).astype(np.uint8)


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [N, h, w, 1 or 3] as grey (`channels` 1: BT.601 luma, rounded half up) or rgb (3: the channel repeated)."""
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    red, green, blue = np.moveaxis(images.astype(np.int32), 3, 0)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)[..., None]


def translate(images: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """[N, h, w, c], each moved down and right by its row of `moves`, int [N, 2] in pixels; edge pixels fill the gap."""
    count, height, width = images.shape[:3]
    rows = np.clip(np.arange(height) - moves[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - moves[:, 1:], 0, width - 1)
    return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _overlap_sums(values, side):
    """[N, h, w, c] -> float64 [N, side, w, c]: sums of rows, weighted by side times their overlap with the target."""
    count, height, width, channels = values.shape
    flat = np.ascontiguousarray(values).reshape(count, height, width * channels)
    sums = np.empty((count, side, width * channels), np.float64)
    for row, (first, weights) in enumerate(_overlaps(height, side)):
        sums[:, row] = weights @ flat[:, first:first + len(weights)].astype(np.float64)
    return sums.reshape(count, side, width, channels)


@functools.lru_cache(maxsize=256)
def _overlaps(length, side):
    """For each of `side` target pixels: its first source pixel, and the overlaps with it and the next ones, times side.

    In units of 1 / side source pixels, target j covers [j length, (j + 1) length), source i [i side, (i + 1) side).
    """
    overlaps = []
    for target in range(side):
        start, stop = target * length, (target + 1) * length
        sources = np.arange(start // side, -(-stop // side))
        weights = np.minimum((sources + 1) * side, stop) - np.maximum(sources * side, start)
        overlaps.append((int(sources[0]), weights.astype(np.float64)))
    return overlaps
