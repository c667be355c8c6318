"""Small hierarchies of latents, and what they are tried with."""

import pytest
import tensorflow as tf

from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.networks.encoder import Encoder
from tfcq.networks.hierarchy import Decoder
from tfcq.networks.plan import Plan
from tfcq.randomness import RowNoise, row_seeds

CHANNELS = 3  # of each layer of latents
CONTEXT = 4  # channels of the flows' context
TAG = 5
NETWORKS = pytest.mark.parametrize("network", ["standard", "plain", "residual"])
HIERARCHIES = pytest.mark.parametrize(
    ("network", "form", "context"),
    [("plain", "map", CONTEXT), ("plain", "vector", 0), ("residual", "map", 0), ("residual", "vector", CONTEXT)],
)


def make_flow(seed, side, width, gain):
    return InverseAutoregressiveFlow(width, 2, 1 if side == 1 else 3, seed, gain)


def make_plan(size=8, halvings=2, channels=1, width=4, form="map", context=0, **options):
    return Plan(
        (size, size, channels),
        halvings,
        width,
        **{"latent_channels": CHANNELS, "latent_form": form, "context_channels": context} | options,
    )


def make(plan, seed=0):
    """An encoder and a decoder, as a CQF has them."""
    return Encoder(plan, seed + 1), Decoder(plan, make_flow, seed)


def features_of(plan, count=4, scale=1.0):
    return scale * tf.random.stateless_normal((count, *plan.image_shape), (3, 1))


def row_noise(count=4):
    return RowNoise(row_seeds(count, 7))


def record(monkeypatch, kind, method):
    """A list that fills with (the object, its positional arguments, what it returns) at each call of `kind.method`."""
    calls, original = [], getattr(kind, method)

    def recording(self, *arguments, **options):
        calls.append((self, arguments, original(self, *arguments, **options)))
        return calls[-1][2]

    monkeypatch.setattr(kind, method, recording)
    return calls


def small_plan(network, form, context=0, **options):
    """Two resolutions with latents, 2x2 and 4x4, two layers each if they are maps without flows."""
    size, halvings = (4, 1) if network == "residual" else (8, 2)
    options = {"blocks": 2 if form == "map" and not context else 1} | options
    return make_plan(size, halvings, form=form, context=context, network=network, **options)
