"""What tools/site_hooks.py makes of the code, and CITATION.cff."""

import dataclasses
import importlib.util

import pytest
import yaml
from documents import ROOT

import tfcq
from tfcq.config import SYSTEMS
from tfcq.endpoints import ENDPOINTS, SIGNATURES
from tfcq.metrics import registry

specification = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
hooks = importlib.util.module_from_spec(specification)
specification.loader.exec_module(hooks)


def cells(table):
    """The rows of a table, below its head, as lists of cells."""
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_table_has_every_option_of_a_system(system):
    rows = cells(hooks.options(system))
    assert len(rows) == len(dataclasses.fields(SYSTEMS[system]))
    for field, (name, meaning) in zip(dataclasses.fields(SYSTEMS[system]), rows):
        assert field.name in name and "default" in meaning


def test_options_of_another_page_are_left_out_unless_their_default_is_another():
    rows = dict(cells(hooks.options("two_stage_vae", "AutoencoderOptions", "DecoderScaleOptions")))
    assert not [name for name in rows if "latent_dim" in name]
    assert "default: true" in rows["`--[no]learn_decoder_sigma`"]


def test_tables_of_endpoints_and_metrics_have_all_of_them():
    rows = {row[0]: row for row in cells(hooks.endpoints())}
    for name, endpoint in ENDPOINTS.items():
        assert all(f"`{output}`" in rows[f"`{name}`"][2] for output in endpoint.outputs)
    assert rows.keys() == {f"`{name}`" for name in SIGNATURES}
    assert rows["`likelihood_png`"][1:3] == ["`images_bytes`, `seed`", "`log_prob`, `bits_per_dim`"]
    assert rows["`sample_png`"][1:3] == ["`seed`, `temperature`", "`images_png_bytes`"]
    assert [row[0].strip("`") for row in cells(hooks.metrics())] == list(registry.TABLE)
    assert "`fd_EXTRACTOR`, `fid`" in hooks.metrics() and "`density`, `coverage`" in hooks.metrics()


def test_the_kinds_of_images_are_those_of_the_decoder():
    head, line, *rows = hooks.image_kinds().splitlines()
    assert (head, line) == ("| kind | decision |", "|---|---|")
    kinds = dict(row.strip("| ").split(" | ") for row in rows)
    assert kinds["16 bits a channel, 32-bit integers, floats"].startswith("refused: ")
    assert kinds["alpha channel, transparent colour"].startswith("dropped where every pixel is opaque; otherwise refused")


def test_equations_become_mathml_and_code_stays_as_it_is():
    content = r'<p><span class="arithmatex">\(a &lt; b\)</span> and <code>\(a\)</code></p><div class="arithmatex">\[ x^2 \]</div>'
    made = hooks.with_mathml(content)
    assert '<mo>&lt;</mo>' in made or "<mo>&#x0003C;</mo>" in made
    assert r"<code>\(a\)</code>" in made and 'display="block"' in made and "arithmatex" not in made


def test_an_unknown_macro_ends_the_build():
    with pytest.raises(ValueError, match="expected one of include, .* received optoins"):
        hooks.expanded('{{ optoins("glf") }}')
    assert hooks.expanded('A line with {{ options("glf") }} in it.') == 'A line with {{ options("glf") }} in it.'


def test_signs_of_markdown_in_the_code_stand_for_themselves():
    assert hooks._cell("a | b_c `d|e_f` <g> [h]") == r"a \| b\_c `d|e_f` \<g\> \[h\]"


def test_departures_are_of_the_docstring():
    assert hooks.departures("tfcq.models.coverage_quality.cqf").startswith("Departures from the paper: ActNorm")
    with pytest.raises(ValueError, match="expected a paragraph"):
        hooks.departures("tfcq.models.autoencoders.vae")


def test_the_citation_is_of_this_version_and_its_references_are_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["version"], citation["license"]) == ("1.2.0", tfcq.__version__, "Apache-2.0")
    assert citation["message"] and citation["title"] and citation["authors"] == [{"name": "The tfcq developers"}]
    for one in citation["references"]:
        assert {"type", "title", "year", "authors"} <= one.keys()
        assert (one["type"] == "conference-paper") == ("collection-title" in one)
        assert all({"family-names", "given-names"} == author.keys() for author in one["authors"])
    assert hooks.bibtex().count("\n@") == len(citation["references"])
    assert "author = {Xiao, Zhisheng and Yan, Qing and Amit, Yali}," in hooks.bibtex()
    assert hooks.cite("xiao2019") == "Zhisheng Xiao, Qing Yan and Yali Amit: *Generative latent flow*, arXiv:1905.10485, 2019."
