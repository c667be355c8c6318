"""ImageDataset: order, resuming, flips, the two ways of holding images."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import dataset as dataset_module
from tfcq.data import load
from tfcq.data.sources import RawArray
from tfcq.errors import UserError

SIZE = 4
NUM_TRAIN = 23


def numbered(count, first=0):
    """[count, 4, 4, 1]: image k has first + k in its top left pixel, to be told from the others and from its mirror."""
    images = np.zeros((count, SIZE, SIZE, 1), np.uint8)
    images[:, 0, 0, 0] = first + np.arange(count)
    return images


@pytest.fixture(name="make")
def fixture_make(tmp_path):
    path = tmp_path / "numbered.npz"
    np.savez(path, train=numbered(NUM_TRAIN, 1), validation=numbered(5, 101), test=numbered(7, 201))
    return lambda **options: load(DataConfig(dataset=f"npz:{path}", image_size=SIZE, **options))


def draw(batches, count):
    return np.stack(list(batches.take(count).as_numpy_iterator()))


def numbers(images):
    return images[..., 0, 0, 0].astype(int) + images[..., 0, -1, 0]  # the number, mirrored or not


def test_shapes_types_and_description(make):
    dataset = make()
    assert dataset.image_shape == (SIZE, SIZE, 1)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [NUM_TRAIN, 5, 7]
    assert "train 23, validation 5 (the source's own), test 7" in dataset.description
    assert "\n" not in dataset.description and "in memory" in dataset.description
    batches = dataset.train_batches(4, seed=0)
    assert batches.element_spec == tf.TensorSpec((4, SIZE, SIZE, 1), tf.uint8)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.eval_batches("test", 3).cardinality() == 3


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_an_epoch_shows_no_image_twice_and_each_epoch_is_shuffled_anew(make, batch_size):
    steps = NUM_TRAIN // batch_size
    drawn = numbers(draw(make().train_batches(batch_size, seed=3), 3 * steps)).reshape(3, -1)
    for epoch in drawn:
        assert len(set(epoch)) == steps * batch_size and set(epoch) <= set(range(1, NUM_TRAIN + 1))
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])


def test_what_an_epoch_leaves_out_comes_in_others(make):
    drawn = numbers(draw(make().train_batches(20, seed=0), 30))
    assert set(drawn.ravel()) == set(range(1, NUM_TRAIN + 1))


@pytest.mark.parametrize("start_step", [0, 1, 3, 4, 5, 8, 9, 402])  # 4 steps an epoch
def test_resuming_gives_the_same_bits(make, start_step):
    dataset = make(horizontal_flip=True)
    whole = draw(dataset.train_batches(5, seed=1).skip(start_step), 9)
    np.testing.assert_array_equal(draw(dataset.train_batches(5, seed=1, start_step=start_step), 9), whole)


@pytest.mark.parametrize("start_step", [0, 3, 6])
def test_batches_with_indices_are_the_same_batches_and_say_which_images_they_have(make, start_step):
    dataset = make()
    pairs = list(dataset.train_batches(5, seed=1, start_step=start_step, with_indices=True).take(9).as_numpy_iterator())
    alone = draw(dataset.train_batches(5, seed=1, start_step=start_step), 9)
    np.testing.assert_array_equal([images for images, _ in pairs], alone)
    for images, indices in pairs:
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(dataset.images("train", indices), images)


def test_the_seed_decides_the_order(make):
    one, again, other = (draw(make().train_batches(5, seed=seed), 4) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_batches_do_not_depend_on_random_state_elsewhere(make):
    first = draw(make(horizontal_flip=True).train_batches(5, seed=1), 6)
    np.random.seed(5)
    tf.random.set_seed(5)
    np.testing.assert_array_equal(draw(make(horizontal_flip=True).train_batches(5, seed=1), 6), first)


def test_half_of_the_images_are_mirrored_anew_each_epoch(make):
    num_epochs = 40
    dataset = make(horizontal_flip=True)
    images = draw(dataset.train_batches(NUM_TRAIN, seed=0), num_epochs)
    mirrored = images[..., 0, -1, 0] > 0
    assert np.all(mirrored ^ (images[..., 0, 0, 0] > 0))
    by_image = np.zeros((num_epochs, NUM_TRAIN), bool)
    np.put_along_axis(by_image, numbers(images) - 1, mirrored, axis=1)
    # 920 fair coins: mean 1/2, standard deviation 0.0165; 40 a column: 0.079.
    assert abs(by_image.mean() - 0.5) < 0.07
    assert np.all(abs(by_image.mean(0) - 0.5) < 0.35) and np.all(by_image.std(0) > 0)


def test_flips_belong_to_the_image_not_to_the_place_in_the_batch(make):
    """Another batch size reaches other places in the same first epoch; the image's flip stays."""
    def flips(batch_size):
        images = draw(make(horizontal_flip=True).train_batches(batch_size, seed=2), NUM_TRAIN // batch_size)
        images = images.reshape(-1, SIZE, SIZE, 1)
        return dict(zip(numbers(images), images[:, 0, -1, 0] > 0))

    small, large = flips(2), flips(11)
    assert len(small) == len(large) == 22 and small == large


def test_images_move_by_whole_pixels_up_to_the_share_and_repeat_their_edges(tmp_path):
    random, count, side = np.random.RandomState(0), 40, 16
    images = random.randint(0, 256, (count, side, side, 3)).astype(np.uint8)
    path = tmp_path / "noise.npz"
    np.savez(path, train=images, test=images[:2], validation=images[:2])
    data = load(DataConfig(dataset=f"npz:{path}", image_size=side, random_translation=0.15))  # 2.4 pixels
    padded = np.pad(images, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="edge")
    found, num_epochs = [], 25
    for drawn, index in data.train_batches(count, seed=0, with_indices=True).take(num_epochs).unbatch().as_numpy_iterator():
        moves = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(drawn, padded[index, 3 - down : 3 - down + side, 3 - right : 3 - right + side])
        ]
        assert len(moves) == 1
        found += moves
    # Uniform between -2.4 and 2.4, rounded: whole pixels have 1 / 4.8 each, the last ones 0.9 / 4.8; 2000 draws.
    values, counts = np.unique(np.array(found), return_counts=True)
    np.testing.assert_array_equal(values, [-2, -1, 0, 1, 2])
    expected = 2 * count * num_epochs * np.array([0.9, 1, 1, 1, 0.9]) / 4.8
    assert np.sum((counts - expected) ** 2 / expected) < 18.5  # chi-square of 4 degrees of freedom, p = 0.001
    down, right = np.array(found).T
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.1
    again = draw(data.train_batches(count, seed=0, start_step=3), 1)
    np.testing.assert_array_equal(again[0], draw(data.train_batches(count, seed=0).skip(3), 1)[0])


def test_training_leaves_the_held_images_alone(make):
    dataset = make(horizontal_flip=True)
    before = dataset.images("train", range(NUM_TRAIN))
    draw(dataset.train_batches(5, seed=0), 8)
    np.testing.assert_array_equal(dataset.images("train", range(NUM_TRAIN)), before)


@pytest.mark.parametrize("batch_size, sizes", [(3, [3, 3, 1]), (7, [7]), (50, [7])])
def test_evaluation_shows_every_image_once_in_order_and_unflipped(make, batch_size, sizes):
    batches = list(make(horizontal_flip=True).eval_batches("test", batch_size).as_numpy_iterator())
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(np.concatenate(batches), numbered(7, 201))


@pytest.mark.parametrize("num_images, expected", [(None, 7), (0, 7), (1, 1), (4, 4), (7, 7), (1000, 7)])
def test_evaluation_of_the_first_images(make, num_images, expected):
    batches = list(make().eval_batches("test", 3, num_images).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate(batches), numbered(7, 201)[:expected])


def test_the_last_training_images_validate_where_it_is_asked_for(tmp_path):
    path = tmp_path / "no_validation.npz"
    np.savez(path, train=numbered(20, 1), test=numbered(3, 201))
    data = load(DataConfig(dataset=f"npz:{path}", image_size=SIZE, num_validation=4, held_out="last"))
    assert sorted(numbers(data.images("validation", range(4)))) == [17, 18, 19, 20]


def test_single_images(make):
    dataset = make()
    np.testing.assert_array_equal(dataset.images("validation", [4, 0, 4]), numbered(5, 101)[[4, 0, 4]])
    assert dataset.images("test", []).shape == (0, SIZE, SIZE, 1)
    dataset.images("test", [0])[:] = 9
    assert dataset.images("test", [0])[0, 0, 0, 0] == 201


@pytest.mark.parametrize("call, expected", [
    (lambda d: d.train_batches(24, seed=0), "batch_size=24: expected 1 to 23"),
    (lambda d: d.train_batches(0, seed=0), "batch_size=0: expected 1 to 23"),
    (lambda d: d.train_batches(4, seed=0, start_step=-1), "received 0 and -1"),
    (lambda d: d.eval_batches("test", 0), "batch_size of at least 1"),
    (lambda d: d.eval_batches("test", 4, -2), "num_images of at least 0, received 4 and -2"),
    (lambda d: d.eval_batches("tset", 4), "expected one of train, .*, received 'tset' .*mean test"),
    (lambda d: d.num_images("eval"), "received 'eval'"),
    (lambda d: d.images("test", [7]), "from 0 to 6 into the test split, received 7"),
    (lambda d: d.images("test", [-1, 2]), "received -1 to 2"),
])
def test_wrong_arguments(make, call, expected):
    with pytest.raises(UserError, match=expected):
        call(make())


def test_images_of_the_right_shape_are_not_copied(tmp_path, monkeypatch):
    images = numbered(30)
    np.savez(tmp_path / "a.npz", images=images)
    held = []
    whole = RawArray.all
    monkeypatch.setattr(RawArray, "all", lambda raw, transform: held.append((raw.images, whole(raw, transform))) or held[0][1])
    load(DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}", image_size=SIZE))
    assert held[0][0] is held[0][1]


@pytest.fixture(name="photos")
def fixture_photos(tmp_path):
    """12 PNG files of different sizes, which no single array holds."""
    random = np.random.RandomState(0)
    for number in range(12):
        pixels = random.randint(0, 256, (10 + number, 17, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    return tmp_path


@pytest.mark.parametrize("data_cache, way", [("none", "decoded as needed"), ("", "cached in ")])
def test_images_beyond_the_memory_limit_give_the_same_batches(photos, monkeypatch, data_cache, way):
    config = DataConfig(dataset=f"folder:{photos}", image_size=8, horizontal_flip=True, data_cache=data_cache)
    held = load(config)
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 12 * 8 * 8 * 3 - 1)
    lazy = load(config)
    assert "in memory" in held.description and way in lazy.description
    np.testing.assert_array_equal(draw(held.train_batches(4, 0), 6), draw(lazy.train_batches(4, 0), 6))
    for split in ("train", "validation", "test"):
        every = range(held.num_images(split))
        np.testing.assert_array_equal(held.images(split, every), lazy.images(split, every))
        np.testing.assert_array_equal(np.concatenate(list(lazy.eval_batches(split, 3).as_numpy_iterator())),
                                      held.images(split, every))


def test_arrays_beyond_the_memory_limit_give_the_same_images(tmp_path, monkeypatch):
    images = np.random.RandomState(1).randint(0, 256, (20, 9, 9)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    config = DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}", image_size=SIZE, color="rgb")
    held = load(config)
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    np.testing.assert_array_equal(load(config).images("train", range(16)), held.images("train", range(16)))


def test_an_image_that_breaks_while_training_is_still_one_line(photos, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = load(DataConfig(dataset=f"folder:{photos}", image_size=8, data_cache="none"))
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert dataset.take_error() is None
    with pytest.raises(tf.errors.OpError):
        draw(dataset.train_batches(4, seed=0), 1)
    error = dataset.take_error()
    assert isinstance(error, UserError) and "\n" not in str(error)
    assert str(error).startswith(str(photos)) and "fix or remove it" in str(error)
    assert dataset.take_error() is None  # another error that comes later has another cause


def test_batches_split_over_replicas(make):
    cpus = tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.OneDeviceStrategy("CPU:0") if len(cpus) < 2 else tf.distribute.MirroredStrategy(
        [cpu.name for cpu in cpus[:2]])
    batches = make().train_batches(4, seed=0)
    distributed = iter(strategy.experimental_distribute_dataset(batches))
    for expected in draw(batches, 3):
        parts = strategy.experimental_local_results(next(distributed))
        np.testing.assert_array_equal(np.concatenate([part.numpy() for part in parts]), expected)


def test_an_unknown_name_and_a_bare_path_are_told_what_to_write(tmp_path):
    with pytest.raises(UserError, match=r"photo_patches, idx:DIR.*received 'digit' \(did you mean digits\?\)"):
        load(DataConfig(dataset="digit"))
    with pytest.raises(UserError, match=rf"did you mean folder:{tmp_path}\?"):
        load(DataConfig(dataset=str(tmp_path)))
    with pytest.raises(UserError, match=r"received 'foldr:/a/b' .*did you mean folder:/a/b\?\)"):
        load(DataConfig(dataset="foldr:/a/b"))
    with pytest.raises(UserError, match="expected npz:PLACE, received 'npz:'"):
        load(DataConfig(dataset="npz:"))
