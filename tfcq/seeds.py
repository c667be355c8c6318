"""Seeds of rows (one per image), which identify a random draw. NumPy alone, as clients need them too."""

import numpy as np

from tfcq.checks import check_integer
from tfcq.errors import UserError


def row_seeds(num_rows: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Seeds int32 [num_rows, 2] for rows `start`, `start` + 1, ... of the stream `seed`: (seed, row number).

    >>> row_seeds(2, seed=7).tolist()
    [[7, 0], [7, 1]]

    Raises:
        UserError: arguments that are not ints, or do not fit int32.
    """
    check_integer("num_rows", num_rows, 0)
    check_integer("seed", seed)
    check_integer("start", start)
    rows = np.arange(start, start + num_rows, dtype=np.int64)
    if seed < -(2**31) or seed >= 2**31 or start < 0 or start + num_rows > 2**31:
        raise UserError(
            f"seed and row numbers must fit int32, received seed={seed}, rows {start} to {start + num_rows}"
        )
    return np.stack([np.full_like(rows, seed), rows], axis=1).astype(np.int32)
