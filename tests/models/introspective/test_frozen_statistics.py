"""`frozen_statistics_from`: the encoder's batch normalisation by fixed statistics, late in training."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from introspective_cases import IMAGES, SHAPE, SYSTEMS, model_of

from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.models.introspective.base import kl_of
from tfcq.randomness import row_seeds


def statistics(network):
    return [one.numpy() for one in network.non_trainable_variables if "moving" in one.path]


@pytest.mark.parametrize("name", SYSTEMS)
def test_from_that_step_on_the_encoders_statistics_stay_and_training_goes_on(name, capsys):
    model = model_of(name, away=0.03, frozen_statistics_from=2)
    model.run_eagerly = True  # tracing takes longer than all of this
    before = statistics(model.encoder), statistics(model.decoder)
    tiny.fit(model, IMAGES, 2)
    assert "fixed statistics" not in capsys.readouterr().out
    frozen = statistics(model.encoder)
    assert all((one != other).any() for one, other in zip(before[0], frozen, strict=True))
    weights, others = tiny.values(model.trainable_variables), statistics(model.decoder)
    tiny.fit(model, IMAGES, 2)
    assert capsys.readouterr().out.count("step 3: the encoder's batch normalisation has fixed statistics") == 1
    for one, other in zip(frozen, statistics(model.encoder), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all((one != other).any() for one, other in zip(others, statistics(model.decoder), strict=True))
    assert len(tiny.changed(weights, model.trainable_variables)) == len(weights)


def test_the_energy_of_an_image_is_then_the_kl_that_training_sees():
    model = model_of("introvae", away=0.03, frozen_statistics_from=1)
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
    gradients = [one for one in graph.get_operations() if one.type == "FusedBatchNormGradV3"]
    assert gradients and all(one.get_attr("is_training") for one in gradients)  # those of the generator


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_resumed_before_or_after_ends_as_an_uninterrupted_one(stop, tmp_path):
    config = tiny.config(8, model="introvae", pretraining_steps=0, margin="5", frozen_statistics_from=2)
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
    ({"pretraining_steps": 7, "margin": "auto"}, {}, r"expected 0, or a step after pre-training \(step 7\)"),
    ({}, {"train_steps": 5}, r"expected 0, or a step after pre-training \(step 0\) and before train_steps=5"),
])
def test_what_cannot_be_is_refused(options, training, said):
    given = {"pretraining_steps": 0, "margin": "5", "frozen_statistics_from": 5} | options
    with pytest.raises(UserError, match=f"frozen_statistics_from=5.*{said}") as raised:
        tiny.config(8, model="introvae", training=training, **given)
    assert "\n" not in str(raised.value)
