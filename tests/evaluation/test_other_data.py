"""The data set that `--likelihood_dataset` sets beside the run's."""

import types

import numpy as np
import pytest
from PIL import Image

from tfcq.config import Config, DataConfig
from tfcq.errors import UserError
from tfcq.evaluation import run as evaluation
from tfcq.protocol import EvaluationConfig


@pytest.mark.parametrize("skip", [False, True])
def test_its_images_meet_the_checks_of_the_runs_own(tmp_path, monkeypatch, skip):
    """One broken image: named, or left out where the run leaves out such."""
    for number in range(20):
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (8, 8)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:60])
    monkeypatch.setattr(evaluation, "LikelihoodEvaluator", lambda *arguments: None)
    measured = []

    def likelihood(self, name, evaluator, dataset, settings, suffix, row):
        measured.append(dataset)
        row[name + suffix] = {}
        return np.arange(3.0)

    monkeypatch.setattr(evaluation._Run, "_likelihood", likelihood)
    config = Config(data=DataConfig(image_size=8, skip_broken_images=skip))
    model = types.SimpleNamespace(config_of_run=config, image_shape=(8, 8, 1), likelihood_note=None)
    protocol = EvaluationConfig(likelihood_dataset=f"folder:{tmp_path}")
    one = evaluation._Run(tmp_path, model, None, protocol, None, None)
    if not skip:
        with pytest.raises(UserError, match="7.png: expected a whole image file"):
            one.measure_likelihoods(["elbo"], {}, {})
        assert not measured  # it is told before the run's own images are
        return
    one.measure_likelihoods(["elbo"], {}, {})
    assert "left out 1 that cannot be used (1 broken)" in measured[1].description


def test_paths_of_an_evaluation_are_recorded_wherever_it_was_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    given = {"likelihood_dataset": "npz:a.npz", "features": "saved_model:~/model/", "feature_weights": "weights"}
    given["dataset"] = "idx:b/"
    recorded = evaluation._protocol(given)
    assert {name: getattr(recorded, name) for name in given} == {
        "likelihood_dataset": f"npz:{tmp_path}/a.npz",
        "features": "saved_model:/home/me/model",
        "feature_weights": f"{tmp_path}/weights",
        "dataset": f"idx:{tmp_path}/b",
    }
    others = {"likelihood_dataset": "cifar10", "features": "keras:vgg16", "feature_weights": "", "cache_dir": "none"}
    recorded = evaluation._protocol(others)
    assert {name: getattr(recorded, name) for name in others} == others
