"""What the hierarchy of latents draws: noise, temperature, tags, and decoding what was drawn."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from hierarchy_cases import (
    CHANNELS,
    CONTEXT,
    HIERARCHIES,
    NETWORKS,
    TAG,
    features_of,
    make,
    record,
    row_noise,
    small_plan,
)

from tfcq.networks.latents import LatentLayer


def shaken(plan):
    """An encoder and a decoder none of whose weights is what it was made as."""
    encoder, decoder = make(plan)
    tiny.perturb([*encoder.trainable_variables, *decoder.trainable_variables], 0.05)
    return encoder, decoder


# Draws.


class OtherAt:
    """`noise` with another draw for one tag; `tags` are those that were drawn."""

    def __init__(self, noise, tag=None):
        self.tags, self._noise, self._tag = [], noise, tag

    def normal(self, row_shape, tag):
        self.tags.append(tag)
        return (self._noise.fold(1) if tag == self._tag else self._noise).normal(row_shape, tag)


@HIERARCHIES
def test_decoding_what_was_drawn_gives_the_means_of_the_draw(network, form, context, monkeypatch):
    plan = small_plan(network, form, context)
    encoder, decoder = shaken(plan)
    means, inferred = decoder.infer(encoder(features_of(plan)), row_noise(), TAG)
    assert np.all(np.isfinite(means))
    np.testing.assert_allclose(decoder.decode(decoder.join([layer.latents for layer in inferred])), means, rtol=1e-5)
    calls = record(monkeypatch, LatentLayer, "generate")
    means = decoder.generate(row_noise(), TAG, 0.7)
    latents = decoder.join([latents for _, _, latents in calls])
    assert len(calls) == len(plan.layers)
    np.testing.assert_allclose(decoder.decode(latents), means, rtol=1e-5)

    # All of the latents are heard.
    with tf.GradientTape() as tape:
        tape.watch(latents)
        outputs = tf.reduce_sum(tf.square(decoder.decode(latents)))
    assert np.all(tape.gradient(outputs, latents).numpy() != 0.0)


@NETWORKS
def test_one_layer_of_latents_is_decoded_as_it_is(network):
    decoder = shaken(small_plan(network, "vector", levels=1))[1]
    assert decoder.latent_shape == (CHANNELS,)
    noise = row_noise()
    np.testing.assert_allclose(
        decoder.decode(noise.normal((CHANNELS,), TAG)), decoder.generate(noise, TAG), rtol=1e-5, atol=1e-6
    )


@NETWORKS
def test_temperature_scales_the_deviations_of_the_priors(network, monkeypatch):
    plan = small_plan(network, "vector")
    decoder = shaken(plan)[1]
    calls = record(monkeypatch, LatentLayer, "generate")

    def draw(temperature):
        """Means; and of each layer its latents and its prior's loc and scale."""
        calls.clear()
        means = decoder.generate(row_noise(), TAG, temperature)
        priors = [layer.prior(state) for layer, (state, *_), _ in calls]
        return means, [(latents, prior.loc, prior.scale) for (_, _, latents), prior in zip(calls, priors, strict=True)]

    means, layers = draw(0.0)
    for latents, loc, _ in layers:
        np.testing.assert_array_equal(latents, np.broadcast_to(loc, latents.shape))
    np.testing.assert_allclose(decoder.decode(decoder.join([latents for latents, _, _ in layers])), means, rtol=1e-5)

    temperatures = np.float32([0.0, 0.5, 1.0, 2.0])
    means, layers = draw(temperatures)
    for number, (latents, loc, scale) in enumerate(layers):
        noise = row_noise().normal(latents.shape[1:], TAG + number).numpy()
        factors = temperatures.reshape(-1, *[1] * (noise.ndim - 1))
        np.testing.assert_allclose(latents, loc + scale * factors * noise, rtol=1e-5, atol=1e-6)
    for row, temperature in enumerate(temperatures):  # one a row is what each row gets alone
        np.testing.assert_allclose(means[row], draw(float(temperature))[0][row], rtol=1e-4, atol=1e-5)


@HIERARCHIES
def test_without_noise_every_posterior_gives_its_central_value(network, form, context):
    plan = small_plan(network, form, context)
    encoder, decoder = shaken(plan)

    class Zeros:
        def normal(self, row_shape, tag):
            return tf.zeros((4, *row_shape))

    evidence = encoder(features_of(plan))
    means, inferred = decoder.infer(evidence, None, TAG)
    expected_means, expected = decoder.infer(evidence, Zeros(), TAG)
    assert np.all(np.isfinite(means))
    np.testing.assert_allclose(means, expected_means, rtol=1e-5)
    for layer, other in zip(inferred, expected, strict=True):
        np.testing.assert_allclose(layer.latents, other.latents, rtol=1e-5)
        assert layer.latents.shape == other.latents.shape and layer.log_ratio.shape == (4,)


@NETWORKS
@pytest.mark.parametrize("way", ["infer", "generate"])
def test_each_layer_draws_with_its_own_tag(network, way, monkeypatch):
    plan = small_plan(network, "map", CONTEXT, blocks=2)
    encoder, decoder = shaken(plan)
    evidence = encoder(features_of(plan))
    calls = record(monkeypatch, LatentLayer, way)

    def draw(noise):
        calls.clear()
        decoder.infer(evidence, noise, TAG) if way == "infer" else decoder.generate(noise, TAG)
        latents = [outputs.latents if way == "infer" else outputs for _, _, outputs in calls]
        assert all(np.all(np.isfinite(values)) for values in latents)
        return latents

    noise = OtherAt(row_noise())
    usual = draw(noise)
    assert noise.tags == [TAG + number for number in range(len(plan.layers))]
    for number in range(len(plan.layers)):
        other = draw(OtherAt(row_noise(), TAG + number))
        for before, after in zip(usual[:number], other, strict=False):
            np.testing.assert_array_equal(before, after)
        assert np.all(usual[number].numpy() != other[number].numpy())
        # A layer that heard another draw reads another state.
        assert all(np.any(before.numpy() != after.numpy()) for before, after in zip(usual[number:], other[number:]))
