"""How many bits an image takes without loss: the complexity of Serra et al. (2020), "Input complexity and out-of-distribution
detection with likelihood-based generative models"."""

from __future__ import annotations

import io

import numpy as np
import PIL
from PIL import Image, features

_FILES: dict[str, tuple[str, dict]] = {"png": ("PNG", {"optimize": True})}
if features.check("jpg_2000"):
    _FILES["jpeg2000"] = ("JPEG2000", {"irreversible": False})

COMPRESSIONS = f"{', '.join(_FILES)} by Pillow {PIL.__version__}"
"""The lossless formats that are tried, PNG and, where Pillow has it, JPEG 2000, in words; FLIF, the paper's third, is not."""


def complexity(images: np.ndarray) -> np.ndarray:
    """The bits of the smallest lossless file of each image, over its number of values: bits/dim, float64 [N].

    The file's header counts, 57 bytes of a PNG; all images of one size have the same.

    Args:
        images: uint8 [N, H, W, 1 or 3].

    >>> complexity(np.zeros((1, 32, 32, 3), np.uint8)).round(1).tolist()
    [0.2]
    """
    images = np.asarray(images)
    values = np.prod(images.shape[1:])
    return np.array([8.0 * min(map(len, _files_of(image))) / values for image in images], np.float64)


def _files_of(image):
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    for format_, options in _FILES.values():
        file = io.BytesIO()
        picture.save(file, format_, **options)
        yield file.getvalue()
