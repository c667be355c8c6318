"""The commands and the Python that README.md and docs/ show run as they stand there, but for fewer steps and images."""

import json
import re
import subprocess
import sys

import pytest
from documents import ROOT, blocks, command_lines

# A page's blocks run in one process, in their order and in one folder; those of Python share their names.
PROGRAM = """
import json, sys
from tfcq.__main__ import main
from tfcq.machine import settings

settings.import_tensorflow()
import tensorflow as tf

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # it takes longer than all steps here

names = {"__name__": "document"}
for language, content in json.load(sys.stdin):
    if language == "python":
        exec(compile(content, content, "exec"), names)
    elif main(content):
        sys.exit(f"failed: {content}")
"""

SMALL = {
    r"train_steps=\d+": "train_steps=8",
    r"num_images=\d+": "num_images=16",
    r"GLFConfig\(": "GLFConfig(hidden_units=32, latent_flow_blocks=1, ",
    r"CQFConfig\(": "CQFConfig(width=8, discriminator_width=8, flow_couplings=1, ",
}
"""{what a block of Python says: what is run}."""

FEWER = {
    "train": ["--train_steps=8", "--warmup_steps=2", "--evaluate_every=8", "--validation_images=16", "--grid_images=4"],
    "evaluate": ["--num_importance_samples=2", "--num_images=16"],
}
"""{command: the flags that are added to it}."""


def runnable(page):
    """[("python", text) or ("tfcq", arguments)] of what a page shows, made small."""
    found = []
    for language, text in blocks(page, "bash", "python"):
        if language == "python":
            for shown, small in SMALL.items():
                text = re.sub(shown, small, text)
            found.append((language, text))
        else:
            lines = [line[1:] for line in command_lines(text) if line[0] == "tfcq"]  # tools/ are what .ci/run runs
            found += [("tfcq", [*line, *FEWER.get(line[0], [])]) for line in lines]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "written"),
    [
        ("README.md", ["exports/cqf/1/saved_model.pb"]),
        pytest.param("docs/classes.md", ["runs/classes/data.json"], marks=pytest.mark.long),
        pytest.param(
            "docs/getting-started.md", ["samples.png", "exports/cqf/1", "runs/first/report.md"], marks=pytest.mark.long
        ),
    ],
)
def test_what_a_page_shows_runs(page, written, tmp_path):
    given = json.dumps(runnable(ROOT / page))
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert all((tmp_path / name).exists() for name in written), done.stdout[-2000:]
