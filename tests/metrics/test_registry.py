"""The table of metrics: what follows from it, and whether each metric's module is what its line says."""

import pathlib
import re

import numpy as np
import pytest

from tfcq.config.evaluation import EvaluationConfig
from tfcq.evaluation.activations import Activations
from tfcq.metrics import registry, tstr_cnn


class Extractor:
    def __init__(self, name):
        self.name, self.is_inception = name, name == "inception"


def activations(seed, count=40):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
    features, logits = random.normal(size=(count, 3)), random.normal(size=(count, 5))
    classes = random.permutation(count) % 3
    return Activations(features.astype(np.float32), logits.astype(np.float32), images, classes.astype(str))


@pytest.mark.parametrize("name", registry.OF_SAMPLES + registry.OF_SAMPLES_BY_CLASS)
def test_a_metric_gives_the_numbers_of_its_line(name, monkeypatch):
    monkeypatch.setattr(tstr_cnn, "_MOST", 5)  # steps
    metric = registry.load(name)
    more = {"train": activations(2)} if metric.train else {}
    more |= {option: getattr(EvaluationConfig(), option) for option in metric.options}
    measured = metric.measure(activations(0), activations(1), 0, **more)
    assert measured.values.keys() == registry.numbers_of(name).keys()
    assert measured.details.keys() <= measured.values.keys()
    assert all(isinstance(value, float) for value in measured.values.values())
    assert metric.needs in ("features", "logits", "images", "features and images")


def test_every_metric_is_of_one_kind():
    of_real = registry.LIKELIHOODS + registry.LATENT_LIKELIHOODS + registry.CLASS_PROBABILITIES + registry.OF_ENERGY
    kinds = of_real + registry.OF_SAMPLES + registry.OF_SAMPLES_BY_CLASS
    assert sorted(kinds) == sorted(registry.TABLE)


def test_every_module_with_a_metric_has_its_line():
    folder = pathlib.Path(registry.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if re.search("^METRIC = ", path.read_text(), re.MULTILINE)}
    assert modules == {line.module for line in registry.TABLE.values() if line.module}


def test_numbers_are_named_after_the_extractor_and_only_inceptions_are_called_fid():
    expected = {
        ("frechet_distance", "frechet_distance"): ("fd_pixels", "fid"),
        ("kernel_distance", "kernel_distance"): ("kd_pixels", "kid"),
        ("classifier_score", "classifier_score"): ("classifier_score_pixels", "inception_score"),
        ("prd", "prd_f8"): ("prd_f8_pixels", "prd_f8_inception"),
        ("neighbours", "recall"): ("recall_pixels", "recall_inception"),
    }
    for (metric, number), names in expected.items():
        for extractor, recorded in zip(("pixels", "inception"), names):
            assert registry.recorded_name(metric, number, Extractor(extractor)) == recorded
            assert registry.is_number(recorded, number)
    assert registry.recorded_name("ms_ssim", "ms_ssim", None) == "ms_ssim"
    assert not registry.is_number("kd_pixels", "frechet_distance")
    assert not registry.is_number("bits_per_dim_other", "bits_per_dim")


def test_units_are_of_the_table():
    assert registry.unit_of("latent_log_prob") == "nats" and registry.unit_of("fd_pixels") == ""
    assert registry.unit_of("reconstruction_error") == "squares of pixels in [0, 1]"
