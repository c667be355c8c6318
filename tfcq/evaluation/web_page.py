"""A page of a report as one HTML file: pictures inside of it, tables that sort, curves that Plotly draws where it is installed.

The file needs no other and no network: what it may load is said in its head, and is nothing.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

import numpy as np

from tfcq import picture_files
from tfcq.evaluation.figures import Chart
from tfcq.evaluation.page import Block, Bullets, Figure, Heading, Table, Text

STILL = (
    "The curves are still pictures, as Plotly is not installed: after pip install plotly (the extra \"report\" of tfcq) another "
    "evaluation makes them interactive."
)
"""What a page says where its curves are not interactive."""

_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 68em; padding: 0 1em; color: #222; background: #fff }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
.table { overflow-x: auto }
table { border-collapse: collapse; margin: 1em 0 }
th, td { text-align: left; padding: .3em .8em; border-bottom: 1px solid #ddd; vertical-align: top }
tbody tr:hover { background: #f3f5f8 }
th button { font: inherit; font-weight: bold; border: 0; background: none; padding: 0; cursor: pointer; text-align: left }
th button::after { content: " \\2195"; color: #999 }
th[aria-sort=ascending] button::after { content: " \\2191"; color: #222 }
th[aria-sort=descending] button::after { content: " \\2193"; color: #222 }
figure { margin: 1.5em 0 }
figcaption { margin-bottom: .5em; max-width: 50em }
img { max-width: 100%; height: auto; image-rendering: pixelated }
img.drawn { image-rendering: auto }
li { overflow-wrap: anywhere }
"""

# A column sorts by its numbers where every cell that is not empty begins with one; empty cells stay last.
_SORTING = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const text = row => row.cells[head.cellIndex].textContent.trim();
    const number = row => Number.parseFloat(text(row).replaceAll(",", ""));
    const empty = row => text(row) === "" || text(row) === "-";
    const rows = [...body.rows], filled = rows.filter(row => !empty(row));
    const numeric = filled.every(row => !Number.isNaN(number(row)));
    const order = numeric ? (a, b) => number(a) - number(b) : (a, b) => text(a).localeCompare(text(b));
    filled.sort((a, b) => rising ? order(a, b) : order(b, a));
    body.append(...filled, ...rows.filter(empty));
  });
}
"""


def page(blocks: Iterable[Block]) -> str:
    """The page's HTML; its title is the first heading."""
    blocks = list(blocks)
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    charts = [block for block in blocks if isinstance(block, Figure) and block.chart]
    library = _library() if charts else None
    parts = [_block(block, library is not None) for block in blocks]
    if charts and library is None:
        place = next(place for place, block in enumerate(blocks) if block is charts[0])
        parts.insert(place, f"<p>{html.escape(STILL)}</p>")
    head = [
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style>",
        *([f"<script>{library}</script>"] if library else []),
    ]
    lines = ['<!doctype html>\n<html lang="en"><head>', *head, "</head><body>", *parts, f"<script>{_SORTING}</script>"]
    return "\n".join([*lines, "</body></html>\n"])


def _library():
    """The source of Plotly's script; None if it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return get_plotlyjs()


def _block(block, interactive):
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Table):
        return _table(block)
    return _figure(block, interactive)


def _table(table):
    heads = "".join(f'<th scope="col"><button type="button">{html.escape(heading)}</button></th>' for heading in table.headings)
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table></div>'


def _figure(figure, interactive):
    content = base64.b64encode(picture_files.encoded(figure.picture)).decode()
    kind = ' class="drawn"' if figure.chart else ""
    shown = f'<img{kind} alt="{html.escape(figure.name)}" src="data:image/png;base64,{content}">'
    if interactive and figure.chart:
        shown = f"{_interactive(figure.chart, figure.name)}<noscript>{shown}</noscript>"
    return f"<figure><figcaption>{html.escape(figure.caption)}</figcaption>{shown}</figure>"


def _interactive(chart: Chart, name: str) -> str:
    """The chart as HTML that Plotly fills."""
    from plotly import graph_objects

    def axis(label, shown):
        return {"title": html.escape(label), "range": shown}

    figure = graph_objects.Figure()
    for label, (x, y) in chart.curves.items():
        style: dict = {"dash": "dash", "color": "#666"} if label in chart.dashed else {}
        if chart.are_steps:
            y, style = np.append(y, y[-1]), {"shape": "hv"}
        # Plotly reads a label as HTML.
        figure.add_scatter(
            x=np.asarray(x).tolist(),
            y=[float(value) if np.isfinite(value) else None for value in y],
            name=html.escape(label + chart.notes.get(label, "")),
            mode="lines",
            line=style,
            fill="tozeroy" if chart.are_steps else None,
        )
    figure.update_layout(
        title=html.escape(chart.title),
        xaxis=axis(chart.x_label, chart.x_range),
        yaxis=axis(chart.y_label, chart.y_range),
        template="plotly_white",
        hovermode="x unified" if not chart.x_range else "closest",
        showlegend=True,
        height=440,
    )
    options = {"displaylogo": False, "responsive": True}
    return figure.to_html(options, full_html=False, include_plotlyjs=False, div_id=f"chart-{html.escape(name)}")
