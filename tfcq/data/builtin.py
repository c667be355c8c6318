"""Images that come inside Python packages: no download, the same everywhere.

`digits`: scikit-learn's 1797 handwritten digits (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits",
UCI 1998), 8x8 grey; the counts 0..16 of a pixel become 0..255 by round(255 v / 16).

`photo_patches`: square rgb crops of the `PHOTOGRAPHS` below. With s the image_size:

- Each photograph is divided into tiles of 3s x 3s from its top left corner; the rest at the right and at the bottom is
  unused.
- A fixed permutation of all tiles gives a tenth (at least one) to test, the next tenth to validation, the rest to
  train. So no pixel is in two splits, but tiles of one photograph are in several: test measures new regions of known
  photographs.
- In each tile, squares of side s are cut every s/2 pixels: 25 of them; and squares of side 2s every s pixels, each
  averaged 2x2 with halves rounded up: 4 more. This gives 29 patches per tile, 4872 in all at s = 32.
- Patches of a split are in a fixed random order.

The larger s, the fewer tiles: 174 patches at 128; beyond, UserError.
"""

from __future__ import annotations

import os

import numpy as np

from tfcq.config import DataConfig
from tfcq.data.decoding import decode
from tfcq.data.sources import RawArray, Source, require_package
from tfcq.data.splits import fixed_permutation
from tfcq.data.transforms import resize_area
from tfcq.errors import UserError

TILE = 3
"""Side of a tile of photo_patches, in image sizes."""

PHOTOGRAPHS = (
    ("skimage/data", "astronaut.png"),
    ("skimage/data", "chelsea.png"),
    ("skimage/data", "coffee.png"),
    ("skimage/data", "motorcycle_left.png"),
    ("skimage/data", "rocket.jpg"),
    ("sklearn/datasets/images", "china.jpg"),
    ("sklearn/datasets/images", "flower.jpg"),
)
"""The colour photographs of everyday scenes inside the wheels of scikit-image and scikit-learn. Left out: photographs that
the packages would download, grey ones, microscopy, astronomy, and the motorcycle's right view, which shows the same scene
as the left one."""


def digits(config: DataConfig) -> Source:
    """scikit-learn's digits as a Source: 1797 images uint8 [8, 8, 1]."""
    del config
    datasets = require_package(_sklearn_datasets, "scikit-learn")
    digits = datasets.load_digits()
    images = ((255 * digits.images.astype(np.int32) + 8) // 16).astype(np.uint8)
    return Source({"train": RawArray(images[..., None], "digits", classes=lambda: digits.target)})


def photo_patches(config: DataConfig) -> Source:
    """Crops of photographs as a Source: uint8 [image_size, image_size, 3], with splits that share no pixel.

    Raises:
        UserError: a package or a photograph is missing, or image_size leaves fewer than three tiles.
    """
    size = config.image_size
    tiles = [tile for photograph in _photographs() for tile in cut_tiles(photograph, TILE * size)]
    if len(tiles) < 3:
        raise UserError(f"photo_patches: image_size={size} leaves {len(tiles)} tiles of {TILE * size}x{TILE * size} "
                        "pixels in its photographs, expected at least 3 for three splits; lower image_size")
    order, tenth = fixed_permutation(len(tiles)), max(1, len(tiles) // 10)
    chosen = {"test": order[:tenth], "validation": order[tenth:2 * tenth], "train": order[2 * tenth:]}
    splits = {}
    for split, numbers in chosen.items():
        patches = np.concatenate([tile_patches(tiles[number], size) for number in numbers])
        splits[split] = RawArray(patches[fixed_permutation(len(patches))], f"photo_patches {split}")
    return Source(splits)


def cut_tiles(photograph: np.ndarray, side: int) -> list[np.ndarray]:
    """The whole side x side tiles of uint8 [h, w, 3], row by row: a list of views."""
    height, width = photograph.shape[:2]
    return [photograph[top:top + side, left:left + side]
            for top in range(0, height - side + 1, side) for left in range(0, width - side + 1, side)]


def tile_patches(tile: np.ndarray, size: int) -> np.ndarray:
    """The patches of a tile, uint8 [N, size, size, 3]: first those at full resolution, then those at half."""
    full = np.stack([tile[top:top + size, left:left + size] for top, left in grid(len(tile), size)])
    double = 2 * size
    halved = np.stack([tile[top:top + double, left:left + double] for top, left in grid(len(tile), double)])
    return np.concatenate([full, resize_area(halved, size)])


def grid(length: int, side: int) -> list[tuple[int, int]]:
    """Corners (top, left) of the squares of `side` in a square of `length`, every side // 2 pixels."""
    offsets = range(0, length - side + 1, side // 2)
    return [(top, left) for top in offsets for left in offsets]


def _sklearn_datasets():
    import sklearn.datasets
    return sklearn.datasets


def _packages():
    import skimage
    import sklearn
    return {"skimage": os.path.dirname(skimage.__file__), "sklearn": os.path.dirname(sklearn.__file__)}


def _photographs():
    roots = require_package(_packages, "scikit-image scikit-learn")
    for folder, file in PHOTOGRAPHS:
        package, inner = folder.split("/", 1)
        path = os.path.join(roots[package], inner, file)
        if not os.path.exists(path):
            raise UserError(f"photo_patches: expected {file} inside the installed package {package}, found none; "
                            "install the version of that package that this project is tested with")
        yield decode(path, path)
