"""Recognises 8-bit images that were scaled to 0 to 1, or to -1 to 1, before the cast to uint8.

`(x / 255).astype("uint8")` is 0 everywhere but 1 where x is 255; cast from -1 to 1, floats become 0, 1 and 255. A model
trains on either without an error, and its bits/dim look splendid. Binary images of 0 and 255 are fine.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tfcq.errors import UserError

SUSPICIOUS = (0, 1, 255)


def refuse_scaled(images: Iterable[np.ndarray], name: str) -> None:
    """Raises UserError if all pixels of `images`, uint8 arrays, are 0, 1 or 255 and some pixel is 1 or all are 0."""
    found = set()
    for some in images:
        if not np.isin(some, SUSPICIOUS).all():
            return
        found.update(np.unique(some).tolist())
    if found in (set(), {255}, {0, 255}):
        return
    values = " or ".join(str(value) for value in sorted(found))
    raise UserError(
        f"{name}: every pixel is {values}, as a cast to uint8 makes of images scaled to 0 to 1 or to -1 to 1; expected values "
        "from 0 to 255: scale before the cast, np.round(255 * x).astype('uint8'); black and white are 0 and 255"
    )
