"""table.md and table.png: ours beside the papers' numbers, protocols, and whether the papers' orders show."""

import json
import math

from markdown_tables import unpadded

from tfcq.reproduction import report
from tfcq.reproduction.rows import Order
from tfcq.reproduction.tables import TABLES


def record(distance, bits=None, step=100, **more):
    measured = {"step": step, "checkpoint": "last", "split": "test", "fd_lite": entry(distance, real=1.5)}
    measured |= {"classifier_score_lite": entry(2.0, standard_deviation_over_splits=0.05)}
    if bits is not None:
        likelihood = {"bits_per_dim_standard_error": 0.012, "num_images": 40, "split": "test", "meaning": "a bound"}
        measured["bits_per_dim"] = {"bits_per_dim": bits, "num_importance_samples": 7} | likelihood
        measured["elbo"] = {"bits_per_dim": bits + 0.5} | likelihood
    evaluation = {"flags": {}, "step": step, "measured": measured, "data": "made up | 8x8x1"}
    return {"step": step, "seconds": 90.0, "weights": 12345, "evaluation": evaluation} | more


def entry(value, **more):
    protocol = {"num_generated": 50, "num_real": 30, "split": "test", "extractor": "lite", "checksum": "ab12"}
    return {"value": value, "meaning": "a distance"} | protocol | more


def written(rows, tmp_path, table="1"):
    text = report.write_report(TABLES[table], rows, tmp_path / "out", ["Budget: 3 steps a row."]).read_text()
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    return text


def table_of(text):
    """{row: {heading: cell}} of the Markdown."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {line[0]: dict(zip(lines[0], line)) for line in lines[1:]}


def test_the_table_sets_ours_beside_the_papers(tmp_path):
    failure = "train: exit status 1: a | b"
    rows = {"gan": record(50.0), "cqf": record(20.25, 3.5, 80), "vae": {"step": 3, "seconds": 6.0, "failure": failure}}
    text = written(rows, tmp_path)
    cells = table_of(text)
    assert list(cells) == ["gan", "vae", "cq", "cqf", "real images in their place", "better"]
    cqf = cells["cqf"]
    assert [cqf[name] for name in ("paper: BPD", "paper: IS", "paper: FID")] == ["3.9", "7.1", "28"]
    assert cqf["bits/dim (importance-weighted)"] == "3.5 +- 0.012" and cqf["bits/dim (ELBO)"] == "4 +- 0.012"
    assert cqf["fd_lite"] == "20.25" and cqf["classifier_score_lite"] == "2 +- 0.05"
    assert (cqf["steps"], cqf["minutes"], cqf["weights"], cqf["state"]) == ("80", "1.5", "12,345", "measured")
    better = {"paper: IS": "higher", "paper: FID": "lower", "bits/dim (importance-weighted)": "lower", "bits/dim (ELBO)": "lower"}
    assert better.items() <= cells["better"].items() and cells["better"]["steps"] == "-"
    assert cells["gan"]["paper: BPD"] == "-" and cells["gan"]["bits/dim (importance-weighted)"] == "n/a"
    assert cells["vae"]["state"] == f"failed: {failure}".replace("|", "/") and cells["vae"]["fd_lite"] == "n/a"
    assert cells["cq"]["state"] == "not run" and cells["cq"]["steps"] == "n/a"
    assert cells["real images in their place"]["fd_lite"] == "1.5"
    assert "their levels cannot be compared with the paper's" in text.replace("\n", " ")


def test_every_protocol_is_stated(tmp_path):
    rows = {"gan": record(50.0), "cqf": record(20.0, 3.5)}
    text = written(rows, tmp_path)
    assert "- Budget: 3 steps a row.\n- Data: made up \\| 8x8x1." in text
    assert "`fd_lite`: a distance: split=test, num_generated=50, num_real=30, extractor=lite, checksum=ab12" in text
    assert "num_images=40, num_importance_samples=7, checkpoint=last" in text
    rows["gan"]["evaluation"]["measured"]["fd_lite"]["num_generated"] = 9
    text = written(rows, tmp_path)  # rows that were not measured alike are distinguished
    assert "`fd_lite` of gan: a distance: split=test, num_generated=9" in text and "`fd_lite` of cqf:" in text
    assert "fd_lite (!)" in table_of(text)["gan"] and "bits/dim (ELBO)" in table_of(text)["gan"]
    assert "- `fd_lite` (!): not measured alike; the rows differ in num_generated." in text
    data = {"dataset": "digits", "image_size": 8, "channels": 1}  # recorded since: other data of one name in two rows
    for name, size in (("gan", 8), ("cqf", 16)):
        rows[name]["evaluation"]["measured"]["fd_lite"] |= {"num_generated": 9, "data": data | {"image_size": size}}
    assert "- `fd_lite` (!): not measured alike; the rows differ in image_size." in written(rows, tmp_path)


def test_orders_are_answered_both_ways(tmp_path):
    good = {"vae": record(152.0, 5.2), "cq": record(130.0, 5.3), "cqf": record(87.8, 3.5)}
    text = written(good, tmp_path)
    numbers = "(cqf 87.8, cq 130, vae 152; the paper: 28, 58.6, 171)"
    assert f"- cqf before cq before vae on the Frechet distance: as in the paper {numbers}" in text
    assert "- cqf before cq and vae on the bits/dim: as in the paper (cqf 3.5, cq 5.3, vae 5.2; the paper: 3.9, 4.4, 4.4)" in text
    assert "- cqf before gan before cq and vae on the Frechet distance: unknown (gan has no number; the paper: 28," in text
    assert "- cqf before cq on the classifier score: not as in the paper (cqf 2, cq 2; the paper: 7.1, 5.1)" in text
    orders = {one["order"]: one for one in json.loads((tmp_path / "out" / "report.json").read_text())["orders"]}
    assert orders["cqf before cq on the classifier score"]["verdict"] == "not as in the paper"
    assert orders["cqf before cq and vae on the bits/dim"]["ours"] == {"cqf": 3.5, "cq": 5.3, "vae": 5.2}
    bad = good | {"cq": record(160.0, 3.4)}
    text = written(bad, tmp_path)
    assert "on the Frechet distance: not as in the paper (cqf 87.8, cq 160, vae 152;" in text
    assert "on the bits/dim: not as in the paper (cqf 3.5, cq 3.4, vae 5.2;" in text
    bits = {"scales_1_blocks_2": record(1.0, 3.5), "scales_2_blocks_2": record(1.0, 3.5)}
    assert "on the bits/dim: not as in the paper (scales_2_blocks_2 3.5, scales_1_blocks_2 3.5;" in written(bits, tmp_path, "3a")


def test_a_paper_without_bits_per_dim_is_drawn_as_bars(tmp_path):
    rows = {"glf": record(20.0), "vae": record(50.0, 5.2)}
    text = written(rows, tmp_path, "glf")
    cells = table_of(text)
    assert "paper: BPD" not in cells["glf"] and cells["glf"]["paper: FID"] == "21.3" and cells["vae"]["fd_lite"] == "50"
    assert "- glf before vae and vae_flow_posterior and vae_flow_prior on the Frechet distance: unknown" in text


def test_rows_that_are_to_be_equally_large_are_compared(tmp_path):
    rows = {"cq": record(130.0, 5.3, weights=10020), "cqf": record(87.8, 3.5, weights=10000)}
    assert "\n- cq is to have as many weights as cqf: 10,020 and 10,000, +0.2 %." in written(rows, tmp_path)
    rows["cq"]["weights"] = 9900
    assert "- (!) cq is to have as many weights as cqf: 9,900 and 10,000, -1 %." in written(rows, tmp_path)


def test_a_table_that_the_paper_does_not_have_is_ours_alone(tmp_path):
    rows = {"lambda_0": record(152.0, 5.2), "lambda_100": record(87.8, 3.5, ms_per_step=[12.5])}
    text = written(rows, tmp_path, "lambda")
    cells = table_of(text)
    assert "All numbers are ours." in text and "paper: " not in text and "orders" not in text
    assert cells["lambda_100"]["fd_lite"] == "87.8" and cells["lambda_100"]["ms a step, timed"] == "12.5"
    assert cells["lambda_0"]["ms a step, timed"] == "n/a" and cells["real images in their place"]["state"] == "-"


def test_orders_of_a_number_that_is_better_higher():
    order = Order("classifier_score", (("a",), ("b", "c")))
    assert order.holds({"a": 3.0, "b": 2.0, "c": 1.0}) is True
    assert order.holds({"a": 1.5, "b": 2.0, "c": 1.0}) is False
    assert order.holds({"a": 3.0, "b": 2.0}) is None


def test_numbers_of_the_inception_graph_have_their_own_names(tmp_path):
    one = record(20.0, 3.5)
    measured = one["evaluation"]["measured"]
    measured["fid"] = measured.pop("fd_lite")
    measured["prd_f8_lite"] = entry(0.25)  # another metric that was asked for has its column too
    assert report.value_of(one, "frechet_distance") == 20.0
    cells = table_of(written({"cqf": one}, tmp_path))
    assert cells["cqf"]["fid"] == "20" and cells["cqf"]["prd_f8_lite"] == "0.25"


def test_numbers_that_are_not_finite_are_null_and_decide_no_order(tmp_path):
    rows = {"vae": record(math.nan, 5.2), "cq": record(130.0, math.inf), "cqf": record(87.8, -math.inf)}
    rows["vae"]["ms_per_step"] = [1.0, math.nan]
    text = written(rows, tmp_path)

    def refuse(name):
        raise AssertionError(f"no JSON: {name}")

    found = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refuse)
    assert found["rows"]["vae"]["measured"]["fd_lite"] == entry(None, real=1.5)
    assert found["rows"]["vae"]["ms_per_step"] == [1.0, None] and found["rows"]["vae"]["step"] == 100
    assert found["rows"]["cq"]["measured"]["bits_per_dim"]["bits_per_dim"] is None
    assert "- cqf before cq before vae on the Frechet distance: unknown (vae has no number; " in text


def test_a_table_of_nothing_is_written(tmp_path):
    assert "| cqf | 3.9 | 7.1 | 28 | n/a | n/a | n/a | not run |" in unpadded(written({}, tmp_path))
