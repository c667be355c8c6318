"""Every row of the CQF paper's Tables 1 to 3, tiny: it trains and resumes; one of each kind runs on two devices and answers."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import Config, DataConfig, TrainingConfig, models
from tfcq.config import SYSTEMS
from tfcq.engine.checkpoints import Checkpoints
from tfcq.exporting import signatures as exported
from tfcq.exporting.export import check_equal_answers
from tfcq.randomness import row_seeds
from tfcq.reproduction.tables import TABLES

SMALL = {"latent_size": 2, "latent_channels": 2, "flow_couplings": 1}
STEPS = 1

pytestmark = pytest.mark.slow


def system_of(flags):
    """The configuration of the system among flags of `tfcq.train`."""
    kind = SYSTEMS[flags["model"]]
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in flags.items() if name in known})


def config_of(table, row):
    """A row's Config at 6 % of its widths, for images of 8x8, or 16x16 where the flow has four scales."""
    flags = table.flags(row, {}, narrow=0.06) | SMALL
    system = system_of(flags)
    size = 16 if system.flow_scales > 3 else 8
    system = dataclasses.replace(system, latent_size=size // 2)
    training = TrainingConfig(**tiny.TRAINING, ema_decay=0.9)
    return Config(data=DataConfig(image_size=size), system=system, training=training)


ROWS = {}
for number in ("1", "2", "3a", "3b"):
    table = TABLES[number]
    for row in table.rows:
        config = config_of(table, row)
        if config not in ROWS.values():  # some rows stand in two tables
            ROWS[f"{number}-{row.name}"] = config


ALIKE = {
    "1-cq", "2-cqf_residual", "2-cqf_residual_iaf", "2-cqf_residual_iaf_large_d", "3a-scales_2_blocks_2", "3a-scales_2_blocks_4",
    "3a-scales_3_blocks_3", "3b-no_flow", "3b-scales_1_blocks_2", "3b-scales_2_blocks_2", "3b-scales_3_blocks_2",
    "3b-scales_4_blocks_1",
}  # fmt: skip
"""Rows that differ from others in nothing but how many scales and blocks the flow has, or that it has none (3a's have Table 2's
other parts), one whose posterior alone is simpler than another's, one whose discriminator alone is smaller, and that other, which
the goldens have as `cqf_residual_iaf`."""


@pytest.mark.parametrize("narrow", [1.0, 0.375, 0.2])
def test_cq_has_as_many_weights_as_cqf(narrow):
    """Shmelkov et al. 2018, Section 5.1: the generator of CQ is wider, for fair comparison."""
    table = TABLES["1"]
    systems = [system_of(table.flags(table.row(name), {}, narrow)) for name in ("cq", "cqf")]
    cq, cqf = (models.build(Config(data=DataConfig(image_size=32), system=one), (32, 32, 3)) for one in systems)
    assert cq.count_params() == pytest.approx(cqf.count_params(), rel=0.007)


def compiled(config):
    model = tiny.build(config, channels=3)
    # The epsilon keeps rounding noise, where a gradient is nearly zero, from becoming a whole step of Adamax.
    optimizers = {player.name: keras.optimizers.Adamax(2e-3, epsilon=1e-2) for player in model.players()}
    # Eager: tracing every row's graph would take a quarter of an hour.
    model.compile(optimizers, ema_decay=config.training.ema_decay, run_eagerly=True)
    return model


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in ROWS])
def test_a_row_trains_and_resumes_and_its_kind_is_replicated_and_exported(name, two_replicas, tmp_path, monkeypatch):
    # The other endpoints are the same functions of the same networks; the conformance suite exports them too.
    few = {name: exported.SIGNATURES[name] for name in ("sample", "likelihood")}
    monkeypatch.setattr(exported, "SIGNATURES", few)
    config = ROWS[name]
    model = compiled(config)
    batch = tiny.images(model.image_shape, 8)
    rows = tiny.fit(model, batch, STEPS)
    for row in rows:
        assert all(np.isfinite(value) for value in row.values()), row
    checkpoints = Checkpoints(tmp_path, model, 2)
    checkpoints.save()
    expected = tiny.fit(model, batch, 1)

    resumed = compiled(config)
    assert Checkpoints(tmp_path, resumed, 2).restore() == STEPS
    assert tiny.fit(resumed, batch, 1) == expected
    assert not tiny.changed(tiny.values(model.variables), resumed.variables)

    if name in ALIKE:  # another stands for them
        return
    assert_exported(model, tmp_path / "saved_model")
    with two_replicas.scope():
        replicated = compiled(config)
    for one, other in zip(rows, tiny.fit(replicated, batch, STEPS), strict=True):
        for term in one:
            np.testing.assert_allclose(other[term], one[term], rtol=1e-3, atol=1e-4, err_msg=term)


def assert_exported(model, folder):
    module = exported.ServingModule(model, num_importance_samples=2)
    live = module.signatures()
    module.save(str(folder), live)
    reloaded = tf.saved_model.load(str(folder)).signatures
    inputs = {"sample": {"seed": row_seeds(2), "temperature": np.ones(2, np.float32)}}
    if "likelihood" in model.abilities:
        inputs["likelihood"] = {"images": tiny.images(model.image_shape, 2), "seed": row_seeds(2)}
    for signature, tensors in inputs.items():
        tensors = {key: tf.constant(value) for key, value in tensors.items()}
        answers = [
            {key: value.numpy() for key, value in functions[signature](**tensors).items()}
            for functions in (live, reloaded)
        ]
        check_equal_answers(*answers)
