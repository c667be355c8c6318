"""What MkDocs calls while it builds the site: tables made of the code, included files, equations as MathML.

A line of a page that is {{ NAME("ARGUMENT", ...) }} is replaced by what the function NAME of `MACROS` returns, so that an option,
an endpoint or a paper is described in one place. Equations, `\\(...\\)` and `\\[...\\]`, become MathML, which browsers draw
themselves: neither the build nor a reader needs the network. No TensorFlow.
"""

import ast
import csv
import dataclasses
import functools
import html
import inspect
import pathlib
import re
import sys
import unicodedata

import latex2mathml.converter
import yaml

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # MkDocs does not look for modules in the current folder

from tfcq import config  # noqa: E402
from tfcq.command_line.options import entry_of  # noqa: E402
from tfcq.config import evaluation, groups  # noqa: E402
from tfcq.endpoints import INPUTS, SIGNATURES  # noqa: E402


def on_page_markdown(markdown: str, page, **_) -> str:
    """MkDocs's hook: the text of a page before it is rendered."""
    return expanded(markdown)


def on_page_content(content: str, **_) -> str:
    """MkDocs's hook: the HTML of a page."""
    return with_mathml(content)


def expanded(markdown: str) -> str:
    """A page with the macros replaced; ValueError where one is unknown."""

    def replaced(match):
        call = ast.parse(match[1], mode="eval").body
        if not (isinstance(call, ast.Call) and call.func.id in MACROS):
            raise ValueError(f"expected one of {', '.join(MACROS)}, received {match[1]}")
        return MACROS[call.func.id](*(ast.literal_eval(argument) for argument in call.args))

    return re.sub(r"^\{\{ (.+) \}\}$", replaced, markdown, flags=re.MULTILINE)


def with_mathml(content: str) -> str:
    """HTML in which the equations that arithmatex has marked are MathML."""

    def mathml(display):
        return lambda match: latex2mathml.converter.convert(html.unescape(match[1]).strip(), display=display)

    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', mathml("inline"), content, flags=re.DOTALL)
    return re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', mathml("block"), content, flags=re.DOTALL)


def include(path: str, depth: int = 0) -> str:
    """A file of the repository; documents and pictures that it names are links from docs/, headings are `depth` levels lower."""
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"^#", "#" * (1 + depth), text, flags=re.MULTILINE) if depth else text
    text = re.sub(r"`docs/([\w./-]+\.md)`", r"[`docs/\1`](\1)", text)
    return text.replace('"docs/images/', '"images/').replace("(docs/images/", "(images/")


def options(*names: str) -> str:
    """A table of the options of a system (a key of SYSTEMS) or of a section (the name of its class).

    Args:
        names: the system or section, then those whose options are left out, as another page has them.
    """
    section, *without = map(_section, names)
    left_out = {field.name: field for other in without for field in dataclasses.fields(other)}
    rows = ["| option | what it is |", "|---|---|"]
    for field in dataclasses.fields(section):
        if field.name not in left_out or left_out[field.name].default != field.default:
            entry = entry_of(section, field.name)
            rows.append(f"| `{entry.usage}` | {_cell(entry.text)} |")
    return "\n".join(rows)


def resumable() -> str:
    """A table of the options that may change when a run is resumed."""
    sections = (config.DataConfig, config.TrainingConfig, *config.SYSTEMS.values())
    found = {field.name: field.metadata["on_resume"] for section in sections for field in dataclasses.fields(section)}
    rows = ["| what it does | options |", "|---|---|"]
    for kind, meaning in {
        "extends": "says where the run ends",
        "free": "decides what is written, shown and measured beside training",
        "layout": "says how a step is divided among devices; sums then round otherwise",
        "place": "says where images or files are; their content must be the same",
    }.items():
        rows.append(f"| {meaning} | {', '.join(f'`--{name}`' for name, one in found.items() if one == kind)} |")
    return "\n".join(rows)


def endpoints() -> str:
    """A table of what an exported model can be asked."""
    rows = ["| endpoint | takes | answers | |", "|---|---|---|---|"]
    for name, signature in SIGNATURES.items():
        takes, answers = (", ".join(f"`{tensor}`" for tensor in tensors) for tensors in (signature.inputs, signature.outputs))
        rows.append(f"| `{name}` | {takes} | {answers} | {_cell(signature.meaning)} |")
    return "\n".join(rows)


def inputs() -> str:
    """A table of the inputs of endpoints and of methods."""
    rows = ["| input | type | shape of a row | what it is |", "|---|---|---|---|"]
    shapes = {"image_shape": "H, W, C", "latent_shape": "of the model's latents", "compressed_shape": "of its compressed images"}
    for name, one in INPUTS.items():
        row = "one number" if one.row in ((), None) else shapes.get(one.row) or ", ".join(map(str, one.row))
        called = f"`{name}`" + (f" (endpoints: `{one.endpoint_name}`)" if one.endpoint_name else "")
        rows.append(f"| {called} | {one.dtype} | {row} | {_cell(one.meaning)} |")
    return "\n".join(rows)


def results() -> str:
    """A table of configs/results.csv: a row a run."""
    columns = {"elbo_bits_per_dim": "ELBO, bits/dim", "bits_per_dim": "bits/dim", "fd_efficientnet_lite0": "Frechet distance"}
    columns |= {"classifier_score_efficientnet_lite0": "classifier score"}
    lines = [f"| run | data | steps x batch | minutes | weights | {' | '.join(columns.values())} |", "|---" * 9 + "|"]
    with open(ROOT / "configs" / "results.csv", newline="") as file:
        for row in csv.DictReader(file):
            facts = [f"`{row['run']}`", f"{row['data']}, {row['image_size']}", f"{row['steps']} x {row['batch_size']}"]
            facts += [row["minutes"] or "-", f"{int(row['weights']):,}"]
            facts += [f"{float(row[name]):.4g}" if row[name] else "-" for name in columns]
            lines.append(f"| {' | '.join(facts)} |")
    return "\n".join(lines)


def metrics() -> str:
    """A table of the metrics, of their registry."""
    from tfcq.metrics import registry

    rows = ["| metric | numbers in metrics.json | what it is |", "|---|---|---|"]
    for name, line in registry.TABLE.items():
        numbers = list(registry.numbers_of(name))
        if line.inception:
            numbers = [f"{line.short or name}_EXTRACTOR", line.inception]
        shown = "bits/dim and nats" if line.ability == "likelihood" else ", ".join(f"`{one}`" for one in numbers)
        rows.append(f"| `{name}` | {shown} | {_cell(line.meaning)} |")
    return "\n".join(rows)


def scores() -> str:
    """A table of the columns of `tfcq score`."""
    from tfcq.scoring.columns import COLUMNS, FLAG_BY

    rows = ["| column | what it is | `--flag_by` |", "|---|---|---|"]
    rows += [f"| `{name}` | {_cell(one.meaning)} | {'yes' if name in FLAG_BY else ''} |" for name, one in COLUMNS.items()]
    return "\n".join([*rows, "| `flagged` | whether it is unusual among the held-out images: below | |"])


def image_kinds() -> str:
    """The table of the kinds of image files, and what becomes of them, of the module that decodes them."""
    text = ast.get_docstring(ast.parse((ROOT / "tfcq/data/decoding.py").read_text(encoding="utf-8")))
    return "\n".join(line for line in inspect.cleandoc(text).splitlines() if line.startswith("|"))


def departures(module: str) -> str:
    """The paragraphs of a module's docstring that say where it departs from its paper or its authors' code."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    text = inspect.cleandoc(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
    found = [part for part in text.split("\n\n") if re.match(r"Departures ", part)]
    if not found:
        raise ValueError(f"{module}: expected a paragraph of its docstring that says where it departs from its paper")
    return _cell("\n\n".join(found), newline="\n")


def cite(*keys: str) -> str:
    """References of CITATION.cff in full, each a paragraph."""
    return "\n\n".join(_citation(_references()[key]) for key in keys)


def bibtex() -> str:
    """The references of CITATION.cff as BibTeX entries."""
    entries = []
    for key, one in _references().items():
        kind = "inproceedings" if one["type"] == "conference-paper" else "misc"
        authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in one["authors"])
        fields = {"title": f"{{{one['title']}}}", "author": authors, "year": one["year"]}
        fields |= {"booktitle": one.get("collection-title"), "note": one.get("notes")}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        entries.append("\n".join([f"@{kind}{{{key},", *lines, "}"]))
    return "\n\n".join(["```bibtex", *entries, "```"])


MACROS = {
    macro.__name__: macro
    for macro in (include, options, resumable, endpoints, inputs, results, metrics, scores, image_kinds, departures, cite, bibtex)
}


@functools.cache
def _references():
    """{key, such as xiao2019: a reference of CITATION.cff}."""
    found = {}
    for one in yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]:
        name = unicodedata.normalize("NFKD", one["authors"][0]["family-names"]).encode("ascii", "ignore").decode()
        found[re.sub(r"\W", "", name).lower() + str(one["year"])] = one
    return found


def _citation(one):
    *others, last = [f"{author['given-names']} {author['family-names']}" for author in one["authors"]]
    authors = f"{', '.join(others)} and {last}" if others else last
    where = "".join(f", {one[name]}" for name in ("collection-title", "notes") if name in one)
    return f"{authors}: *{one['title']}*{where}, {one['year']}."


def _section(name):
    return config.SYSTEMS.get(name) or getattr(config, name, None) or getattr(evaluation, name, None) or getattr(groups, name)


def _cell(text, newline=" "):
    """Text of the code for a page: what Markdown would read as a sign of its own stands for itself; for a table in one line."""
    text = " ".join(text.split()) if newline == " " else text
    signs = r"([*_\\<>\[\]|])" if newline == " " else r"([*_\\<>\[\]])"
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(signs, r"\\\1", piece) for piece in pieces)
