"""What a model's energy tells: its AUROC against scikit-learn's, in an evaluation, during training, and on the card."""

import json

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq.evaluation.energy import EnergyEvaluator
from tfcq.evaluation.run import evaluate
from tfcq.exporting.card import energy_told
from tfcq.randomness import row_seeds

SHAPE = (8, 8, 1)


class Bright:
    """Draws images of one grey value each, brighter by `brighter` than a seed's; its energy is the mean grey value."""

    image_shape = SHAPE

    def __init__(self, brighter):
        self._brighter = brighter

    def sample(self, seeds, temperature=1.0):
        values = seeds[:, 1] % 50 + self._brighter
        return tf.cast(tf.broadcast_to(values[:, None, None, None], (tf.shape(seeds)[0], *SHAPE)), tf.uint8)

    def energy(self, images, seeds):
        return tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3])


@pytest.mark.parametrize("brighter, batch_size", [(0, 7), (20, 7), (20, 30), (100, 30)])
def test_the_auroc_is_scikit_learns(brighter, batch_size):
    images, model = tiny.images(SHAPE, 30), Bright(brighter)
    real, samples = images.mean(axis=(1, 2, 3)), model.sample(row_seeds(30, seed=3)).numpy()[:, 0, 0, 0].astype(float)
    batches = [images[start : start + batch_size] for start in range(0, 30, batch_size)]
    entry = EnergyEvaluator(model).entry(batches, seed=3)
    expected = sklearn.metrics.roc_auc_score([0] * 30 + [1] * 30, np.concatenate([real, samples]))
    assert entry["value"] == pytest.approx(expected, abs=1e-12)
    assert (entry["num_images"], entry["num_generated"]) == (30, 30)
    assert entry["energy_real"] == pytest.approx(real.mean(), rel=1e-6)
    assert entry["energy_generated"] == pytest.approx(samples.mean(), rel=1e-6)


def test_it_is_measured_by_evaluate_and_during_training(tmp_path):
    data = {"dataset": "digits", "num_validation": 40}
    training = {"train_steps": 2, "evaluate_every": 1, "validation_images": 30, "batch_size": 8}
    run = tfcq.Run(tmp_path / "run", tiny.config(8, model="introvae", pretraining_steps=1, data=data, training=training))
    run.train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row.get("energy_auroc") for row in rows}
    assert found[0] is None and all(0.0 <= found[step]["value"] <= 1.0 for step in (1, 2))
    assert (found[2]["num_images"], found[2]["split"]) == (30, "validation")
    row = evaluate(tmp_path / "run", ["energy"], num_images=25, checkpoint="last", report=False)
    model, images = run.model("last"), run.data().images("test", range(25))
    seeds = row_seeds(25)
    energies = [model.energy(one, seeds) for one in (images, model.sample(seeds))]
    expected = sklearn.metrics.roc_auc_score([0] * 25 + [1] * 25, np.concatenate(energies))
    assert row["energy_auroc"]["value"] == pytest.approx(expected, abs=0.01)  # a sample's pixel may round the other way
    assert row["energy_auroc"]["split"] == "test"


def test_an_energy_that_is_not_finite_ends_nothing():
    class Broken(Bright):
        def energy(self, images, seeds):
            return super().energy(images, seeds) * np.float32("nan")

    assert np.isnan(EnergyEvaluator(Broken(0)).entry([tiny.images(SHAPE, 5)])["value"])


def test_the_temperature_is_the_samples():
    class Cold(Bright):
        def sample(self, seeds, temperature=1.0):
            return tf.cast(tf.cast(super().sample(seeds), tf.float32) * temperature[:, None, None, None], tf.uint8)

    warm, cold = (EnergyEvaluator(Cold(100)).entry([tiny.images(SHAPE, 9)], temperature=one) for one in (1.0, 0.0))
    assert cold["energy_generated"] == 0.0 < warm["energy_generated"] and cold["temperature"] == 0.0


def test_the_card_says_what_it_tells():
    def row(step, value):
        return {"step": step, "split": "validation", "energy_auroc": {"value": value, "num_images": 1000, "split": "validation"}}

    rows = [{"step": 5}, row(5, 0.98), row(7, 0.99), row(5, 0.48), row(9, 0.05)]
    fact = "an AUROC of {} (1,000 validation images, as many samples; 0.5 is chance)"
    blind = f"warning: `energy` does not tell single generated images from real ones: {fact.format('0.48')}"
    ways = "with --encoder_normalization=none or group, or with --final_encoder_steps=STEPS"
    assert energy_told(rows, 5, "batch") == f"{blind}; {ways}, it is the KL that training sees"
    assert energy_told(rows, 5, "group") == blind
    assert energy_told(rows, 7, "batch") == f"`energy` tells generated images from real ones with {fact.format('0.99')}"
    lower = f"warning: `energy` is lower for generated images than for real ones: {fact.format('0.05')}"
    assert energy_told(rows, 9, "none") == lower
    assert "was not measured at this step" in energy_told(rows, 6, "batch")
