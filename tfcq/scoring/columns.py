"""The columns of a table of scores, in order: the one place that says what each is. Plain Python."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        meaning: what it is, with its unit and source.
        unusual: how much less usual an image is the more its number is: 1; the less: -1; 0: the number does not say.
    """

    meaning: str
    unusual: int = 0


COLUMNS = {
    "log_prob": Column("log P(image), nats: an importance-weighted bound, as of the endpoint `likelihood`"),
    "log_prob_standard_error": Column(
        "the standard error of log_prob over --num_repeats independent draws of what is random, nats"
    ),
    "bits_per_dim": Column("-log_prob / (D ln 2)", unusual=1),
    "latent_log_prob": Column("log p(latents), nats, as of the endpoint `latent_likelihood`", unusual=-1),
    "reconstruction_error": Column(
        "the sum of the squared differences between the image and its reconstruction, pixels in [0, 1]", unusual=1
    ),
    "energy": Column("the KL of the posterior, nats, as of the endpoint `energy`", unusual=1),
    "complexity": Column("bits/dim of the image as the smallest of lossless files (Serra et al. 2020)"),
    "complexity_corrected": Column("bits_per_dim - complexity, the score of Serra et al. (2020)", unusual=1),
    "typicality": Column(
        "how far bits_per_dim is from the mean of the held-out images, either way, in their standard deviations (Nalisnick et "
        "al. 2019, for one image)",
        unusual=1,
    ),
    "percentile": Column("the percentage of held-out images that are less unusual by --flag_by, ties by half"),
}
"""{name of a column: what it is}. A table has those that the model's numbers allow."""

FLAG_BY = [name for name, column in COLUMNS.items() if column.unusual]
"""The columns by which images can be ranked and flagged."""


def default_ranking(columns: list[str]) -> str:
    """The column of `FLAG_BY` that a table with these columns is ranked by, where nobody says: the first that it has of them."""
    return next(name for name in ("complexity_corrected", "reconstruction_error", "energy", "bits_per_dim") if name in columns)
