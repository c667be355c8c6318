"""Generated beside real images: streaming, cache, protocol, names, and directions through the whole way."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg

from tfcq import data, features
from tfcq import workdir as workdirs
from tfcq.config import DataConfig
from tfcq.config.evaluation import EvaluationConfig
from tfcq.errors import UserError
from tfcq.evaluation import distributions
from tfcq.evaluation.activations import Activations, Activator
from tfcq.evaluation.distributions import DistributionEvaluator
from tfcq.metrics import registry
from tfcq.randomness import row_seeds

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def dataset():
    return data.load(DataConfig(dataset="digits", image_size=8))


@pytest.fixture(scope="module")
def pixels():
    return features.load("pixels")


class Painter:
    """A model whose image of seed (s, i) is a real image with noise of its own: quality and coverage are known."""

    image_shape = SHAPE
    abilities = frozenset({"sample"})

    def __init__(self, images, noise=0.0):
        self._images, self._noise = tf.constant(images), noise

    def sample(self, seeds, temperature=1.0):
        index = tf.math.floormod(seeds[:, 1] * 7 + seeds[:, 0] * 13, tf.shape(self._images)[0])
        images = tf.cast(tf.gather(self._images, index), tf.float32)
        noise = tf.map_fn(
            lambda seed: tf.random.stateless_normal(SHAPE, seed), seeds, fn_output_signature=tf.TensorSpec(SHAPE, tf.float32)
        )
        return tf.cast(tf.clip_by_value(images + self._noise * noise, 0.0, 255.0), tf.uint8)


def protocol(**options):
    return EvaluationConfig(**{"features": "pixels", "num_samples": 150, "cache_dir": "none", "batch_size": 64} | options)


# Streams.


def test_real_features_are_those_of_the_first_images(dataset, pixels):
    found = Activator(pixels, SHAPE, batch_size=7).real(dataset, "test", 30, num_kept=30)
    images = dataset.images("test", range(30))
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_allclose(found.features, images.reshape(30, -1) / 255.0, rtol=1e-6)
    assert found.logits is None and len(found) == 30 and len(found.first(4)) == 4
    assert len(Activator(pixels, SHAPE).real(dataset, "test", 10**6)) == dataset.num_images("test")


@pytest.mark.parametrize("batch_size", [4, 5, 50])
def test_image_i_is_of_seed_i_whatever_the_batch(pixels, run, batch_size):
    model = workdirs.load(run)
    found = Activator(pixels, SHAPE, batch_size).generated(model, 11, seed=3, temperature=0.5)
    expected = model.sample(row_seeds(11, seed=3), np.full(11, 0.5, np.float32))
    assert np.mean(found.images != expected) < 0.01  # a pixel at the edge of a bin may round the other way
    np.testing.assert_allclose(found.features, found.images.reshape(11, -1) / 255.0, rtol=1e-6)


def test_images_are_not_held_beyond_the_limit(dataset, pixels):
    activator = Activator(pixels, SHAPE, batch_size=4)
    for found in (
        activator.real(dataset, "test", 30, num_kept=10),
        activator.generated(Painter(dataset.images("train", range(50))), 30, seed=0, num_kept=10),
    ):
        assert len(found.images) == 10 and len(found.features) == 30
        np.testing.assert_allclose(found.features[:10], found.images.reshape(10, -1) / 255.0, rtol=1e-6)


def test_two_replicas_find_the_same(dataset, pixels, two_replicas, run):
    with two_replicas.scope():
        model = workdirs.load(run)
    alone = Activator(pixels, SHAPE, 7).generated(workdirs.load(run), 17, seed=1)
    shared = Activator(pixels, SHAPE, 7, two_replicas).generated(model, 17, seed=1)
    assert np.mean(alone.images != shared.images) < 0.01
    np.testing.assert_array_equal(
        Activator(pixels, SHAPE, 7, two_replicas).real(dataset, "test", 20).features,
        Activator(pixels, SHAPE, 7).real(dataset, "test", 20).features,
    )


# The cache of real features.


class Counting:
    """An extractor that counts the images it sees, and whose every part of the key can be set."""

    name, checksum, protocol, feature_size, num_classes, is_inception = "counting", "c", {"size": 8}, 64, 2, False

    def __init__(self, **facts):
        self.seen = tf.Variable(0)
        for name, value in facts.items():
            setattr(self, name, value)

    def __call__(self, images):
        self.seen.assign_add(tf.shape(images)[0])
        flat = tf.reshape(tf.cast(images, tf.float32), (-1, 64))
        return flat, flat[:, :2]


def seen_by(dataset, folder, split="test", count=40, **facts):
    extractor = Counting(**facts)
    found = Activator(extractor, dataset.image_shape, 16, cache_dir=folder).real(dataset, split, count, num_kept=count)
    assert len(found) == len(found.logits) == len(found.images) == count
    images = dataset.images(split, range(count))
    np.testing.assert_array_equal(found.features, images.reshape(count, -1))
    np.testing.assert_array_equal(found.logits, found.features[:, :2])
    return int(extractor.seen)


def test_real_features_are_made_once(dataset, tmp_path):
    assert seen_by(dataset, tmp_path) == 40
    assert seen_by(dataset, tmp_path) == 0


@pytest.mark.parametrize(
    "change",
    [{"split": "train"}, {"count": 41}, {"name": "other"}, {"checksum": "d"}, {"protocol": {"size": 9}}],
    ids=lambda change: next(iter(change)),
)
def test_features_of_something_else_are_not_taken(dataset, tmp_path, change):
    seen_by(dataset, tmp_path)
    assert seen_by(dataset, tmp_path, **change) >= 40


def test_features_of_other_pixels_are_not_taken(dataset, tmp_path):
    seen_by(dataset, tmp_path)
    inverted = data.ImageDataset(
        "inverted", SHAPE, {"test": (lambda indices: 255 - dataset.images("test", indices), np.arange(100))}, False
    )
    seen_by(dataset, tmp_path, count=40)
    assert seen_by(inverted, tmp_path) == 40


def test_one_other_image_among_many_is_seen(tmp_path):
    """The key looks at some images after their preparation, and at the content of every one."""
    images = np.random.RandomState(0).randint(0, 256, (1000, 8, 8, 1)).astype(np.uint8)

    def seen(images):
        np.savez(tmp_path / "images.npz", train=images[:5], test=images)
        dataset = data.load(DataConfig(dataset=f"npz:{tmp_path / 'images.npz'}", image_size=8))
        return seen_by(dataset, tmp_path / "cache", count=1000)

    assert [seen(images), seen(images)] == [1000, 0]
    images[500] = 255 - images[500]
    assert 500 not in np.unique(np.linspace(0, 999, 256).astype(int))
    assert seen(images) == 1000


def test_a_broken_cache_is_made_anew(dataset, tmp_path, capsys):
    seen_by(dataset, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:500])
    assert seen_by(dataset, tmp_path) == 40
    assert "cannot be read and is rebuilt" in capsys.readouterr().out
    assert seen_by(dataset, tmp_path) == 0


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(dataset, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    told, stream = [], Activator._stream

    def listen_and_stream(*arguments):
        told.append(capsys.readouterr().out)
        return stream(*arguments)

    monkeypatch.setattr(Activator, "_stream", staticmethod(listen_and_stream))
    assert seen_by(dataset, tmp_path / "file" / "cache") == 40
    assert "cannot be written: Not a directory; continuing without a cache" in told[0]  # before the work


# Numbers.


def test_the_frechet_distance_is_of_the_reference_and_the_samples(dataset, pixels):
    painter = Painter(dataset.images("train", range(60)), noise=30.0)
    entries, _ = DistributionEvaluator(painter, dataset, pixels, protocol(seed=2)).measure(["frechet_distance"])
    sample = Activator(pixels, SHAPE).generated(painter, 150, seed=2).features.astype(np.float64)
    sets = {"value": sample, "real": dataset.images("train", range(150)).reshape(150, -1) / 255.0}
    real = dataset.images("test", range(150)).reshape(150, -1) / 255.0
    for key, other in sets.items():
        first, second = np.cov(real, rowvar=False), np.cov(other, rowvar=False)
        root = linalg.sqrtm(first @ second).real
        expected = np.sum((real.mean(0) - other.mean(0)) ** 2) + np.trace(first + second - 2 * root)
        # sqrtm of singular covariances (digits have dead pixels) is good to a few digits
        assert entries["fd_pixels"][key] == pytest.approx(expected, rel=1e-3)


def test_an_entry_carries_its_protocol(dataset, pixels):
    painter = Painter(dataset.images("train", range(60)))
    config = protocol(split="validation", seed=5, num_seeds=2, temperature=0.9, num_samples=40)
    entries, _ = DistributionEvaluator(painter, dataset, pixels, config).measure(["frechet_distance", "memorisation"])
    entry = entries["fd_pixels"]
    expected = {
        "num_real": 40,
        "num_generated": 40,
        "num_real_as_generated": 40,
        "split": "validation",
        "temperature": 0.9,
        "seeds": [5, 6],
        "extractor": "pixels",
        "checksum": "none",
    }
    assert {key: entry[key] for key in expected} == expected
    assert entry["preprocessing"] == pixels.protocol and entry["seconds"] >= 0
    assert entry["value"] == pytest.approx(np.mean(entry["per_seed"])) and len(set(entry["per_seed"])) == 2
    assert entry["standard_deviation_over_seeds"] == pytest.approx(np.std(entry["per_seed"], ddof=1))
    assert "40 images are too few for a covariance of 64 features" in entry["notes"][0]
    assert entries["memorisation_pixels"]["num_train"] == 40
    json.dumps(entries)


def test_only_inception_is_called_fid(dataset):
    class Inception(Counting):
        is_inception = True

    painter = Painter(dataset.images("train", range(60)))
    names = ["fid", "kid", "inception_score", "prd"]
    evaluator = DistributionEvaluator(painter, dataset, Inception(name="inception"), protocol(num_samples=70))
    assert set(evaluator.measure(names)[0]) == {"fid", "kid", "inception_score", "prd_f8_inception", "prd_f1_8_inception"}
    with pytest.raises(UserError, match="the Inception graph only, received the features counting; expected frechet_distance"):
        distributions.check_name("fid", Counting(), SHAPE)


def test_directions_through_the_whole_way(dataset, pixels):
    """Copies of few images: high precision, low recall. More noise: worse, step by step. Fresh real images: the floor."""

    def measured(painter):
        names = ["frechet_distance", "prd", "neighbours", "memorisation"]
        entries, _ = DistributionEvaluator(painter, dataset, pixels, protocol(num_samples=170)).measure(names)
        return {name.removesuffix("_pixels"): entry["value"] for name, entry in entries.items()}, entries

    train = dataset.images("train", range(1000))
    faithful, entries = measured(Painter(dataset.images("validation", range(170))))
    collapsed, _ = measured(Painter(train[:3]))
    noisy = [measured(Painter(train, noise))[0] for noise in (20.0, 60.0, 180.0)]
    copied, _ = measured(Painter(train[:170]))
    assert collapsed["precision"] > 0.6 and collapsed["recall"] < 0.1 and collapsed["coverage"] < 0.15
    assert collapsed["prd_f1_8"] > collapsed["prd_f8"]
    assert faithful["recall"] > 0.6 and faithful["fd"] < 1.5 * entries["fd_pixels"]["real"]
    assert faithful["fd"] < noisy[0]["fd"] < noisy[1]["fd"] < noisy[2]["fd"]
    assert noisy[0]["precision"] > noisy[1]["precision"] >= noisy[2]["precision"]
    assert copied["memorisation"] < -5.0 < -3.0 < faithful["memorisation"] < 3.0


def test_the_nearest_training_images_are_found_in_features_and_in_pixels(dataset, pixels):
    config = EvaluationConfig(num_samples=30, num_train_images=300, cache_dir="none", batch_size=7)
    copied = dataset.images("train", range(250, 280))  # of those that are beyond the first num_samples
    _, drawn = DistributionEvaluator(Painter(copied), dataset, pixels, config).measure(["kernel_distance"], draw=True)
    shown, spaces, searched = drawn["nearest"]
    assert searched == 300 and shown.shape == (16, *SHAPE) and list(spaces) == ["feature space", "pixel space"]
    for nearest in spaces.values():
        assert nearest.shape == (3 * 16, *SHAPE) and nearest.dtype == np.uint8
        np.testing.assert_array_equal(nearest[::3], shown)  # a copy's nearest is what it copies


def test_the_nearest_training_images_by_the_angle_of_their_features(dataset, pixels):
    dim = (dataset.images("train", range(40)) // 2).astype(np.uint8)  # the direction of an image, half its length
    found = {}
    for distance in ("euclidean", "cosine"):
        config = protocol(num_samples=40, neighbour_distance=distance)
        _, drawn = DistributionEvaluator(Painter(dim), dataset, pixels, config).measure(["kernel_distance"], draw=True)
        shown, spaces, _ = drawn["nearest"]
        found[distance] = next(nearest for space, nearest in spaces.items() if space.startswith("feature space"))
    train = dataset.images("train", range(40)).reshape(40, -1).astype(np.float64)
    own = shown.reshape(16, -1).astype(np.float64)
    cosines = own @ train.T / np.linalg.norm(own, axis=1)[:, None] / np.linalg.norm(train, axis=1)
    expected = train[cosines.argmax(axis=1)]
    np.testing.assert_array_equal(found["cosine"][::3].reshape(16, -1), expected)
    assert (found["euclidean"] != found["cosine"]).any()


def test_images_are_kept_where_a_metric_looks_at_them(dataset, pixels):
    config = EvaluationConfig(num_samples=40, cache_dir="none")
    evaluator = DistributionEvaluator(Painter(dataset.images("test", range(40))), dataset, pixels, config)
    for names, expected in ((["kernel_distance"], 16), (["kernel_distance", "ms_ssim"], 40), (["prd"], 16)):
        assert "nearest" not in evaluator.measure(names)[1]  # nothing is drawn: nothing is looked for
        _, drawn = evaluator.measure(names, draw=True)
        assert len(drawn["nearest"][0]) == 16
        (activations,) = map(vars, evaluator._real.values())
        assert [len(one.images) for one in activations.values() if isinstance(one, Activations)] == [expected] * 5


def test_training_and_validation_images_together_are_the_reference(dataset, pixels):
    """The distance to both is the distance to their features in a row; the floor is the test images'."""
    count = dataset.num_images("train") + dataset.num_images("validation")
    both = [dataset.images(split, range(dataset.num_images(split))) for split in ("train", "validation")]
    images = np.concatenate(both)
    evaluator = DistributionEvaluator(
        Painter(dataset.images("test", range(60))), dataset, pixels, protocol(split="train_and_validation", num_samples=2000)
    )
    entry = evaluator.measure(["frechet_distance", "memorisation"])[0]
    (kept,) = evaluator._real.values()
    assert len(kept.reference) == count == entry["fd_pixels"]["num_real"]
    np.testing.assert_allclose(kept.reference.features, images.reshape(count, -1) / 255.0, rtol=1e-6)
    np.testing.assert_allclose(kept.train.features, both[0].reshape(len(both[0]), -1) / 255.0, rtol=1e-6)
    assert entry["fd_pixels"]["split"] == "train_and_validation" and entry["memorisation_pixels"]["split"] == "test"


def test_another_data_set_is_the_reference(dataset, pixels):
    images = dataset.images("test", range(100))
    other = 255 - images  # the samples are the other set's images: their distance to it is small, to the run's large
    splits = {split: (lambda positions: other[positions], np.arange(100)) for split in ("train", "validation", "test")}
    reference = data.ImageDataset("other", SHAPE, splits, False)

    def distance(**options):
        painter = Painter(other)
        evaluator = DistributionEvaluator(painter, dataset, pixels, protocol(num_samples=100), **options)
        entries, drawn = evaluator.measure(["frechet_distance"], draw=True)
        return entries["fd_pixels"], drawn["nearest"][1]["pixel space"]

    own, nearest = distance()
    other_distance, nearest_too = distance(reference=reference)
    assert other_distance["value"] < 1e-3 * own["value"] and other_distance["real"] < 1e-3 * own["value"]
    np.testing.assert_array_equal(nearest, nearest_too)  # among the run's training images


def test_a_metric_looks_at_its_own_number_of_images(dataset, pixels, monkeypatch):
    """What is kept for another metric besides changes no number."""
    wanted, load = {"ms_ssim": 20, "sliced_wasserstein": 50}, registry.load
    monkeypatch.setattr(registry, "load", lambda name: dataclasses.replace(load(name), num_images=lambda **_: wanted[name]))
    evaluator = DistributionEvaluator(Painter(dataset.images("test", range(60))), dataset, pixels, protocol(num_samples=60))
    alone, both = (evaluator.measure(names)[0] for names in (["ms_ssim"], ["ms_ssim", "sliced_wasserstein"]))
    assert {name: entry["num_compared"] for name, entry in both.items()} == wanted
    assert alone["ms_ssim"] | {"seconds": 0} == both["ms_ssim"] | {"seconds": 0}
    (activations,) = (vars(kept) for number, kept in evaluator._real.items() if number == 50)
    assert [len(one.images) for one in activations.values() if isinstance(one, Activations)] == [50] * 5


@pytest.mark.parametrize(
    "name, side, message",
    [("ms_ssim_pggan", 8, "divisible by 16, received 8 x 8"), ("ms_ssim", 6, "7 x 7"), ("sliced_wasserstein", 6, "7 x 7")],
)
def test_a_size_that_cannot_be_measured_is_refused_before_anything_is_drawn(pixels, name, side, message):
    with pytest.raises(UserError, match=message):
        distributions.check_name(name, pixels, (side, side, 1))


def test_ms_ssim_is_over_as_many_pairs_as_asked(dataset, pixels):
    config = EvaluationConfig(num_samples=30, num_pairs=11, cache_dir="none")
    entries, _ = DistributionEvaluator(Painter(dataset.images("test", range(30))), dataset, pixels, config).measure(["ms_ssim"])
    assert entries["ms_ssim"]["num_pairs"] == 11


def test_activations_know_their_number():
    one = Activations(np.zeros((5, 2), np.float32), None, np.zeros((3, *SHAPE), np.uint8))
    assert len(one) == 5  # of the features, not of the images that are kept
