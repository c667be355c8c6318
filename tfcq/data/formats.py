"""What the images of a set are before they are prepared: formats and sizes; and what preparing does to them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np

from tfcq.data.header_index import headers
from tfcq.data.sources import RawArray, RawImages, RawReader
from tfcq.data.transforms import KINDS, Transform
from tfcq.data.unfit import UnfitImage, UnfitImages

ARRAY = "array"
"""The format of images that are no files."""

AS_THEY_ARE = "as they are"

_MOST = 5  # sizes or qualities that are recorded one by one

_VISIBLE_QUALITY = 3
"""Qualities that differ by less are an encoder's rounding, or another way to count."""

_LOSSY = ("JPEG", "WEBP", "GIF")
"""Formats of files whose pixels may not be those that were written. All others give the same pixels back."""


@dataclasses.dataclass(frozen=True)
class Formats:
    """Formats and shapes of some images.

    Attributes:
        counts: {(format, (h, w, c)): how many}; formats as `decoding.format_of` gives them, or `ARRAY`.
    """

    counts: collections.Counter[tuple[str, tuple[int, int, int]]]

    @classmethod
    def of(cls, raws: Iterable[RawImages], name: str, folder: str | None = None) -> Formats:
        """Those of the images of `raws`, which progress calls `name`; UnfitImages if some cannot be read.

        `folder`: that of the caches, where what was found is kept; None: nothing is.
        """
        counts: collections.Counter[tuple[str, tuple[int, int, int]]] = collections.Counter()
        unfit: list[UnfitImage] = []
        for raw in raws:
            if isinstance(raw, RawArray):
                height, width, channels = raw.images.shape[1:]
                counts[ARRAY, (height, width, channels)] += len(raw)
            elif isinstance(raw, RawReader):
                found, some = headers(raw, name, folder)
                counts.update(found)
                unfit += some
        if unfit:
            raise UnfitImages(unfit)
        return cls(counts)

    @property
    def formats(self) -> dict[str, int]:
        """{format: how many}, the most frequent first."""
        return self._counted(lambda image_format, shape: image_format.partition(" ")[0])

    @property
    def jpeg_qualities(self) -> dict[str, int]:
        """{quality that a JPEG was probably written with, "1" to "100": how many}, the most frequent first."""
        found: collections.Counter[str] = collections.Counter()
        for (image_format, _), count in self.counts.items():
            name, _, quality = image_format.partition(" ")
            if name == "JPEG" and quality:
                found[quality] += count
        return dict(found.most_common())

    @property
    def sizes(self) -> dict[str, int]:
        """{"HxW": how many}, the most frequent first."""
        return self._counted(lambda image_format, shape: f"{shape[0]}x{shape[1]}")

    @property
    def colours(self) -> dict[str, int]:
        """{"grey" | "rgb": how many}, the most frequent first."""
        return self._counted(lambda image_format, shape: KINDS[shape[2]])

    @property
    def losses(self) -> set[str]:
        """The lossy formats among them, and "" if there are others."""
        return {image_format if image_format in _LOSSY else "" for image_format in self.formats}

    def prepared(self, transform: Transform) -> dict[str, int]:
        """{what `transform` does to images: how many}, the most frequent first."""
        return self._counted(lambda image_format, shape: transform.steps(shape) or AS_THEY_ARE)

    def facts(self, transform: Transform) -> dict[str, dict[str, int]]:
        """All of this as plain values; of many sizes only the most frequent, and how many images have others."""
        qualities = self.jpeg_qualities
        return {
            "formats": self.formats,
            **({"jpeg_qualities": _most(qualities, "other qualities")} if qualities else {}),
            "sizes": _most(self.sizes, "other sizes"),
            "colours": self.colours,
            "prepared": self.prepared(transform),
        }

    def _counted(self, of):
        found: collections.Counter[str] = collections.Counter()
        for (image_format, shape), count in self.counts.items():
            found[of(image_format, shape)] += count
        return dict(found.most_common())


def differences(generated: Formats, reference: Formats, transform: Transform) -> list[str]:
    """How the kinds of two sets that are compared differ, where that alone would change their distance: sentences.

    Args:
        generated, reference: both sets.
        transform: what all images become.
    """
    found = []
    if generated.losses != reference.losses:
        formats = [_listed(one.formats) for one in (generated, reference)]
        found.append(
            f"the generated images are stored as {formats[0]}, the reference images as {formats[1]}: what lossy compression does "
            "to images changes the numbers"
        )
    else:
        found += _of_quality(generated.jpeg_qualities, reference.jpeg_qualities)
    steps = [set(one.prepared(transform)) for one in (generated, reference)]
    if steps[0] != steps[1] or (steps[0] != {AS_THEY_ARE} and set(generated.sizes) != set(reference.sizes)):
        sizes = [_listed(one.sizes) for one in (generated, reference)]
        prepared = [_listed(one.prepared(transform)) for one in (generated, reference)]
        found.append(
            f"the images are compared at {transform.image_size}x{transform.image_size}; the generated ones of {sizes[0]} were "
            f"taken {prepared[0]}, the reference images of {sizes[1]} {prepared[1]}: how images are prepared changes the numbers"
        )
    return found


def _of_quality(generated, reference):
    """A sentence where the median qualities, by which JPEG files of both sides were probably written, differ visibly."""
    if not generated or not reference:
        return []
    sides = (generated, reference)
    medians = [round(np.median(np.repeat(list(map(int, one)), list(one.values())))) for one in sides]
    if abs(medians[0] - medians[1]) < _VISIBLE_QUALITY:
        return []
    return [
        f"the generated images are JPEG files of quality {medians[0]} or so, the reference images of {medians[1]} or so, by "
        "their quantisation tables: what lossy compression does to images changes the numbers"
    ]


def _most(counts, others):
    """The most frequent ones of a dict of counts, and how many images are none of them."""
    shown = dict(list(counts.items())[:_MOST])
    rest = sum(counts.values()) - sum(shown.values())
    return shown | ({others: rest} if rest else {})


def _listed(counts):
    """A dict of counts in words: its key alone, if there is one, else the most frequent ones with their counts."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:3]]
    return ", ".join(shown) + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")
