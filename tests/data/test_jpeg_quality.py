"""The quality of JPEG files as Pillow (libjpeg) writes them, and of tables of other writers."""

import io

import numpy as np
import pytest
from PIL import Image

from tfcq.data.decoding import format_of
from tfcq.data.jpeg_quality import quality_of


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 51, 75, 90, 95, 100])
@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3)])
def test_every_quality_of_pillow_is_found(quality, shape):
    content = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(content, "JPEG", quality=quality)
    assert format_of(content, "x")[0] == f"JPEG {quality}"


def test_of_other_tables_the_nearest_quality_is_found():
    table = Image.open(io.BytesIO(_jpeg(80))).quantization[0]
    assert quality_of([value + (place % 16 == 0) for place, value in enumerate(table)]) == 80
    assert quality_of([1] * 64) == 100 and quality_of([255] * 64) <= 6


def _jpeg(quality):
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(content, "JPEG", quality=quality)
    return content.getvalue()
