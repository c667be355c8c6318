"""`final_encoder_steps`: the encoder alone, its batch normalisation by fixed statistics, at the end of training."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from introspective_cases import IMAGES, SHAPE, SYSTEMS, model_of

from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.models.introspective.base import kl_of
from tfcq.randomness import row_seeds


def statistics(model):
    return [one.numpy() for one in model.non_trainable_variables if "moving" in one.path]


def ends(train_steps, final_steps):
    return {"training": {"train_steps": train_steps}, "final_encoder_steps": final_steps}


@pytest.mark.parametrize(("name", "parts"), [*((name, 1) for name in SYSTEMS), ("introvae", 2)])
def test_in_the_last_steps_the_encoder_alone_is_trained_and_no_statistics_move(name, parts, capsys):
    model = model_of(name, away=0.03, **ends(4, 2))
    model.run_eagerly = True  # tracing takes longer than all of this
    model.micro_batches = parts
    before = statistics(model)
    rows = tiny.fit(model, IMAGES, 2)
    assert "encoder alone" not in capsys.readouterr().out and "generator/loss" in rows[-1]
    fixed, samples = statistics(model), model.sample(8)
    assert all((one != other).any() for one, other in zip(before, fixed, strict=True))
    weights = {part: tiny.values(part.trainable_variables) for part in (model.encoder, model.decoder)}
    rows = tiny.fit(model, IMAGES, 2)
    assert capsys.readouterr().out.count("step 3: from here on the encoder alone is trained, by fixed statistics") == 1
    assert not any(name.startswith("generator/") for name in rows[-1]) and "encoder/kl_sampled" in rows[-1]
    for one, other in zip(fixed, statistics(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(tiny.changed(weights[model.encoder], model.encoder.trainable_variables)) == len(weights[model.encoder])
    assert not tiny.changed(weights[model.decoder], model.decoder.trainable_variables)
    np.testing.assert_array_equal(model.sample(8), samples)


def test_the_energy_of_an_image_is_then_the_kl_that_training_sees():
    model = model_of("introvae", away=0.03, **ends(2, 1))
    images = {"reconstructed": tiny.images(SHAPE, 8, 5), "sampled": tiny.images(SHAPE, 8, 6)}

    def agree():
        pixels = {name: model.unit_pixels(one) for name, one in images.items()}
        seen = {name: kl_of(*one) for name, one in model.posteriors_of_generated(pixels).items()}
        real = kl_of(*model.posterior_of(model.unit_pixels(IMAGES), training=True))
        pairs = [(one, seen[name]) for name, one in images.items()] + [(IMAGES, real)]
        return [np.allclose(model.energy(one, row_seeds(8)), kl, rtol=1e-4) for one, kl in pairs]

    tiny.fit(model, IMAGES, 1)
    assert agree() == [False] * 3
    tiny.fit(model, IMAGES, 1)
    assert agree() == [True] * 3
    # The graph of the step has no gradient of fixed statistics, which has no deterministic kernel on GPUs.
    graph = model.step_graph(iter(tf.data.Dataset.from_tensors(IMAGES).repeat()), 0)
    assert not [one for one in graph.get_operations() if one.type == "FusedBatchNormGradV3"]


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_resumed_before_or_after_ends_as_an_uninterrupted_one(stop, tmp_path):
    config = tiny.config(8, model="introvae", pretraining_steps=0, margin="5", **ends(4, 2))
    images = tiny.images((8, 8, 1))
    uninterrupted, first, second = models = [tiny.compiled(config) for _ in range(3)]
    for model in models:
        model.run_eagerly = True  # tracing takes longer than all of this
    tiny.fit(uninterrupted, images, 4)
    tiny.fit(first, images, stop)
    Checkpoints(tmp_path, first, 2).save()
    assert Checkpoints(tmp_path, second, 2).restore() == stop
    tiny.fit(second, images, 4 - stop)
    for one, other in zip(second.variables, uninterrupted.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)


@pytest.mark.parametrize(("options", "training", "said"), [
    ({"network_normalization": "group"}, {}, "expected batch normalisation in the encoder, received group"),
    ({"encoder_normalization": "none"}, {}, "expected batch normalisation in the encoder, received none"),
    ({"recompute_gradients": True}, {}, "with recompute_gradients: expected one of them"),
    ({"adversarial_weight": 0.0}, {}, "with adversarial_weight=0, a plain VAE: expected 0"),
    ({"pretraining_steps": 7, "margin": "auto"}, {"train_steps": 12}, "expected fewer than the 5 steps that train_steps=12"),
    ({}, {"train_steps": 5}, "expected fewer than the 5 steps that train_steps=5 leaves after pre-training"),
])
def test_what_cannot_be_is_refused(options, training, said):
    given = {"pretraining_steps": 0, "margin": "5", "final_encoder_steps": 5} | options
    with pytest.raises(UserError, match=f"final_encoder_steps=5.*{said}") as raised:
        tiny.config(8, model="introvae", training=training, **given)
    assert "\n" not in str(raised.value)
