"""What the numbers of an image mean: how unusual it is among held-out images, whose scores are computed once and kept."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from tfcq.bulk import read_parts
from tfcq.bulk.image_stages import ScoringHeldOut
from tfcq.bulk.running import Work
from tfcq.errors import UserError
from tfcq.machine.terminal import say
from tfcq.playground.model import Playground
from tfcq.scoring.columns import COLUMNS, FLAG_BY, default_ranking
from tfcq.scoring.reference import Reference, numbers_of


@dataclasses.dataclass(frozen=True)
class Score:
    """The numbers of an image.

    Attributes:
        numbers: {column of a table of scores: its number}.
        percentiles: {column: the percentage of the held-out images that are less unusual by it}; empty: there are none.
        count: the number of held-out images.
        image_size: the number of values of the image, D.
    """

    numbers: Mapping[str, float]
    percentiles: Mapping[str, float]
    count: int
    image_size: int

    def text(self) -> str:
        """What they mean, in Markdown: a sentence, and a table of all of them."""
        ranked_by = default_ranking(list(self.numbers))
        lines = []
        if self.percentiles:
            than = f"{_share(self.percentiles[ranked_by])} of the {self.count:,} held-out images"
            lines += [f"### More unusual than {than}", "", f"by `{ranked_by}`: {COLUMNS[ranked_by].meaning}.", ""]
        if "bits_per_dim" in self.numbers:
            bits = self.numbers["bits_per_dim"]
            lines += [
                f"**{bits:.3f} bits/dim**: a file made with this model would take so many bits for each of the image's "
                f"{self.image_size:,} values, on average. The fewer, the likelier it finds the image; 8 if all images were "
                "equally likely.",
                "",
            ]
        lines += ["| score | this picture | more unusual than | what it is |", "|---|---|---|---|"]
        for name, column in COLUMNS.items():
            if name in self.numbers:
                rank = _share(self.percentiles[name]) if name in self.percentiles else ""
                lines.append(f"| {name} | {self.numbers[name]:.4g} | {rank} | {column.meaning.replace('|', ' ')} |")
        return "\n".join(lines)


def _share(percentile):
    return {0.0: "none", 100.0: "all"}.get(percentile, f"{percentile:.3g} %")


class HeldOut:
    """Held-out images, with which others are compared by every column that says how unusual an image is.

    Args:
        rows: their numbers, as of a part of a scoring.

    Attributes:
        count: how many there are.

    Raises:
        UserError: fewer than two, or numbers that are not finite.
    """

    def __init__(self, rows: list[Mapping[str, Any]]) -> None:
        first = next((numbers_of(row) for row in rows if "unfit" not in row), {})
        names = [name for name in FLAG_BY if name in first or (name == "typicality" and "bits_per_dim" in first)]
        self._references = {name: Reference(rows, name) for name in names}
        self.count = next((one.count for one in self._references.values()), 0)
        if not names:
            raise UserError("held_out: expected at least two images that can be used, received none")

    def score(self, numbers: Mapping[str, Any], image_size: int) -> Score:
        """The Score of an image, by the numbers that a scoring gives it."""
        row, percentiles = numbers_of(numbers), {}
        for name, reference in self._references.items():
            if name == "typicality":
                row[name] = reference.typicality(row["bits_per_dim"])
            percentiles[name] = reference.percentile_and_p_value(row)[0]
        return _score(row, percentiles, self.count, image_size)


def alone(numbers: Mapping[str, Any], image_size: int) -> Score:
    """The Score of an image that is compared with no others."""
    return _score(numbers_of(numbers), {}, 0, image_size)


def _score(row, percentiles, count, image_size):
    return Score({name: float(row[name]) for name in COLUMNS if name in row}, percentiles, count, image_size)


def held_out(
    playground: Playground, split: str, data: Mapping[str, Any], most: int, kept: pathlib.Path | None
) -> HeldOut:
    """The scores of held-out images: those that are kept, or computed now, which shows how far it is.

    Args:
        playground: with a model that scores.
        split: of the model's run; "": the images are those of `data`.
        data: options of `DataConfig`.
        most: the largest number of images, at equal distances among all.
        kept: the folder below which they are kept, for each model and each set of images in a folder of its own; None: they
            are not.

    Raises:
        UserError: images that cannot be read, or too few; scores that are not finite; a folder that cannot be written.
    """
    shape = playground.asked.image_shape(playground.score_endpoint)
    options = dict(data) | ({} if split else playground.data_for(shape))
    stage = playground.sharing(ScoringHeldOut(playground.place, 0, 64, options, 1, split, most))
    if stage.count < 2:
        raise UserError(f"held_out: expected at least two images, received {stage.count}")
    with contextlib.ExitStack() as stack:
        folder = kept or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tfcq-demo-")))
        folder = folder / f"held_out-{stage.job(1).digest[:12]}"
        say(f"scores of {stage.count} held-out images, with which pictures are compared: {'kept in ' if kept else 'in '}{folder}")
        Work(stage, 1, folder).compute(0)
        return HeldOut(list(read_parts(folder)))
