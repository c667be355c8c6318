"""The notebook of docs/ runs from its first cell to its last: own pictures, a model, scores, an endpoint."""

import re
import runpy

import numpy as np
import pytest
from documents import ROOT


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_runs(tmp_path):
    pytest.importorskip("nbclient", reason="needs the extra dev")
    executed = runpy.run_path(str(ROOT / "tools" / "execute_notebook.py"))["executed"]
    fewer = {"train_steps=2000": "train_steps=8, warmup_steps=2", "num_samples=500": "num_samples=16"}
    notebook = executed(tmp_path / "work", fewer)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert sum("image/png" in output["data"] for output in outputs) == 3
    table = next(output["data"]["text/html"] for output in outputs if "text/html" in output["data"])
    assert len(re.findall(r"<td>(?:usual|negative|noise)_\d.png", table)) == 9
    (served,) = (text for output in outputs if (text := output["data"]["text/plain"]).startswith("array("))
    bits = [float(number) for number in re.findall(r"\d+\.\d+", served)]
    assert len(bits) == 9 and np.all(np.array(bits) > 0)
    assert outputs[-1]["data"]["text/plain"] == "0"  # the server's exit status
