"""What a training step computes: every network as often as the losses need it, and no more."""

import collections

import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.flows.coupling import AffineCoupling
from tfcq.networks.encoder import Encoder
from tfcq.networks.hierarchy import Decoder
from tfcq.networks.latents import LatentLayer


@pytest.fixture
def calls(monkeypatch):
    """Counts calls while a step is traced: {name: count}."""
    counts = collections.Counter()

    def count(owner, method, name):
        original = getattr(owner, method)

        def counted(self, *arguments, **options):
            counts[name] += 1
            return original(self, *arguments, **options)

        monkeypatch.setattr(owner, method, counted)

    count(Encoder, "call", "encoder")
    count(Decoder, "_descend", "decoder")
    count(LatentLayer, "infer", "posteriors")
    count(AffineCoupling, "_parameters", "couplings")
    return counts


def traced(model, counts):
    """Counts of the trace of one step; what came before it is forgotten."""
    discriminator = model.discriminator
    if discriminator:

        class Counted:
            trainable_variables = discriminator.trainable_variables

            def __call__(self, images):
                counts["discriminator"] += 1
                return discriminator(images)

        object.__setattr__(model, "discriminator", Counted())
    counts.clear()
    images = tiny.images((8, *model.image_shape[1:]), 8 * model.batches_per_step)
    if model.batches_per_step > 1:
        images = images.reshape(8, model.batches_per_step, *model.image_shape)
    tf.function(model.train_step, autograph=False).get_concrete_function(tf.TensorSpec(images.shape, tf.uint8))
    return dict(counts)


def compiled(**options):
    return tiny.compiled(tiny.config(8, flow_couplings=2, **options))


def test_cqf_runs_each_network_once_a_loss(calls):
    """Encoder: L_C. Decoder: from the posterior, from the prior. Couplings: image to feature, feature to image.
    Discriminator: real and generated images at once, the penalty's points, the generator's turn."""
    expected = {"encoder": 1, "decoder": 2, "posteriors": 2, "couplings": 4, "discriminator": 3}
    assert traced(compiled(), calls) == expected


def test_with_batch_normalisation_one_pass_of_the_decoder_is_for_both_kinds_of_features(calls):
    expected = {"encoder": 1, "decoder": 1, "posteriors": 2, "couplings": 4, "discriminator": 3}
    assert traced(compiled(network_normalization="batch"), calls) == expected


def test_without_a_discriminator_nothing_is_generated(calls):
    assert traced(compiled(quality_weight=0.0), calls) == {"encoder": 1, "decoder": 1, "posteriors": 2, "couplings": 2}


def test_a_gan_generates_once_for_both_players(calls):
    counts = traced(compiled(gradient_penalty=0.0, **tiny.ROWS["gan"]), calls)
    assert counts == {"decoder": 1, "discriminator": 2}


def test_each_further_turn_generates_once_more(calls):
    counts = traced(compiled(discriminator_steps=3), calls)
    assert counts == {"encoder": 1, "decoder": 4, "posteriors": 2, "couplings": 8, "discriminator": 7}


def test_flow_gan_runs_each_direction_once(calls):
    counts = traced(compiled(model="realnvp", quality_weight=1.0, flow_scales=1), calls)
    assert counts == {"couplings": 4, "discriminator": 3}
