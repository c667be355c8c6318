"""A packed model of a tiny run with all that is left out: a discriminator, optimizers, a running mean of the weights."""

import pytest
import tiny_models as tiny

import tfcq


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releasing")
    training = {"train_steps": 2, "ema_decay": 0.9, "evaluate_every": 2, "checkpoint_every": 2}
    config = tiny.config(8, data={"dataset": "digits"}, training=training, flow_scales=1, flow_couplings=1)
    run = tfcq.Run(folder / "run", config)
    run.train()
    return run


@pytest.fixture(scope="session")
def license_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "terms.txt"
    path.write_text("Do as you like.\n")
    return path


@pytest.fixture(scope="session")
def packed_zip(run, license_file):
    return run.pack(run.workdir.parent / "tiny_digits.zip", "last", license_file)
