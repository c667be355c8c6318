"""GLANN: codes on the sphere at their own rate, the matching against a search in NumPy, resuming to the bit."""

import time

import keras
import numpy as np
import pytest
import tiny_models as tiny

from tfcq.benchmarking import steps as timing
from tfcq.config import SYSTEMS
from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.models.autoencoders.glann import GLANN
from tfcq.networks.normalization import frozen_statistics
from tfcq.randomness import RowNoise, row_seeds

SHAPE = (4, 4, 1)
IMAGES = tiny.images(SHAPE, 8)
NUMBERS = np.arange(3, 11)


def model_of(first_stage_steps=3, **options):
    return tiny.compiled(tiny.config(4, model="glann", first_stage_steps=first_stage_steps, **options))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_codes_are_of_the_right_images_and_stay_on_the_sphere():
    model = model_of(codes_rate=4.0)
    tiny.fit(model, (IMAGES, NUMBERS), 1)
    before = model.codes.numpy().astype(np.float64)
    tiny.fit(model, (IMAGES, NUMBERS), 1)
    moved = np.abs(unit(model.codes.numpy()) - unit(before)).max(-1) > 1e-6
    assert moved[NUMBERS].all() and not moved[:3].any() and not moved[11:].any()
    model.begin_step(0)
    np.testing.assert_allclose(np.linalg.norm(model.codes.numpy(), axis=-1), 0.25, rtol=1e-5)


def test_codes_learn_as_many_times_as_fast_as_codes_rate_says():
    """Adam's first step is the learning rate for every weight; a code moves by that times codes_rate."""
    steps = {}
    for rate in (1.0, 10.0):
        model = tiny.build(tiny.config(4, model="glann", first_stage_steps=3, codes_rate=rate))
        model.attach(tiny.dataset(SHAPE), 8)
        model.compile({player.name: keras.optimizers.Adam(1e-4, epsilon=1e-12) for player in model.players()})
        before = unit(model.codes.numpy().astype(np.float64))
        tiny.fit(model, (IMAGES, NUMBERS), 1)
        steps[rate] = np.abs(unit(model.codes.numpy().astype(np.float64)) - before)[NUMBERS].mean()
    assert steps[10.0] == pytest.approx(10.0 * steps[1.0], rel=0.05)


def test_each_image_gets_the_noise_of_the_nearest_code():
    model = model_of(pool_factor=3)
    tiny.perturb(model.code_network.trainable_variables)
    model._match(epoch=2)
    pool = np.random.RandomState([model.seed, 2]).standard_normal((60, 6)).astype(np.float32)
    drawn = model.code_network(pool).numpy().astype(np.float64)
    codes = unit(model.codes.numpy().astype(np.float64))
    nearest = ((codes[:, None] - drawn[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(model.matched_noise.numpy(), pool[nearest])
    assert len(set(nearest)) > 3


@pytest.mark.parametrize("normalized", [False, True])
def test_what_the_network_draws_starts_with_the_norm_of_codes_and_so_many_noises_are_matched(normalized):
    """With the default networks. With 8 times that norm the same search finds 3 noises for 1000 codes."""
    kind = SYSTEMS["glann"]
    options = {name: kind.__dataclass_fields__[name].default for name in ("noise_dim", "imle_units", "imle_layers")}
    options |= {"latent_dim": 64, "imle_batch_normalization": normalized}
    model = tiny.build(tiny.config(4, model="glann", first_stage_steps=1, **options))
    model.attach(tiny.dataset(SHAPE, 1000), 8)
    pool = np.random.RandomState(0).standard_normal((1000, 32)).astype(np.float32)
    with frozen_statistics():
        drawn = model.code_network(pool, training=True).numpy()
    assert np.mean(drawn.astype(np.float64) ** 2) * 64 == pytest.approx(1.0, rel=0.2)
    logs = model.begin_step(1)
    distinct = len(np.unique(model.matched_noise.numpy(), axis=0))
    assert logs == {"imle/distinct_noises": distinct} and distinct > 100


def test_the_pool_is_normalised_by_its_own_statistics_which_stay():
    """As in the authors' code; otherwise a noise that serves all codes has no variance, and the next search no scale."""
    model = model_of(imle_batch_normalization=True, pool_factor=3)
    tiny.perturb(model.code_network.trainable_variables)
    before = tiny.values(model.code_network.variables)
    model._match(epoch=2)
    assert not tiny.changed(before, model.code_network.variables)
    pool = np.random.RandomState([model.seed, 2]).standard_normal((60, 6)).astype(np.float32)
    parts = [model.code_network(part, training=True).numpy().astype(np.float64) for part in np.split(pool, 3)]
    codes = unit(model.codes.numpy().astype(np.float64))
    nearest = ((codes[:, None] - np.concatenate(parts)[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(model.matched_noise.numpy(), pool[nearest])


def test_the_second_loss_is_the_distance_of_what_the_network_draws_to_codes_on_the_sphere():
    model = model_of()
    tiny.perturb(model.code_network.trainable_variables)
    model._match(epoch=0)
    terms = model.players()[1].objectives[0].loss((IMAGES, NUMBERS), None, ())
    drawn = model.code_network(model.matched_noise.numpy()[NUMBERS]).numpy().astype(np.float64)
    codes = unit(model.codes.numpy().astype(np.float64))[NUMBERS]
    np.testing.assert_allclose(terms.total, ((drawn - codes) ** 2).sum(1), rtol=1e-4)


def test_matching_is_anew_each_epoch_of_the_second_stage_and_not_before():
    model, matched = model_of(first_stage_steps=3), []
    model._match = lambda epoch: matched.append(epoch) or 10 + epoch
    rows = tiny.fit(model, (IMAGES, NUMBERS), 8)  # 20 images, 8 a step: two steps an epoch
    assert matched == [0, 1, 2]
    assert [row.get("imle/distinct_noises") for row in rows] == [None, None, None, 10.0, None, 11.0, None, 12.0]


def test_the_search_of_an_epoch_is_in_the_time_of_its_steps(monkeypatch):
    """It takes half a second, its epoch has 20 steps; a search among the timed steps is not counted twice."""
    monkeypatch.setattr(GLANN, "_match", lambda self, epoch: time.sleep(0.5) or 7)
    config = tiny.config(4, model="glann", first_stage_steps=3, training={"batch_size": 8})
    (times,) = timing.step_times({"a": config}, SHAPE, 20 * 8, rounds=2).values()
    first, second = times  # milliseconds
    assert second > 25.0 and first > 0.0


@pytest.mark.parametrize(
    ("every", "seconds", "expected"),
    [
        (0, [0.1, 0.1, 0.1], 0.1),
        (4, [4.1, 0.1, 0.1, 0.1, 4.1], 0.1 + 4.0 / 4),  # the fourth, and the eighth, begin with a search
        (2, [4.1, 0.1, 4.1], 0.1 + 4.0 / 2),
        (1, [4.1, 4.1, 4.1], 4.1),
    ],
)
def test_a_step_has_its_part_of_what_is_done_now_and_then(every, seconds, expected, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    class Searching:
        stage_starts = (0, 30)

        def long_begin_every(self, stage):
            return every if stage == 1 else 0

        def begin_step(self, step):
            assert step == 30
            clock[0] += 4.0

    assert timing._seconds_of_a_step(Searching(), 1, seconds) == pytest.approx(expected)


def test_codes_that_a_short_first_stage_leaves_random_are_said():
    """20 images in batches of 8 are an epoch of 2 steps."""
    note = model_of(first_stage_steps=1).training_note
    assert note == (
        "first_stage_steps=1: the codes of about 50% of the images stay random, as an epoch is 2 steps; expected at least that "
        "many"
    )
    assert model_of(first_stage_steps=2).training_note is None


def test_the_second_stage_trains_the_code_network_alone():
    model = model_of(first_stage_steps=2)
    parts = [model.decoder, model.code_network]
    for steps, moving in ((2, [True, False]), (2, [False, True])):
        before = [tiny.values(part.variables) for part in parts]
        codes = model.codes.numpy()
        tiny.fit(model, (IMAGES, NUMBERS), steps)
        assert [bool(tiny.changed(old, part.variables)) for old, part in zip(before, parts, strict=True)] == moving
        assert np.any(model.codes.numpy() != codes) == moving[0]


def test_resuming_within_the_second_stage_gives_the_same_weights(tmp_path):
    straight, first, second = (model_of(first_stage_steps=2) for _ in range(3))
    tiny.fit(straight, (IMAGES, NUMBERS), 6)
    tiny.fit(first, (IMAGES, NUMBERS), 3)
    Checkpoints(tmp_path, first, 2).save()
    assert Checkpoints(tmp_path, second, 2).restore() == 3
    tiny.fit(second, (IMAGES, NUMBERS), 3)
    assert not tiny.changed(tiny.values(straight.variables), second.variables)


def test_samples_are_decoded_codes_on_the_sphere_and_there_is_no_encoder():
    model, seeds = model_of(), row_seeds(5)
    latents = model.draw_latents(RowNoise(seeds)).numpy()
    np.testing.assert_allclose(np.linalg.norm(latents, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(model.sample(seeds), model.decode(latents))
    for ask in (model.encode, model.reconstruct, model.log_prob, model.latent_likelihood):
        with pytest.raises(UserError, match="it supports: decode, interpolate_noise, sample"):
            ask(IMAGES, seeds)
    assert isinstance(model.sample(seeds), np.ndarray)
