"""Fixtures of the tests of this folder."""

import pytest
from checkpoint_cases import build, fill

from tfcq.engine.checkpoints import Checkpoints


@pytest.fixture
def saved(tmp_path):
    """(workdir, {step: values}) of a run that saved steps 10 and 20."""
    model, contents = build(), {}
    checkpoints = Checkpoints(tmp_path, model, keep=3)
    for step in (10, 20):
        contents[step] = fill(model, step, seed=step)
        checkpoints.save()
    return tmp_path, contents
