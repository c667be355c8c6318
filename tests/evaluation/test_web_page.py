"""The report as one HTML page: read back with Python's parser, its scripts run by Node.js where that is installed."""

import base64
import html.parser
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tfcq import picture_files
from tfcq.evaluation import figures, page, web_page

HOSTILE = "</script><script>alert('x')</script> & \"<img src=http://x/y.png>\""
PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class Read(html.parser.HTMLParser):
    """The texts, tags and attributes of a page; the texts of scripts and styles are apart."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.scripts, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        (self.scripts if inside == "script" else self.texts).append(data)

    def attributes(self, tag):
        return [attributes for one, attributes in self.tags if one == tag]


def blocks():
    curve = {HOSTILE: (np.array([0, 1, 2]), np.array([3.5, np.nan, 1.25]))}
    return [
        page.Heading(HOSTILE, 1),
        page.Text(HOSTILE),
        page.Bullets([HOSTILE, "second"]),
        page.Table(["number", HOSTILE], [["fd", "12.5"], [HOSTILE, ""]]),
        page.Figure("samples", PICTURE, HOSTILE),
        page.Figure.of("training_loss", figures.lines(curve, "step", HOSTILE, HOSTILE), "Training."),
    ]


@pytest.fixture(name="without_plotly")
def fixture_without_plotly(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)


def test_every_text_is_shown_as_it_is_and_nothing_of_it_is_markup(without_plotly):
    read = Read(web_page.page(blocks()))
    assert len(read.scripts) == 1  # that of the tables
    for tag in ("title", "h1", "p", "li", "button", "td", "figcaption"):
        assert read.attributes(tag), tag
    assert read.texts.count(HOSTILE) == 7  # title, heading, text, list, heading of a column, cell, caption
    assert len(read.attributes("img")) == 2


def test_the_page_is_one_file_and_may_load_nothing():
    read = Read(web_page.page(blocks()))
    assert not read.attributes("link") and not read.attributes("a") and not read.attributes("iframe")
    assert all("src" not in one for one in read.attributes("script"))
    assert all(one["src"].startswith("data:image/png;base64,") for one in read.attributes("img"))
    policy = next(one["content"] for one in read.attributes("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy and "*" not in policy


def test_pictures_are_inside_of_the_page(without_plotly):
    sources = [one["src"] for one in Read(web_page.page(blocks())).attributes("img")]
    np.testing.assert_array_equal(picture_files.decoded(base64.b64decode(sources[0].partition(",")[2])), PICTURE)
    assert picture_files.decoded(base64.b64decode(sources[1].partition(",")[2])).shape[2] == 3


def test_curves_are_drawn_by_plotly_from_their_values():
    pytest.importorskip("plotly")
    text = web_page.page(blocks())
    assert web_page.STILL not in text and "<noscript><img" in text
    call = next(script for script in Read(text).scripts if "Plotly.newPlot(" in script and len(script) < 20000)
    assert "<" not in call.replace("\\u003c", "").split("Plotly.newPlot")[1].split("[{")[1]  # names are escaped for scripts, too
    data = json.JSONDecoder().raw_decode(call[call.index("[{") :])[0]
    assert data[0]["x"] == [0, 1, 2] and data[0]["y"] == [3.5, None, 1.25]
    assert "<script" not in data[0]["name"] and "&lt;script&gt;" in data[0]["name"]  # Plotly reads HTML in names


def test_without_plotly_the_page_says_how_to_get_it(without_plotly):
    text = web_page.page(blocks())
    assert len(text) < 200_000 and "Plotly.newPlot" not in text
    assert Read(text).texts.count(web_page.STILL) == 1
    assert web_page.STILL not in web_page.page([page.Heading("no curves", 1)])


def test_a_histogram_and_its_edges_are_drawn():
    pytest.importorskip("plotly")
    chart = figures.histogram({"digits": np.array([1.0, 2.0, 2.0])}, "bits/dim")
    text = web_page.page([page.Figure.of("histogram", chart, "")])
    call = next(script for script in Read(text).scripts if "Plotly.newPlot(" in script and len(script) < 20000)
    (data,) = json.JSONDecoder().raw_decode(call[call.index("[{") :])[0]
    assert len(data["x"]) == len(data["y"]) == 61 and data["line"]["shape"] == "hv" and data["name"] == "digits: mean 1.667"


SORTED = """
const rows = TABLE.map(cells => ({ cells: cells.map(textContent => ({ textContent })) }));
const body = { rows, append(...sorted) { this.rows = sorted; } };
const table = { tBodies: [body] };
const row = { children: [] };
const buttons = [0, 1].map(cellIndex => {
  const head = {
    cellIndex, attributes: {}, parentElement: row, closest: () => table,
    getAttribute(name) { return this.attributes[name] ?? null; },
    setAttribute(name, value) { this.attributes[name] = value; },
    removeAttribute(name) { delete this.attributes[name]; },
  };
  row.children.push(head);
  return { parentElement: head, addEventListener(_, click) { this.click = click; } };
});
const document = { querySelectorAll: () => buttons };
SCRIPT
const shown = () => body.rows.map(one => one.cells[0].textContent).join(" ");
const found = [];
for (const place of [1, 1, 0, 1]) { buttons[place].click(); found.push(shown()); }
found.push(row.children.map(head => head.attributes["aria-sort"] ?? "none").join(" "));
console.log(JSON.stringify(found));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="the page's script is run by Node.js, which is not installed")
def test_a_click_sorts_a_table_by_a_columns_numbers_or_words():
    table = [["b", "1,000 / 9"], ["a", ""], ["d", "12.5"], ["c", "-3e2 +- 4"]]
    program = SORTED.replace("TABLE", json.dumps(table)).replace("SCRIPT", web_page._SORTING)
    result = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout) == ["c d b a", "b d c a", "a b c d", "c d b a", "none ascending"]


def test_markdown_and_html_have_the_same_blocks(without_plotly):
    text = page.markdown(blocks(), "report")
    assert "![samples](report/samples.png)" in text and "\n- second\n" in text and re.search(r"\| number +\| \\<", text)
    assert not re.search(r"(?<!\\)<script", text)
