"""The complexity of images, by the files that Pillow writes and reads back."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from tfcq.bulk import complexity as module
from tfcq.bulk.complexity import COMPRESSIONS, complexity


def test_it_is_the_smallest_file_and_loses_nothing():
    random = np.random.RandomState(0)
    slope = np.add.outer(np.arange(32.0), np.arange(32.0))[..., None] * [4, 3, 2]
    smooth = np.clip(slope + random.normal(0, 3, (32, 32, 3)), 0, 255)
    images = np.stack([np.zeros((32, 32, 3)), smooth, random.randint(0, 256, (32, 32, 3))]).astype(np.uint8)
    sizes = []
    for image in images:
        files = list(module._files_of(image))
        for file in files:
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), image)
        sizes.append(min(map(len, files)))
    np.testing.assert_allclose(complexity(images), 8.0 * np.array(sizes) / 3072.0)
    assert sizes[0] < sizes[1] < sizes[2]
    assert 8.0 < complexity(images)[2] < 8.0 * (1 + 0.05)  # noise: its own length, and the header
    # A plain deflate of the rows is not far: a PNG is one, with filters and 57 bytes around it.
    assert abs(sizes[0] - 57 - len(zlib.compress(bytes(32 * 97), 9))) < 10


@pytest.mark.parametrize("shape", [(4, 4, 1), (1, 1, 3), (28, 28, 1)])
def test_grey_and_small_images(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(1, *shape)
    assert complexity(image).shape == (1,) and complexity(image).dtype == np.float64
    assert COMPRESSIONS.startswith("png")
