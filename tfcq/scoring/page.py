"""A page of the least and the most unusual images with their numbers: one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tfcq.scoring.columns import COLUMNS

NAME = "scores.html"

_STYLE = """
body { font: 15px sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(10em, 1fr)); gap: 1em; list-style: none; padding: 0 }
img { width: 8em; height: 8em; image-rendering: pixelated; border: 1px solid #bbb }
small { display: block; overflow-wrap: anywhere }
.flagged img { border: 3px solid #c22 }
td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top }
"""


def page(
    title: str,
    facts: Mapping[str, Any],
    ranked_by: str,
    numbers: list[str],
    lowest: Iterable[tuple[Mapping[str, Any], np.ndarray]],
    highest: Iterable[tuple[Mapping[str, Any], np.ndarray]],
) -> str:
    """The page's HTML.

    Args:
        title: its heading.
        facts: what was scored and how, by name.
        ranked_by: the column by which images are ranked.
        numbers: the columns that are shown.
        lowest, highest: pairs of a row of the table and its image, uint8 [H, W, 1 or 3], in the order shown.
    """
    about = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items())
    meanings = "".join(f"<tr><th>{name}</th><td>{html.escape(COLUMNS[name].meaning)}</td></tr>" for name in numbers)
    parts = [
        f"<h2>{heading}, by {ranked_by}</h2><ol>{''.join(_item(row, image, ranked_by) for row, image in images)}</ol>"
        for heading, images in (("Most unusual", highest), ("Least unusual", lowest))
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{about}</table>{''.join(parts)}<h2>Columns</h2><table>{meanings}</table></html>\n"
    )


def _item(row, image, ranked_by):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    key = html.escape(row["key"].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    told = [f"{ranked_by} {row[ranked_by]:.4g}"] + ([f"percentile {row['percentile']:.1f}"] if "percentile" in row else [])
    kind = " class=flagged" if row.get("flagged") else ""
    return f'<li{kind}><img src="{source}" alt="{key}"><small>{key}</small><small>{"; ".join(told)}</small></li>'
