"""TFDS data sets, offline: small ones that are prepared here, and those that are not."""

import os
import shutil
import socket
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from path_names import NASTY

from tfcq.config import DataConfig
from tfcq.data import dataset as dataset_module
from tfcq.data import load
from tfcq.data.tfds import TFRecordFiles, record_offsets, roles
from tfcq.errors import UserError

COUNTS = {"train": 30, "test": 7}


def pixels(split, number, channels=3):
    return np.random.RandomState(100 * len(split) + number).randint(0, 256, (9, 8, channels)).astype(np.uint8)


def builder_class(name, splits, features, examples):
    """A TFDS builder.

    Args:
        name: snake_case, of the data set.
        splits: names of its splits.
        features: {key: TFDS feature}.
        examples: split -> list of {key: value}.
    """
    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in splits}

    def generate_examples(self, split):
        yield from enumerate(examples(split))

    # Not registered: what is prepared is then found by its files, as a user's own data set is.
    with tfds.core.registered.skip_registration():
        return type(name, (tfds.core.GeneratorBasedBuilder,), {
            "__doc__": "Noise.", "name": name, "VERSION": tfds.core.Version("1.0.0"), "_info": info,
            "_split_generators": split_generators, "_generate_examples": generate_examples})


ToyPixels = builder_class("toy_pixels", COUNTS, {
    "image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=2),
    "mask": tfds.features.Image(shape=(8, 8, 1)),
}, lambda split: [{"image": pixels(split, number), "label": number % 2, "mask": np.zeros((8, 8, 1), np.uint8)}
                  for number in range(COUNTS[split])])


def noise_builder(name, counts):
    """A builder class whose split `split` has counts[split] images, `pixels(split, number)[:8]`."""
    return builder_class(name, counts, {"image": tfds.features.Image(shape=(8, 8, 3))},
                         lambda split: [{"image": pixels(split, number)[:8]} for number in range(counts[split])])


def one_image_builder(name, splits, **features):
    """A builder class with five equal examples of the given {key: (feature, value)}."""
    return builder_class(name, splits, {key: feature for key, (feature, _) in features.items()},
                         lambda split: [{key: value for key, (_, value) in features.items()}] * 5)


def prepare(make, folder, file_format="tfrecord", shards=1):
    builder = make(data_dir=str(folder), file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))


@pytest.fixture(scope="module", name="data_dir")
def fixture_data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(ToyPixels, folder, shards=3)
    return str(folder)


def config(data_dir, **options):
    return DataConfig(**{"dataset": "toy_pixels", "data_dir": data_dir, "image_size": 8, "center_crop": 8} | options)


def test_the_images_are_those_of_tfds(data_dir):
    dataset = load(config(data_dir))
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [27, 3, 7]
    assert dataset.image_shape == (8, 8, 3)
    theirs = tfds.load("toy_pixels", split="test", data_dir=data_dir, download=False).as_numpy_iterator()
    np.testing.assert_array_equal(dataset.images("test", range(7)), [example["image"][:8] for example in theirs])
    every = [dataset.images(split, range(dataset.num_images(split))) for split in ("train", "validation")]
    assert {image.tobytes() for image in np.concatenate(every)} == {pixels("train", number)[:8].tobytes()
                                                                    for number in range(30)}


@pytest.mark.parametrize("data_cache, way", [("none", "decoded as needed"), ("", "cached in ")])
def test_too_large_for_memory_is_read_at_random_with_the_same_batches(data_dir, monkeypatch, data_cache, way):
    held = load(config(data_dir, horizontal_flip=True))
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    lazy = load(config(data_dir, horizontal_flip=True, data_cache=data_cache))
    assert way in lazy.description
    whole = list(held.train_batches(5, seed=4).take(13).as_numpy_iterator())
    for start_step in (0, 4, 7):
        resumed = lazy.train_batches(5, seed=4, start_step=start_step).take(13 - start_step).as_numpy_iterator()
        np.testing.assert_array_equal(list(resumed), whole[start_step:])


def test_array_record_files(tmp_path, data_dir):
    prepare(ToyPixels, tmp_path, "array_record")
    dataset, other = load(config(str(tmp_path))), load(config(data_dir))
    np.testing.assert_array_equal(dataset.images("test", range(7)), other.images("test", range(7)))


def test_declared_channels_hold_and_a_lone_image_may_have_any_name(tmp_path):
    scan = (tfds.features.Image(shape=(8, 8, 1)), pixels("a", 1, 1)[:8])
    prepare(one_image_builder("toy_grey", ["train"], scan=scan), tmp_path)
    dataset = load(config(str(tmp_path), dataset="toy_grey"))
    assert dataset.image_shape == (8, 8, 1) and dataset.num_images("test") == 1
    np.testing.assert_array_equal(dataset.images("test", [0])[0], pixels("a", 1, 1)[:8])


def test_a_grey_file_in_a_colour_data_set_is_converted_as_tfds_does(tmp_path):
    grey_file = tmp_path / "grey.png"
    grey_file.write_bytes(tf.io.encode_png(pixels("a", 1, 1)[:8]).numpy())
    prepare(one_image_builder("toy_mixed", ["train"], image=(tfds.features.Image(shape=(8, 8, 3)), str(grey_file))),
            tmp_path)
    assert load(config(str(tmp_path), dataset="toy_mixed")).image_shape == (8, 8, 3)
    raw = dataset_module.open_source(config(str(tmp_path), dataset="toy_mixed")).splits["train"]
    assert raw.format_and_shape(0) == ("PNG", (8, 8, 3))


@pytest.mark.parametrize("splits, features, expected", [
    (["test"], {"image": (tfds.features.Image(shape=(8, 8, 3)), np.zeros((8, 8, 3), np.uint8))},
     r"train_split: expected a split of toy_unfit \(test\), received 'train'"),
    (["train"], {"text": (tfds.features.Text(), "words"), "n": (tfds.features.Scalar(np.int64), 1)},
     "expected a feature `image`, or one other image, received n, text"),
    (["train"], {"image": (tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16), np.zeros((8, 8, 1), np.uint16))},
     "expected uint8 images in feature 'image', received uint16"),
    (["train"], {"image": (tfds.features.Image(shape=(8, 8, 4)), np.zeros((8, 8, 4), np.uint8))},
     "expected grey or RGB images in feature 'image', received 4 channels"),
], ids=["no-train", "no-image", "16-bit", "alpha"])
def test_unfit_data_sets(tmp_path, splits, features, expected):
    prepare(one_image_builder("toy_unfit", splits, **features), tmp_path)
    with pytest.raises(UserError, match=expected):
        load(config(str(tmp_path), dataset="toy_unfit"))


def all_bytes(dataset, *splits):
    """The images of some splits of a data set, as a set of bytes."""
    return {image.tobytes() for split in splits for image in dataset.images(split, range(dataset.num_images(split)))}


def made_bytes(split, count):
    """What `noise_builder` put into a split, as a set of bytes."""
    return {pixels(split, number)[:8].tobytes() for number in range(count)}


def test_a_named_train_split_is_trained_on_and_the_own_train_is_not_used(tmp_path):
    prepare(noise_builder("toy_unlabelled", {"train": 12, "test": 7, "unlabelled": 40}), tmp_path)
    named = config(str(tmp_path), dataset="toy_unlabelled", train_split="unlabelled", num_validation=5)
    dataset = load(named)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [35, 5, 7]
    assert all_bytes(dataset, "train", "validation") == made_bytes("unlabelled", 40)
    assert all_bytes(dataset, "test") == made_bytes("test", 7)
    assert "test 7 (the source's own)" in dataset.description
    assert dataset.description.endswith("; train is its split unlabelled")
    batch = next(dataset.train_batches(35, seed=0).as_numpy_iterator())
    assert {image.tobytes() for image in batch} == all_bytes(dataset, "train")
    plain = load(config(str(tmp_path), dataset="toy_unlabelled"))
    assert all_bytes(plain, "train", "validation") == made_bytes("train", 12)
    assert "its split" not in plain.description


def test_a_named_test_split_is_tested_on_and_validation_is_then_held_out_of_train(tmp_path):
    prepare(noise_builder("toy_scenes", {"train": 40, "validation": 6}), tmp_path)
    dataset = load(config(str(tmp_path), dataset="toy_scenes", test_split="validation", num_validation=5))
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [35, 5, 6]
    assert all_bytes(dataset, "test") == made_bytes("validation", 6)
    assert all_bytes(dataset, "train", "validation") == made_bytes("train", 40)
    assert dataset.description.endswith("; test is its split validation")
    # Without the name, test is a tenth of train: LSUN's 300 images then validate.
    plain = load(config(str(tmp_path), dataset="toy_scenes"))
    assert [plain.num_images(split) for split in ("train", "validation", "test")] == [36, 6, 4]
    assert all_bytes(plain, "validation") == made_bytes("validation", 6)


# The splits of the papers' data sets, as the builders of tensorflow-datasets 4.9.10 make them.
@pytest.mark.parametrize("available, options, expected", [
    (["train", "test"], {}, {"train": "train", "test": "test"}),
    (["train", "test", "unlabelled"], {"train_split": "unlabelled"}, {"train": "unlabelled", "test": "test"}),
    (["train", "validation", "test"], {}, {"train": "train", "validation": "validation", "test": "test"}),
    (["train", "validation"], {"test_split": "validation"}, {"train": "train", "test": "validation"}),
    (["train", "validation"], {}, {"train": "train", "validation": "validation"}),
    (["train", "validation", "test"], {"train_split": "validation"}, {"train": "validation", "test": "test"}),
    (["train", "extra"], {"train_split": "extra", "test_split": "train"}, {"train": "extra", "test": "train"}),
    (["train"], {}, {"train": "train"}),
], ids=["cifar10", "stl10", "celeb_a", "lsun", "lsun-default", "train-on-validation", "test-on-train", "train-alone"])
def test_roles_of_splits(available, options, expected):
    assert roles(available, DataConfig(**options)) == expected


@pytest.mark.parametrize("options, expected", [
    ({"train_split": "unlabeled"}, "train_split: expected a split of stl10 (train, test, unlabelled), received "
                                   "'unlabeled' (did you mean unlabelled?)"),
    ({"test_split": "validation"}, "test_split: expected a split of stl10 (train, test, unlabelled), received "
                                   "'validation'"),
    ({"train_split": ""}, "train_split: expected a split of stl10 (train, test, unlabelled), received ''"),
    ({"train_split": "train[:10%]"}, "train_split: expected a split of stl10 (train, test, unlabelled), received "
                                     "'train[:10%]' (did you mean train?)"),
])
def test_a_missing_split_lists_those_there_are(options, expected):
    with pytest.raises(UserError) as caught:
        roles(["train", "test", "unlabelled"], DataConfig(dataset="stl10", **options))
    assert str(caught.value) == expected


def test_one_split_cannot_be_two():
    for options in ({"train_split": "test"}, {"test_split": "train"}, {"train_split": "all", "test_split": "all"}):
        with pytest.raises(UserError, match="expected two different splits, received '(test|train|all)' for both"):
            DataConfig(**options)


@pytest.mark.parametrize("dataset", ["digits", "photo_patches", "folder:somewhere", "npz:a.npz", "idx:somewhere"])
@pytest.mark.parametrize("option, expected, other", [("train_split", "train", "extra"),
                                                   ("test_split", "test", "validation")])
def test_other_sources_have_no_splits_to_name(dataset, option, expected, other):
    with pytest.raises(UserError, match=f"{option}: expected {expected} with dataset={dataset}.*received '{other}'"):
        load(DataConfig(dataset=dataset, **{option: other}))


def test_an_unprepared_data_set_fails_at_once_without_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"cifar10: expected it prepared in {tmp_path}.*`tfds build cifar10 --data_"):
        load(config(str(tmp_path), dataset="cifar10"))
    assert time.monotonic() - start < 60
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_place_of_any_name(tmp_path, file_format, monkeypatch):
    prepare(ToyPixels, tmp_path / "plain", file_format)
    expected = load(config(str(tmp_path / "plain"), image_size=8)).images("train", range(5))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("[a]", NASTY):
        shutil.copytree(tmp_path / "plain", tmp_path / name)
        for place in (str(tmp_path / name), f"~/{name}/"):
            np.testing.assert_array_equal(load(config(place, image_size=8)).images("train", range(5)), expected)
    if file_format == "tfrecord":
        path = next((tmp_path / "[a]").rglob("*train*"))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError) as raised:
            load(config(str(tmp_path / "[a]"), image_size=8))
        assert str(raised.value).startswith(f"{path}: expected whole TFRecords")


@pytest.mark.parametrize("name, shape", [
    ("cifar10", (32, 32, 3)), ("stl10", (96, 96, 3)), ("celeb_a", (218, 178, 3)), ("lsun/bedroom", (None, None, 3)),
    ("lsun/church_outdoor", (None, None, 3)), ("downsampled_imagenet/32x32", (None, None, 3)),
    ("downsampled_imagenet/64x64", (None, None, 3)),
])
def test_the_papers_data_sets_are_known_to_tfds_by_these_names(tmp_path, name, shape):
    with pytest.raises(UserError, match=f"dataset={name}: expected it prepared in {tmp_path}.*`tfds build {name} --d"):
        load(config(str(tmp_path), dataset=name))
    assert tfds.builder(name, data_dir=str(tmp_path)).info.features["image"].shape == shape


@pytest.mark.parametrize("name, expected", [
    ("cifra10", r"folder:DIR, npz:FILE or the name of a TFDS data set, received 'cifra10' \(did you mean cifar10\?\)"),
    ("cifar10:9.9.9", "dataset=cifar10:9.9.9: TFDS cannot make it .*9.9.9"),
])
def test_unknown_names_and_versions(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected) as caught:
        load(config(str(tmp_path), dataset=name))
    assert "\n" not in str(caught.value)


def test_a_missing_or_cut_record_file_is_named(tmp_path):
    prepare(ToyPixels, tmp_path)
    path, = tmp_path.glob("toy_pixels/1.0.0/*test*")
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-2000], whole[:len(whole) // 2], whole + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{path.name}: expected (whole TFRecords|7 records)"):
            load(config(str(tmp_path)))
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}: expected a local TFRecord file"):
        load(config(str(tmp_path)))


@pytest.mark.parametrize("limit", [0, 2**32])
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_broken_images_in_record_files_are_named_or_left_out(tmp_path, monkeypatch, limit, file_format):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    whole = tf.io.encode_png(pixels("a", 1)[:8]).numpy()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    make = builder_class("toy_broken", {"train": 30}, {"image": tfds.features.Image(shape=(8, 8, 3))}, lambda split: [
        {"image": str(tmp_path / "cut.png") if number in (4, 20) else pixels(split, number)[:8]} for number in range(30)])
    prepare(make, tmp_path, file_format)
    with pytest.raises(UserError, match="toy_broken train, image [0-9]+: expected a whole.* 1 more cannot be used: toy_broken"):
        load(config(str(tmp_path), dataset="toy_broken"))
    dataset = load(config(str(tmp_path), dataset="toy_broken", skip_broken_images=True))
    assert "left out 2 that cannot be used (2 broken)" in dataset.description
    kept = all_bytes(dataset, "train", "validation", "test")
    assert kept == {pixels("train", number)[:8].tobytes() for number in range(30) if number not in (4, 20)}


def test_files_without_random_access_are_refused(data_dir, monkeypatch):
    class Formats:
        TFRECORD = ARRAY_RECORD = "something else"

    monkeypatch.setattr(tfds.core, "FileFormat", Formats)
    with pytest.raises(UserError, match="expected files of format tfrecord or array_record, received tfrecord"):
        load(config(data_dir))


def test_tfrecord_files_are_those_that_tensorflow_writes(tmp_path):
    records = [[b"a", b"", b"x" * 5000], [], [b"last"]]
    paths = [str(tmp_path / f"{number}.tfrecord") for number in range(3)]
    for path, contents in zip(paths, records):
        with tf.io.TFRecordWriter(path) as writer:
            for content in contents:
                writer.write(content)
    files = TFRecordFiles(paths, [3, 0, 1])
    assert [files[index] for index in (3, 2, 1, 0)] == [b"last", b"x" * 5000, b"", b"a"] and len(files) == 4
    assert record_offsets(paths[0]).tolist() == [0, 17, 33]
    with pytest.raises(UserError, match="0.tfrecord: expected 2 records, received 3"):
        TFRecordFiles(paths, [2, 0, 1])
