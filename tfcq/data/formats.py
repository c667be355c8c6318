"""What the images of a set are before they are prepared: formats and sizes; and what preparing does to them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

from tfcq.data.header_index import headers
from tfcq.data.sources import RawArray, RawImages, RawReader
from tfcq.data.transforms import KINDS, Transform
from tfcq.data.unfit import UnfitImage, UnfitImages

ARRAY = "array"
"""The format of images that are no files."""

AS_THEY_ARE = "as they are"

_MOST_SIZES = 5

_LOSSY = ("JPEG", "WEBP", "GIF")
"""Formats of files whose pixels may not be those that were written. All others give the same pixels back."""


@dataclasses.dataclass(frozen=True)
class Formats:
    """Formats and shapes of some images.

    Attributes:
        counts: {(format, (h, w, c)): how many}; formats as in `decoding.FORMATS`, or `ARRAY`.
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
        return self._counted(lambda image_format, shape: image_format)

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
        sizes = self.sizes
        shown = dict(list(sizes.items())[:_MOST_SIZES])
        rest = sum(sizes.values()) - sum(shown.values())
        return {
            "formats": self.formats,
            "sizes": shown | ({"other sizes": rest} if rest else {}),
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
    steps = [set(one.prepared(transform)) for one in (generated, reference)]
    if steps[0] != steps[1] or (steps[0] != {AS_THEY_ARE} and set(generated.sizes) != set(reference.sizes)):
        sizes = [_listed(one.sizes) for one in (generated, reference)]
        prepared = [_listed(one.prepared(transform)) for one in (generated, reference)]
        found.append(
            f"the images are compared at {transform.image_size}x{transform.image_size}; the generated ones of {sizes[0]} were "
            f"taken {prepared[0]}, the reference images of {sizes[1]} {prepared[1]}: how images are prepared changes the numbers"
        )
    return found


def _listed(counts):
    """A dict of counts in words: its key alone, if there is one, else the most frequent ones with their counts."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:3]]
    return ", ".join(shown) + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")
