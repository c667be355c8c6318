"""Where the images of each split are in their source: by position when a run begins, by content afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tfcq.config import DataConfig
from tfcq.data.manifest import Manifest, Match, refuse_changes
from tfcq.data.sources import RawImages, Source
from tfcq.data.splits import SPLITS, assign
from tfcq.errors import UserError

Gather = Callable[[np.ndarray], np.ndarray]
"""From indices, int64 [n], to images, uint8 [n, H, W, C]."""


@dataclasses.dataclass(frozen=True)
class SplitImages:
    """Where a split's images are.

    Args:
        origins: names of splits of the source.
        of_origin: for each image the split in `origins` that holds it, an index, int64 [N].
        indices: for each image its index there, int64 [N].
    """

    origins: list[str]
    of_origin: np.ndarray
    indices: np.ndarray

    def gather(self, of_origins: Mapping[str, Gather]) -> tuple[Gather, np.ndarray]:
        """(function from int64 [n] to images, indices of the split, int64 [N]), as `ImageDataset` takes them.

        Args:
            of_origins: {the source's split: function from indices there, int64 [n], to images}.
        """
        if len(self.origins) == 1:
            return of_origins[self.origins[0]], self.indices

        def gather(positions):
            of_origin, indices, images = self.of_origin[positions], self.indices[positions], None
            for number, origin in enumerate(self.origins):
                here = of_origin == number
                if here.any():
                    found = of_origins[origin](indices[here])
                    images = np.empty((len(positions), *found.shape[1:]), np.uint8) if images is None else images
                    images[here] = found
            return images

        return gather, np.arange(len(self.indices))

    def of(self, origin: str) -> np.ndarray:
        """For each image whether it is in this split of the source, bool [N]."""
        return self.of_origin == (self.origins.index(origin) if origin in self.origins else -1)


def by_position(source: Source, config: DataConfig) -> tuple[dict[str, SplitImages], str]:
    """({split: SplitImages}, how they were chosen, in words) of a new run, by `splits.assign`."""
    counts = {split: len(raw) for split, raw in source.splits.items()}
    chosen, how = assign(counts, config.num_validation, config.dataset, config.held_out, config.num_test)
    images = {
        split: SplitImages([origin], np.zeros(len(indices), np.int64), indices) for split, (origin, indices) in chosen.items()
    }
    return images, how


def by_content(
    source: Source, config: DataConfig, manifest: Manifest, accept_changed_data: bool
) -> tuple[dict[str, SplitImages], str, Match]:
    """({split: SplitImages}, how they were chosen, in words, the `Match`) of a run that began with `manifest`.

    Raises:
        UserError: images are gone or changed and that is not accepted, or a split has no images left.
    """
    match = manifest.match(source)
    if not accept_changed_data:
        refuse_changes(match, config.dataset)
    images = {}
    for split, found in match.splits.items():
        if not found and manifest.splits[split]:  # a run of num_validation=none has no validation images
            raise UserError(f"dataset {config.dataset}: none of the run's {len(manifest.splits[split])} {split} images is there")
        origins = sorted({origin for origin, _, _ in found or match.splits["train"]})  # of an empty split: one that is kept
        of_origin = np.array([origins.index(origin) for origin, _, _ in found], np.int64)
        images[split] = SplitImages(origins, of_origin, np.array([index for _, index, _ in found], np.int64))
    differences = match.differences()
    if differences:
        used = "those of the run are used" if match.whole else "continuing with those of the run that are there"
        print(f"dataset {config.dataset}: not what it was when the run began: {differences}; {used}", flush=True)
    sizes = ", ".join(f"{split} {len(match.splits[split])}" for split in SPLITS)
    own = "the run's own" if match.whole else f"the run's own; {match.counts()}"
    return images, f"{sizes} ({own})", match


def without_others(
    raws: Mapping[str, RawImages], images: dict[str, SplitImages]
) -> tuple[dict[str, RawImages], dict[str, SplitImages]]:
    """Drops images that no split needs: (RawImages of each split of the source, {split: SplitImages} into these).

    Args:
        raws: {the source's split: RawImages}.
        images: {split: SplitImages}.
    """
    kept = {}
    for origin, raw in raws.items():
        wanted = np.unique(np.concatenate([one.indices[one.of(origin)] for one in images.values()]))
        if len(wanted) == len(raw):
            kept[origin] = raw
        elif len(wanted):
            kept[origin] = raw.select(wanted)
            images = {split: _renumbered(one, origin, wanted) for split, one in images.items()}
    return kept, images


def _renumbered(images, origin, wanted):
    here = images.of(origin)
    return dataclasses.replace(images, indices=np.where(here, np.searchsorted(wanted, images.indices), images.indices))
