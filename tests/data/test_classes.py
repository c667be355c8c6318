"""The classes of images: they stay with their images whatever becomes of these.

Each image's top left pixel says its class.
"""

import gzip
import shutil
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_tfds_source import builder_class

from tfcq.config import DataConfig
from tfcq.config.evaluation import EvaluationConfig
from tfcq.data import load
from tfcq.data.classes import Labels
from tfcq.data.opening import open_source
from tfcq.data.transforms import Transform
from tfcq.errors import UserError
from tfcq.evaluation.image_sides import GENERATED, Sides

SIDE = 6


def images_of(classes, seed=0):
    """uint8 [N, 6, 6], noise; the top left pixel, and the top right one for flips, are 10 times the class."""
    images = np.random.RandomState(seed).randint(0, 256, (len(classes), SIDE, SIDE)).astype(np.uint8)
    images[:, 0, 0] = images[:, 0, -1] = 10 * np.asarray(classes)
    return images


def classes_in(images):
    return images[:, 0, 0, 0].astype(int) // 10


TRAIN, TEST = np.random.RandomState(1).permutation([0, 1, 1, 2, 2, 2] * 10), np.array([2, 0, 1, 1])
NAMES = ("0", "1", "2")


def write_folder(folder):
    for split, classes in {"train": TRAIN, "test": TEST}.items():
        for number, (image, one) in enumerate(zip(images_of(classes, len(classes)), classes)):
            (folder / split / str(one)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / split / str(one) / f"{number}.png")
    return f"folder:{folder}"


def write_npz(folder, **more):
    np.savez(folder / "a.npz", x_train=images_of(TRAIN), y_train=TRAIN, x_test=images_of(TEST, 5), y_test=TEST[:, None], **more)
    return f"npz:{folder / 'a.npz'}"


def write_idx(folder):
    for stem, classes in {"train": TRAIN, "t10k": TEST}.items():
        images = images_of(classes)
        header = struct.pack(">HBB", 0, 8, 3) + struct.pack(">3i", *images.shape)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = struct.pack(">HBBi", 0, 8, 1, len(classes)) + classes.astype(np.uint8).tobytes()
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    return f"idx:{folder}"


def write_tfds(folder):
    examples = {"train": (images_of(TRAIN), TRAIN), "test": (images_of(TEST), TEST)}
    builder = builder_class("toy_classes", examples, {
        "image": tfds.features.Image(shape=(SIDE, SIDE, 1)), "label": tfds.features.ClassLabel(names=["0", "1", "2"]),
    }, lambda split: [{"image": image[..., None], "label": int(one)} for image, one in zip(*examples[split])])
    builder(data_dir=str(folder)).download_and_prepare()
    return "toy_classes"


SOURCES = {"folder": write_folder, "npz": write_npz, "idx": write_idx, "tfds": write_tfds}


def opened(name, folder, **options):
    return load(DataConfig(dataset=SOURCES[name](folder), data_dir=str(folder), image_size=SIDE, **options))


@pytest.mark.parametrize("name", SOURCES)
def test_classes_are_those_of_the_images_in_every_split(name, tmp_path):
    dataset = opened(name, tmp_path)
    assert dataset.classes.names == NAMES and sum(dataset.classes.counts) == dataset.num_images("train")
    for split in ("train", "validation", "test", "train_and_validation"):
        images = dataset.images(split, range(dataset.num_images(split)))
        np.testing.assert_array_equal(dataset.classes_of(split, NAMES), classes_in(images))
    # A model's numbers are by its own names.
    np.testing.assert_array_equal(dataset.classes_of("test", ("2", "1", "0")), 2 - dataset.classes_of("test", NAMES))


@pytest.mark.parametrize("name", SOURCES)
def test_some_of_a_sources_images_have_their_own_classes(name, tmp_path):
    config = DataConfig(dataset=SOURCES[name](tmp_path), data_dir=str(tmp_path), image_size=SIDE)
    raw = open_source(config).splits["train"].select(np.arange(50)[::-1]).select(np.array([7, 0, 0, 31]))
    images = raw.take(np.arange(4), Transform(SIDE, 0, "area", 1))
    assert raw.labels().by_name().tolist() == [str(one) for one in classes_in(images)]


@pytest.mark.parametrize("name", SOURCES)
def test_both_sides_of_a_comparison_have_the_classes_of_their_images(name, tmp_path):
    place = SOURCES[name](tmp_path)
    of_test = f"{place}/test" if name == "folder" else place  # of the others the test split is taken as it is
    config = EvaluationConfig(split="test", num_samples=2, num_seeds=2)
    sides = Sides(of_test, place, DataConfig(data_dir=str(tmp_path)), None, config, split_given=True)
    for one, names in zip(sides.generated, sides.classes(), strict=True):
        assert names.tolist() == [str(one) for one in classes_in(one.images(GENERATED, range(2)))]
    for split in ("train", "validation", "test"):
        images = sides.reference.images(split, range(sides.reference.num_images(split)))
        assert sides.reference.classes.by_name(split).tolist() == [str(one) for one in classes_in(images)]


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("memory", [True, False])
def test_classes_follow_their_images_through_training_batches(tmp_path, monkeypatch, memory, balance):
    if not memory:
        monkeypatch.setattr("tfcq.data.dataset.MEMORY_LIMIT", 0)
    options = {"horizontal_flip": True, "random_translation": 0.0, "balance_classes": balance, "data_cache": str(tmp_path / "c")}
    dataset = opened("folder", tmp_path, **options)
    seen = []
    batches = dataset.train_batches(6, seed=3, start_step=2, class_names=NAMES)
    for images, classes in batches.take(12).as_numpy_iterator():
        assert classes.dtype == np.int32
        np.testing.assert_array_equal(classes, classes_in(images))
        seen += classes.tolist()
    assert set(seen) == {0, 1, 2}
    if balance:
        assert np.ptp(np.bincount(seen)) == 0
    # A worker's rows are those of the whole batch.
    whole, own = (next(iter(dataset.train_batches(6, 3, 2, rows=rows, class_names=NAMES))) for rows in (None, [1, 4]))
    for part, rows in zip(own, whole):
        np.testing.assert_array_equal(part, rows.numpy()[[1, 4]])


def test_a_run_that_has_begun_finds_them_by_the_images_content(tmp_path):
    """Images that changed their split's folder, and lost ones, do not shift the classes of others."""
    config = DataConfig(dataset=write_folder(tmp_path), image_size=SIDE)
    begun = load(config)
    moved = next((tmp_path / "test" / "0").iterdir())
    shutil.move(moved, tmp_path / "train" / "0" / "moved.png")
    next((tmp_path / "train" / "1").iterdir()).unlink()
    now = load(config, begun.manifest, accept_changed_data=True)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(now.classes_of(split, NAMES), classes_in(now.images(split, range(now.num_images(split)))))


def test_the_digits_have_theirs():
    from sklearn.datasets import load_digits

    dataset, known = load(DataConfig(dataset="digits", image_size=8)), load_digits()
    images = ((255 * known.images.astype(int) + 8) // 16).astype(np.uint8)
    target = {image.tobytes(): one for image, one in zip(images, known.target)}
    found = dataset.classes_of("test", [str(number) for number in range(10)])
    assert found.tolist() == [target[image.tobytes()] for image in dataset.images("test", range(dataset.num_images("test")))]


def test_numbers_are_in_the_order_of_their_values_and_words_of_their_text():
    assert Labels.of([10, 2, 10, 0]).names == Labels.of(["10", "2", "10", "0"]).names == ("0", "2", "10")
    assert Labels.of([10, 2, 10, 0]).numbers.tolist() == [2, 1, 2, 0]
    assert Labels.of(np.array([b"dog", b"cat"])).names == ("cat", "dog")


@pytest.mark.parametrize("naming", [("train", "train_labels"), ("x_train", "y_train"), ("images", "labels")])
def test_labels_of_an_npz_file_are_beside_their_images(tmp_path, naming):
    values = {naming[0]: images_of([2, 0, 2, 1]), naming[1]: np.array([[7], [0], [7], [3]])}
    np.savez(tmp_path / "a.npz", **values)
    (raw,) = open_source(DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}")).splits.values()
    assert raw.labels().by_name().tolist() == ["7", "0", "7", "3"]


def test_labels_may_be_texts_and_are_of_their_own_split(tmp_path):
    labels = {"y_train": np.array(["a", "b"]), "y_test": np.array([b"c"])}
    np.savez(tmp_path / "a.npz", x_train=images_of([0, 1]), x_test=images_of([2]), **labels)
    splits = open_source(DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}")).splits
    assert {split: raw.labels().by_name().tolist() for split, raw in splits.items()} == {"train": ["a", "b"], "test": ["c"]}


def test_the_class_in_a_folder_is_the_folder_right_below(tmp_path):
    for path in ("cats/1.png", "dogs/small/2.png", "cats/3.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images_of([1])[0]).save(tmp_path / path)
    (raw,) = open_source(DataConfig(dataset=f"folder:{tmp_path}")).splits.values()
    names = dict(zip(map(raw.key, range(3)), raw.labels().by_name().tolist()))
    assert names == {"cats/1.png": "cats", "dogs/small/2.png": "dogs", "cats/3.png": "cats"}


def test_files_of_labels_may_be_zipped_and_are_whole(tmp_path):
    dataset = write_idx(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    splits = open_source(DataConfig(dataset=dataset)).splits
    assert splits["test"].labels().by_name().tolist() == [str(one) for one in TEST]
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 4, 5, 6]))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: expected an IDX file of 4 labels, type 0x08 .uint8. and 1 dim"):
        splits["test"].labels()


def test_sources_without_classes_say_so_in_a_line(tmp_path):
    images = images_of(TRAIN)
    np.savez(tmp_path / "none.npz", images=images)
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(len(images), int))
    np.savez(tmp_path / "few.npz", images=images, labels=TRAIN[:-1])
    np.savez(tmp_path / "floats.npz", images=images, labels=TRAIN.astype(float))
    np.savez(tmp_path / "rows.npz", images=images, labels=np.zeros((len(images), 5), int))
    np.savez(tmp_path / "objects.npz", images=images, labels=np.array([None] * len(images)))
    (tmp_path / "loose").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "loose" / f"{number}.png")
    expected = {
        "npz:none.npz": "none.npz: expected images with a class each .* labels beside images; .*, found none",
        "npz:one.npz": "received all of 0", "npz:few.npz": r"array labels: expected .* strings \[60\], one for each .* \[59\]",
        "npz:floats.npz": r"array labels: .* received float64 \[60\]", "npz:rows.npz": r"received int64 \[60, 5\]",
        "npz:objects.npz": "without pickled",
        "folder:loose": "loose/.*.png: expected each image in a folder of its class, found this one in none",
    }
    for place, message in expected.items():
        kind, _, name = place.partition(":")
        dataset = load(DataConfig(dataset=f"{kind}:{tmp_path / name}", image_size=SIDE))  # images alone can be used
        with pytest.raises(UserError, match=message):
            dataset.classes_of("train", NAMES)
    with pytest.raises(UserError, match="dataset photo_patches: expected images with a class each"):
        load(DataConfig(dataset="photo_patches", image_size=SIDE)).classes  # noqa: B018


def test_an_image_of_a_class_that_training_never_saw_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", train=images_of(TRAIN), train_labels=TRAIN, test=images_of([3, 1]), test_labels=[3, 1])
    dataset = load(DataConfig(dataset=f"npz:{tmp_path / 'a.npz'}", image_size=SIDE))
    with pytest.raises(UserError, match="received '3', which no training image has, for test image 0"):
        dataset.classes_of("test", NAMES)
    with pytest.raises(UserError, match="classes 1, 2, received '0'"):
        dataset.classes_of("train", NAMES[1:])
    assert dataset.classes_of("test", (*NAMES, "3")).tolist() == [3, 1]  # a model may know it of other images
    assert dataset.classes.by_name("test").tolist() == ["3", "1"]
