"""A page of a report as a list of blocks, which `markdown` and `tfcq.evaluation.web_page` write.

Texts are plain: what they come from (names of files, of data sets) may hold any character.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from tfcq.evaluation.figures import Chart
from tfcq.evaluation.tables import markdown_table
from tfcq.machine import paths


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading: level 1 is the page's, 2 a section's, 3 that of one of its parts."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, whose cells are texts."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        name: of its file, without ending.
        picture: uint8 [H, W, 1 or 3].
        caption: what it shows.
        chart: the same as curves, which a page with a library for them shows instead; None: images.
    """

    name: str
    picture: np.ndarray
    caption: str
    chart: Chart | None = None

    @classmethod
    def of(cls, name: str, chart: Chart, caption: str) -> Figure:
        """The figure of a chart; the caption ends with what the chart does not show."""
        return cls(name, chart.picture(), f"{caption} {chart.hidden}".rstrip(), chart)


Block: TypeAlias = Heading | Text | Bullets | Table | Figure


def markdown(blocks: Iterable[Block], folder: str) -> str:
    """The page as Markdown; the pictures are files NAME.png in `folder`; "": beside it."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block, folder):
    if isinstance(block, Heading):
        text = paths.markdown(block.text)
        return f"**{text}**" if block.level > 2 else f"{'#' * block.level} {text}"
    if isinstance(block, Text):
        return paths.markdown(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {paths.markdown(item)}" for item in block.items)
    if isinstance(block, Table):
        cells = ([paths.markdown(cell) for cell in row] for row in block.rows)
        return markdown_table([paths.markdown(heading) for heading in block.headings], cells)
    place = f"{folder}/{block.name}.png" if folder else f"{block.name}.png"
    return f"{paths.markdown(block.caption)}\n\n![{block.name}]({place})"
