"""Near copies of training images: a copy, a mirrored copy and a fresh image worked by hand; the search against SciPy."""

import tracemalloc

import numpy as np
import pytest
import scipy.spatial.distance

from tfcq.errors import UserError
from tfcq.evaluation.activations import Activations
from tfcq.metrics import near_copies, neighbours
from tfcq.metrics.neighbours import nearest_images


def image(*values):
    return np.array(values, np.uint8).reshape(1, 2, 2, 1)


def images(*each):
    return np.concatenate([image(*one) for one in each])


TRAIN = images((0, 200, 0, 0), (0, 0, 90, 90))
# Distances to the nearest training image, the first: 1, 2, 10, 20; mirrored, 283 and more.
HELD_OUT = images((0, 201, 0, 0), (2, 200, 0, 0), (0, 200, 10, 0), (0, 200, 0, 20))
COPY, MIRRORED, FRESH = (0, 0, 90, 90), (200, 0, 0, 0), (0, 203, 4, 0)  # fresh: at distance 5 = |(3, 4)|


def test_a_copy_a_mirrored_copy_and_a_fresh_image_by_pixels():
    found, real = near_copies.nearest_in_pixels_or_mirrored(images(COPY, MIRRORED, FRESH), TRAIN, HELD_OUT)
    np.testing.assert_array_equal(found.indices, [1, 0, 0])
    np.testing.assert_array_equal(found.distances, [0, 0, 5])
    np.testing.assert_array_equal(found.mirrored, [False, True, False])
    np.testing.assert_array_equal(found.percentiles, [0, 0, 50])  # 1 and 2 are smaller than 5, of four
    np.testing.assert_array_equal(found.flagged(0.25), [True, True, False])
    np.testing.assert_array_equal(real.distances, [1, 2, 10, 20])
    np.testing.assert_array_equal(real.percentiles, [0, 25, 50, 75])
    np.testing.assert_array_equal(near_copies.ranked([found]), [0, 1, 2])


def test_features_are_compared_as_they_are():
    def flat(some):
        return some.reshape(len(some), -1).astype(np.float32)

    found, real = near_copies.nearest_in_features(flat(images(COPY, MIRRORED, FRESH)), flat(TRAIN), flat(HELD_OUT))
    # Of the mirrored copy: |(200, 0, -90, -90)| to the second, |(200, -200)| to the first.
    np.testing.assert_allclose(found.distances, [0, np.sqrt(200**2 + 2 * 90**2), 5], rtol=1e-12)
    np.testing.assert_array_equal(found.percentiles, [0, 100, 50])
    assert not found.mirrored.any() and real.distances.tolist() == [1, 2, 10, 20]


def activations(some):
    return Activations(some.reshape(len(some), -1).astype(np.float32), None, some)


def test_the_metric_is_the_fraction_that_is_flagged_in_either_space():
    more = {"train": activations(TRAIN), "near_copy_quantile": 0.25, "num_samples": 3, "num_train_images": 0}
    measured = near_copies.METRIC.measure(activations(HELD_OUT), activations(images(COPY, MIRRORED, FRESH)), 0, **more)
    details = measured.details["near_copies"]
    assert measured.values == {"near_copies": pytest.approx(2 / 3)}
    assert (details["flagged"], details["flagged_by_features"], details["flagged_by_pixels"]) == (2, 1, 2)
    assert details["real"] == 0.25  # the nearest held-out image, alone, has fewer than a quarter before it
    assert details["pixel_distance_at_quantile"] == 1.0  # at 1.5 an image has a quarter before it, and is not flagged
    assert near_copies.METRIC.num_images(num_samples=3, num_train_images=7, near_copy_quantile=0.1) == 7


@pytest.mark.parametrize("quantile, count", [(0.01, 1), (0.07, 7), (0.14, 14), (0.28, 28), (0.285, 29), (0.5, 50)])
def test_as_many_of_100_held_out_images_are_flagged_as_the_quantile_says(quantile, count):
    """100 * 0.07 is 7.000000000000001, and 7 of 100 are not fewer than that by rounding alone."""
    shares = near_copies.percentiles(np.arange(100.0), np.arange(100.0))
    assert near_copies.Nearest(np.zeros(100), np.arange(100.0), shares, np.zeros(100, bool)).flagged(quantile).sum() == count
    assert near_copies.expected_share(100, quantile) == count / 101


def test_few_held_out_images_flag_more_than_the_quantile_and_a_note_says_so():
    # Of 8 held-out images and one other the other is the nearest to a training image one time in nine.
    random = np.random.default_rng(0)
    held_out, flagged = random.normal(size=(4000, 8)), []
    for distances, one in zip(held_out, random.normal(size=4000)):
        space = near_copies.Nearest(np.zeros(1), None, near_copies.percentiles(np.array([one]), distances), np.zeros(1, bool))
        flagged.append(space.flagged(0.01)[0])
    assert near_copies.expected_share(8, 0.01) == pytest.approx(1 / 9)
    assert np.mean(flagged) == pytest.approx(1 / 9, abs=0.02)
    more = {"train": activations(TRAIN), "num_samples": 3, "num_train_images": 0}
    real, generated = activations(HELD_OUT), activations(images(COPY, MIRRORED, FRESH))
    note = "4 held-out images are too few for --near_copy_quantile=0.01: by features and by pixels each about 20 % of images"
    assert near_copies.METRIC.measure(real, generated, 0, near_copy_quantile=0.01, **more).notes[0].startswith(note)
    assert not near_copies.METRIC.measure(real, generated, 0, near_copy_quantile=0.25, **more).notes


def test_held_out_images_that_are_training_images_hide_no_copy():
    found, _ = near_copies.nearest_in_pixels_or_mirrored(images(COPY, FRESH), TRAIN, np.concatenate([TRAIN, HELD_OUT]))
    np.testing.assert_allclose(found.percentiles, [0, 100 * 4 / 6])
    assert found.flagged(0.01).tolist() == [True, False]


def test_equal_percentiles_are_ranked_by_distance_and_then_by_number():
    one, other = (
        near_copies.Nearest(np.zeros(4, int), np.array(distances), np.array(shares), np.zeros(4, bool))
        for distances, shares in (((4.0, 2.0, 8.0, 2.0), (0.0, 0.0, 9.0, 0.0)), ((5.0, 5.0, 5.0, 5.0), (50.0, 50.0, 0.0, 50.0)))
    )
    assert near_copies.ranked([one, other]).tolist() == [1, 3, 0, 2]


def test_images_in_memory_are_searched_by_blocks_as_scipy_does():
    random = np.random.default_rng(0)
    queries, bank = (random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8) for count in (1030, 1100))  # over a block each
    distances, indices = nearest_images(queries, bank, 2)
    expected = scipy.spatial.distance.cdist(*(some.reshape(len(some), -1).astype(float) for some in (queries, bank)))
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :2], rtol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, 1), distances, rtol=1e-12)
    with pytest.raises(UserError, match="bank: expected uint8"):
        nearest_images(queries, bank[:, :2])


def test_large_images_are_searched_in_as_little_memory_as_small_ones(monkeypatch):
    random = np.random.default_rng(0)
    queries, bank = (random.integers(0, 256, (count, 32, 32, 1), dtype=np.uint8) for count in (300, 310))
    found = nearest_images(queries, bank, 2)
    monkeypatch.setattr(neighbours, "_VALUES", 2**14)  # 16 images
    tracemalloc.start()
    again = nearest_images(queries, bank, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for one, other in zip(found, again):
        np.testing.assert_array_equal(one, other)
    assert peak < 10 * 2**14 * 8  # 300 images alone would be 150 times as many bytes
