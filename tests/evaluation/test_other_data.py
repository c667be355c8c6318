"""The data set that `--likelihood_dataset` sets beside the run's."""

import types

import numpy as np
import pytest
from PIL import Image

from tfcq.config import Config, DataConfig
from tfcq.config.evaluation import EvaluationConfig, protocol
from tfcq.errors import UserError
from tfcq.evaluation import run as evaluation


@pytest.fixture
def run_beside(tmp_path, monkeypatch):
    """Function from the run's `DataConfig` and --likelihood_dataset to a `_Run` and the list of the data sets it measures."""
    monkeypatch.setattr(evaluation, "LikelihoodEvaluator", lambda *arguments: None)
    measured = []

    def likelihood(self, name, evaluator, dataset, settings, suffix, row):
        measured.append(dataset)
        row[name + suffix] = {}
        return np.arange(3.0) + len(suffix)

    monkeypatch.setattr(evaluation._Run, "_likelihood", likelihood)

    def run_beside(data, dataset):
        model = types.SimpleNamespace(config_of_run=Config(data=data), image_shape=(8, 8, 1), likelihood_note=None)
        return evaluation._Run(tmp_path, model, None, EvaluationConfig(likelihood_dataset=dataset), None, None), measured

    return run_beside


@pytest.mark.parametrize("skip", [False, True])
def test_its_images_meet_the_checks_of_the_runs_own(tmp_path, run_beside, skip):
    """One broken image: named, or left out where the run leaves out such."""
    for number in range(20):
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (8, 8)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:60])
    one, measured = run_beside(DataConfig(image_size=8, skip_broken_images=skip), f"folder:{tmp_path}")
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
    recorded = protocol(given)
    assert {name: getattr(recorded, name) for name in given} == {
        "likelihood_dataset": f"npz:{tmp_path}/a.npz",
        "features": "saved_model:/home/me/model",
        "feature_weights": f"{tmp_path}/weights",
        "dataset": f"idx:{tmp_path}/b",
    }
    others = {"likelihood_dataset": "cifar10", "features": "keras:vgg16", "feature_weights": "", "cache_dir": "none"}
    recorded = protocol(others)
    assert {name: getattr(recorded, name) for name in others} == others


@pytest.mark.parametrize(
    ("dataset", "names"), [("digits", ["digits", "digits (other)"]), ("photo_patches", ["digits", "photo_patches"])]
)
def test_the_report_draws_both_though_it_is_the_runs_own(run_beside, dataset, names):
    drawn = {}
    run_beside(DataConfig(dataset="digits", image_size=8), dataset)[0].measure_likelihoods(["elbo"], {}, drawn)
    assert list(drawn["likelihoods"]["elbo"]) == names
    assert [values.tolist() for values in drawn["likelihoods"]["elbo"].values()] == [[0.0, 1.0, 2.0], [6.0, 7.0, 8.0]]
