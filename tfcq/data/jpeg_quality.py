"""The quality that a JPEG file was probably written with, by its quantisation table: no file says it itself.

libjpeg, and most writers with it, make the table of a quality q from 1 to 100 of the example in the standard (ITU-T T.81, Annex
K, Table K.1): each entry times 50 / q below 50, times 2 - q / 50 from there on, rounded and cut to 1 to 255. The estimate is the
q whose table of luminance is nearest to the file's, by the sum of absolute differences. Writers with tables of their own
(Photoshop, cameras) get the q that is as coarse as theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


def quality_of(table: Sequence[int]) -> int:
    """The quality, 1 to 100, of a table of luminance: 64 entries, row by row, as `PIL.Image.Image.quantization[0]` has them.

    >>> quality_of(_LUMINANCE)
    50
    """
    differences = np.abs(_tables() - np.asarray(table, np.int64)).sum(axis=1)
    return 1 + int(differences.argmin())


@functools.cache
def _tables():
    """The table of each quality, int64 [100, 64], by libjpeg's integers."""
    qualities = np.arange(1, 101)[:, None]
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    return np.clip((np.array(_LUMINANCE) * scale + 50) // 100, 1, 255)
