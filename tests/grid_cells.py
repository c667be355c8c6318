"""The images of a grid, for tests that look at what is drawn."""

import numpy as np

GUTTER = 2  # of `tfcq.grids`


def cells(picture, columns, side, rows=None):
    """The images of a grid, row by row: uint8 [N, side, side, C], of a picture [height, width] or [height, width, C].

    They are enlarged to at least 48 pixels, with gutters between them; labels, above and to the left, are left out.
    """
    picture = np.asarray(picture)
    picture = picture[..., None] if picture.ndim == 2 else picture
    zoom = -(-48 // side)
    step = side * zoom + GUTTER
    rows = rows or (len(picture) + GUTTER) // step
    picture = picture[len(picture) - rows * step + GUTTER :, picture.shape[1] - columns * step + GUTTER :]
    padded = np.pad(picture, [(0, GUTTER), (0, GUTTER), (0, 0)], mode="edge")
    cut = padded.reshape(rows, step, columns, step, -1).swapaxes(1, 2)[:, :, :-GUTTER, :-GUTTER]
    cut = cut.reshape(rows * columns, side * zoom, side * zoom, -1)
    small = cut[:, ::zoom, ::zoom]
    np.testing.assert_array_equal(small.repeat(zoom, 1).repeat(zoom, 2), cut)
    return small
