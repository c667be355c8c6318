"""Fixtures of the tests of this folder."""

import pytest
import tiny_models as tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workdir") / "run"
    tiny.make_workdir(folder, tiny.config(8, latent_size=4, flow_couplings=1, quality_weight=0.0))
    return folder
