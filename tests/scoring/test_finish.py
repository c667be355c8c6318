"""From parts to the table and the page: what is written is what the parts and the held-out images say."""

import csv
import gc
import os
import re

import numpy as np
import pyarrow.parquet
import pytest

from tfcq.bulk.job import Job
from tfcq.bulk.parts import Part
from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine.paths import as_path
from tfcq.scoring import tables
from tfcq.scoring.finish import finish
from tfcq.scoring.reference import Reference


class Images:
    """Image i is one of the grey level i."""

    def take(self, start, stop):
        return [], np.arange(start, stop, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), {}


def write(folder, rows):
    job = Job("likelihood", len(rows), 2, {"format": "rows", "seed": 0}, {})
    job.begin(folder)
    for index in range(2):
        part = Part(job, Shard(index, 2), folder)
        part.write([rows[part.rows.start : part.rows.stop]])


def row(key, bits):
    return {"key": key, "log_prob": -bits, "bits_per_dim": bits, "complexity": 0.5}


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    random = np.random.RandomState(0)
    rows = [row(f"{number}.png", float(bits)) for number, bits in enumerate(random.normal(4, 1, 100))]
    rows[7] = {"key": "7.png", "unfit": "not a picture, \"no\""}
    rows[8] = row(os.fsdecode(b"b\xff<8>.png"), float("nan"))
    write(tmp_path / "out", rows)
    write(tmp_path / "out" / "held_out", [row(str(n), float(bits)) for n, bits in enumerate(random.normal(4, 1, 50))])
    return tmp_path / "out"


def read_csv(folder):
    text = (folder / tables.CSV).read_text("utf-8", "surrogateescape")
    return list(csv.DictReader(text.splitlines()))


def test_the_tables_and_the_page_say_what_the_parts_say(folder, capsys, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS", 16)  # several row groups
    finish(folder, folder / "held_out", Images(), "typicality", 0.1, {"workdir": "a<b"})
    from tfcq.bulk import read_parts

    reference = Reference(read_parts(folder / "held_out"), "typicality")
    written, parquet = read_csv(folder), pyarrow.parquet.read_table(folder / tables.PARQUET).to_pylist()
    names = ["key", "log_prob", "bits_per_dim", "complexity", "complexity_corrected", "typicality"]
    names += ["percentile", "flagged", "unfit"]
    assert list(written[0]) == list(parquet[0]) == names and len(written) == len(parquet) == 100
    flagged = 0
    for part, line, cells in zip(read_parts(folder), written, parquet, strict=True):
        if "unfit" in part:
            assert (line["key"], line["unfit"], line["bits_per_dim"], line["flagged"]) == (part["key"], part["unfit"], "", "")
            assert cells["unfit"] == part["unfit"] and cells["percentile"] is None
            continue
        expected = reference.complete(part, 0.1)
        flagged += expected["flagged"]
        for name in names[1:7]:
            np.testing.assert_equal(float(line[name]), expected[name])
            np.testing.assert_equal(cells[name], expected[name])
        assert line["flagged"] == str(expected["flagged"]) and cells["flagged"] is expected["flagged"]
        assert line["key"] == part["key"] and (cells["key"] == part["key"] or cells["key"] == "b\\xff<8>.png")
    assert 0 < flagged < 50
    said = capsys.readouterr().out
    assert said == f"wrote {folder}/scores.csv, scores.parquet and scores.html: 100 images; {flagged} flagged by typicality\n"

    text = (folder / "scores.html").read_text()
    assert "a&lt;b" in text and "b\ufffd&lt;8&gt;.png" in text and text.count("<img ") == 64 and "http" not in text
    by = {one["key"]: float(one["typicality"]) for one in written if one["typicality"]}
    ordered = sorted((one for one in by if by[one] == by[one]), key=by.get)
    shown = re.findall(r"alt=\"([^\"]*)\"", text)
    assert shown[1:32] == ordered[:-32:-1] and shown[32:] == ordered[:32]  # before all of them, what is not a number
    assert shown[0] == "b\ufffd&lt;8&gt;.png"


def test_without_held_out_images(folder, capsys):
    finish(folder, None, Images(), None, 0.05, {})
    (first, *_), text = read_csv(folder), (folder / "scores.html").read_text()
    assert list(first) == ["key", "log_prob", "bits_per_dim", "complexity", "complexity_corrected", "unfit"]
    assert "by complexity_corrected" in text and "percentile" not in text
    assert capsys.readouterr().out.endswith("scores.html: 100 images\n")


def test_a_ranking_that_the_scores_have_not(folder):
    for held_out, possible in (
        (None, "bits_per_dim, complexity_corrected"),
        (folder / "held_out", "bits_per_dim, complexity_corrected, typicality"),
    ):
        with pytest.raises(UserError, match=f"flag_by: expected one of {possible}, which these scores have, received energy"):
            finish(folder, held_out, Images(), "energy", 0.05, {})
    assert not (folder / tables.CSV).exists()


def test_no_image_that_can_be_used(tmp_path):
    write(tmp_path, [{"key": "a", "unfit": "broken"}] * 2)
    with pytest.raises(UserError, match="none of the images could be used"):
        finish(tmp_path, None, Images(), None, 0.05, {})


def test_a_disk_that_is_full_leaves_the_last_table(folder, monkeypatch, capsys):
    finish(folder, None, Images(), None, 0.05, {})
    before = (folder / tables.CSV).read_bytes()

    def full(writer, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.TableWriter, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        finish(folder, folder / "held_out", Images(), None, 0.05, {})
    gc.collect()
    assert capsys.readouterr().err == ""  # no writer that complains of its closed file
    assert (folder / tables.CSV).read_bytes() == before and not list(folder.glob("*.partial"))


def test_without_a_comparison_what_is_not_a_number_is_the_most_unusual(tmp_path):
    rows = [{"key": str(n), "latent_log_prob": value, "complexity": 1.0} for n, value in enumerate((-2.0, float("nan"), -1.0))]
    write(tmp_path, rows)
    finish(tmp_path, None, Images(), "latent_log_prob", 0.05, {})
    shown = re.findall(r"alt=\"([^\"]*)\"", (tmp_path / "scores.html").read_text())
    assert shown == ["1", "0", "2", "2", "0", "1"]


def test_too_few_held_out_images_for_the_rate_are_warned_of(folder, capsys):
    finish(folder, folder / "held_out", Images(), None, 0.02, {})
    assert "warning" not in capsys.readouterr().out  # 50 images: 1 / 51 is below 0.02
    finish(folder, folder / "held_out", Images(), None, 0.019, {})
    assert "warning: with 50 held-out images none can be flagged at false_alarm_rate=0.019, which needs 52" in (
        capsys.readouterr().out
    )


def test_tables_at_an_address(folder):
    there = as_path(f"ram://scores/{os.urandom(6).hex()}")
    for path in folder.rglob("*"):
        if path.is_file():
            (there / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (there / path.relative_to(folder)).write_bytes(path.read_bytes())
    finish(there, there / "held_out", Images(), None, 0.05, {})
    finish(folder, folder / "held_out", Images(), None, 0.05, {})
    for name in (tables.CSV, tables.PARQUET):
        assert (there / name).read_bytes() == (folder / name).read_bytes()
