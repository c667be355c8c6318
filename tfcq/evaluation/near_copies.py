"""The list of near copies of training images, as a table (CSV) and as pictures in the report: `tfcq.metrics.near_copies`."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcq.evaluation import page
from tfcq.evaluation.activations import Activations
from tfcq.grids import grid
from tfcq.machine import files, paths
from tfcq.metrics.near_copies import Nearest, expected_share, ranked

if TYPE_CHECKING:
    from tfcq.data import ImageDataset

NAME = "near_copies.csv"

COLUMNS = (
    *("rank", "generated", "nearest_by_features", "feature_distance", "feature_percentile"),
    *("nearest_by_pixels", "pixel_distance", "pixel_percentile", "mirrored", "flagged"),
)

_SHOWN = 24
_IN_THE_PAGE = 12


@dataclasses.dataclass(frozen=True)
class NearCopies:
    """Generated images in the order of how near they are to a training image, the nearest first.

    Attributes:
        rows: for each of them the values of `COLUMNS`, as text.
        picture: the first of them, each beside its nearest training images: uint8 [H, W, 1 or 3].
        shown: how many those are.
        flagged: how many of all are flagged.
        searched, total: how many training images were searched, and how many there are.
        quantile: the fraction of held-out images by which they are flagged.
        expected: the fraction of images that one space flags where nothing is copied.
    """

    rows: list[list[str]]
    picture: np.ndarray
    shown: int
    flagged: int
    searched: int
    total: int
    quantile: float
    expected: float


def listed(
    found: dict[str, Nearest],
    generated: Activations,
    dataset: ImageDataset,
    searched: int,
    name_of: Callable[[int], str],
    quantile: float,
    num_held_out: int,
) -> NearCopies:
    """The list of a set of generated images.

    Args:
        found: {"features" | "pixels": the nearest training images}.
        generated: the images.
        dataset: in whose train split the nearest ones were looked for.
        searched: among how many.
        name_of: function that names a generated image by its number.
        quantile: as the metric's.
        num_held_out: how many held-out images the percentiles are of.
    """
    by_features, by_pixels = found["features"], found["pixels"]
    flagged = {name: space.flagged(quantile) for name, space in found.items()}
    order = ranked([by_features, by_pixels])
    names = _names(dataset)
    rows = [
        [
            str(rank + 1),
            name_of(number),
            names(by_features.indices[number]),
            f"{by_features.distances[number]:.6g}",
            f"{by_features.percentiles[number]:.4g}",
            names(by_pixels.indices[number]),
            f"{by_pixels.distances[number]:.6g}",
            f"{by_pixels.percentiles[number]:.4g}",
            "yes" if by_pixels.mirrored[number] else "no",
            " and ".join(name for name, flags in flagged.items() if flags[number]) or "no",
        ]
        for rank, number in enumerate(order)
    ]
    shown = order[:_SHOWN]
    triples = [generated.images[shown], *(dataset.images("train", space.indices[shown]) for space in (by_features, by_pixels))]
    images = np.stack(triples, axis=1).reshape(-1, *generated.images.shape[1:])
    columns = 3 * min(4, len(shown))
    return NearCopies(
        rows,
        grid(images, columns, ["sample", "features", "pixels"]),
        len(shown),
        int(np.sum(flagged["features"] | flagged["pixels"])),
        searched,
        dataset.num_images("train"),
        quantile,
        expected_share(num_held_out, quantile),
    )


def _names(dataset):
    """A function that names a training image by its number: its split and key in the data set."""
    if dataset.manifest is None:  # a run of an earlier version
        return lambda number: f"train/image {number}"
    entries = dataset.manifest.splits["train"]
    return lambda number: entries[number].name


def note(searched: int, total: int) -> list[str]:
    """A sentence for the reader where not all training images were searched; none where they were."""
    if searched >= total:
        return []
    return [
        f"near copies were looked for among the first {searched:,} of {total:,} training images alone; "
        f"--num_train_images={total} searches all"
    ]


def write(folder: paths.AnyPath, drawn: dict[str, Any]) -> None:
    """Writes the list to `folder`/near_copies.csv; removes one of an earlier evaluation if there is none."""
    path = folder / NAME
    found = drawn.get("near_copies")
    if found is None:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(found.rows)
    with files.replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def figures(drawn: dict[str, Any]) -> list[page.Figure]:
    """The nearest copies, each beside the training images that it is nearest to; none if they were not looked for."""
    found = drawn.get("near_copies")
    if found is None:
        return []
    caption = (
        f"The {found.shown} generated images that are nearest to training images, each followed by the nearest one by features "
        "and by pixels. The list of all is below."
    )
    return [page.Figure("near_copies", found.picture, caption)]


def blocks(drawn: dict[str, Any], folder: str) -> list[page.Block]:
    """What the report says of the list, which is in `folder`; nothing if there is none."""
    found = drawn.get("near_copies")
    if found is None:
        return []
    among = f"all {found.total:,}" if found.searched >= found.total else f"the first {found.searched:,} of {found.total:,}"
    text = (
        f"{found.flagged:,} of {len(found.rows):,} generated images are flagged: fewer than {100 * found.quantile:g} % of the "
        f"held-out images are nearer to one of {among} training images, by features or by pixels. Where nothing is copied, "
        f"either flags about {100 * found.expected:.2g} %. A percentile is the share of held-out images that are nearer. "
        "Training images are compared by pixels as they are and mirrored. All generated images, the nearest first: "
        f"{folder}/{NAME}."
    )
    table = page.Table([name.replace("_", " ") for name in COLUMNS], found.rows[:_IN_THE_PAGE])
    return [page.Heading("Near copies of training images"), page.Text(text), table]
