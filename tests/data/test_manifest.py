"""Splits of a run are facts of it: images that come, go, move or change afterwards move no other image."""

import gzip
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import dataset as dataset_module
from tfcq.data import load
from tfcq.data.manifest import Entry, Manifest, entries
from tfcq.data.sources import RawArray, Source
from tfcq.data.tfds import Records
from tfcq.errors import UserError

SPLITS = ("train", "validation", "test")


def pixels(seed):
    return np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)


def settings(place, kind="folder"):
    return DataConfig(dataset=f"{kind}:{place}", image_size=8)


def contents(dataset):
    """The bytes of every split's images, in their order."""
    return {split: dataset.images(split, range(dataset.num_images(split))).tobytes() for split in SPLITS}


def message_of(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    for number in range(40):
        write(tmp_path / "images" / "ab"[number % 2] / f"{number:02}.png", number)
    return tmp_path / "images"


def test_a_run_without_validation_images_finds_its_images_again(folder):
    config = DataConfig(dataset=f"folder:{folder}", image_size=8, num_validation="none")
    first = load(config)
    assert {split: first.num_images(split) for split in SPLITS} == {"train": 36, "validation": 0, "test": 4}
    manifest = Manifest.from_bytes(first.manifest.to_bytes())
    assert contents(load(config, manifest)) == contents(first) and manifest == first.manifest
    assert message_of(first.require_images, "validation") == (
        "split: expected train or test, received validation, of which the run has no images (num_validation=none)"
    )
    (folder / "a" / "00.png").rename(folder / "b" / "moved.png")
    assert contents(load(config, manifest)) == contents(first)


def add(folder):
    write(folder / "a" / "00-new.png", 100)


def rename(folder):
    for number, path in enumerate(sorted((folder / "b").iterdir())):
        path.rename(path.with_name(f"z{number}.png"))


def move_to_another_class(folder):
    (folder / "a" / "02.png").rename(folder / "b" / "02.png")


def swap_names(folder):
    (folder / "a" / "02.png").rename(folder / "keep")
    (folder / "b" / "03.png").rename(folder / "a" / "02.png")
    (folder / "keep").rename(folder / "b" / "03.png")


def copy_twice(folder):
    shutil.copy(folder / "a" / "02.png", folder / "a" / "02-copy.png")


def add_a_broken_one(folder):
    (folder / "a" / "001.png").write_bytes(b"no image")


def rewrite(folder):
    write(folder / "a" / "04.png", 200)


def touch(folder):
    os.utime(folder / "a" / "04.png")


def remove(folder):
    (folder / "b" / "05.png").unlink()


@pytest.mark.parametrize(
    "change, told",
    [
        (touch, ""),
        (add, "1 added (train/a/00-new.png); those of the run are used"),
        (add_a_broken_one, "1 added (train/a/001.png); those of the run are used"),
        (copy_twice, "1 added (train/a/02-copy.png); those of the run are used"),
        (rename, "20 renamed or moved"),
        (move_to_another_class, "1 renamed or moved (train/a/02.png)"),
        (swap_names, "2 renamed or moved"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_change_that_leaves_the_runs_images_changes_no_split(folder, change, told, in_memory, monkeypatch, capsys):
    begun = load(settings(folder))
    before = contents(begun)
    change(folder)
    if not in_memory:
        monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    after = load(settings(folder), begun.manifest)
    assert contents(after) == before
    assert after.manifest.fingerprints() == begun.manifest.fingerprints()
    said = capsys.readouterr().out
    assert told in said if told else "not what it was when the run began" not in said


@pytest.mark.parametrize(
    "change, told", [(remove, "1 gone (train/b/05.png of "), (rewrite, "1 changed (train/a/04.png of ")]
)
def test_images_that_are_gone_or_changed_are_named_and_accepted_only_when_asked(folder, change, told):
    begun = load(settings(folder))
    change(folder)
    message = message_of(load, settings(folder), begun.manifest)
    assert told in message and "--accept_changed_data" in message
    after = load(settings(folder), begun.manifest, True)
    for split in SPLITS:
        kept = [entry for entry in begun.manifest.splits[split] if change is rewrite or entry.key != "b/05.png"]
        assert after.num_images(split) == len(kept)
        assert [entry.key for entry in after.manifest.splits[split]] == [entry.key for entry in kept]
        places = [number for number, entry in enumerate(begun.manifest.splits[split]) if entry in kept]
        assert after.manifest.numbers(split) == places and after.num_images_at_start(split) == begun.num_images(split)
        # The images are those of the manifest's names: nobody took another's place.
        expected = [pixels(200 if change is rewrite and entry.key == "a/04.png" else int(entry.key[2:4])) for entry in kept]
        np.testing.assert_array_equal(after.images(split, range(len(kept))), expected)


def test_the_images_may_lie_elsewhere_and_in_other_splits_of_the_source(tmp_path):
    for number in range(30):
        write(tmp_path / "one" / ("train" if number < 20 else "test") / f"{number}.png", number)
    begun = load(settings(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    (tmp_path / "other/train/3.png").rename(tmp_path / "other/test/3.png")
    (tmp_path / "other/test/25.png").rename(tmp_path / "other/train/25.png")
    assert contents(load(settings(tmp_path / "other"), begun.manifest)) == contents(begun)
    shutil.rmtree(tmp_path / "other")
    for number in range(30):
        write(tmp_path / "other" / f"new-{number}.png", number + 500)
    message = message_of(load, settings(tmp_path / "other"), begun.manifest)
    assert "30 gone (train/" in message and "30 added" in message
    assert "none of the run's" in message_of(load, settings(tmp_path / "other"), begun.manifest, True)


def test_what_was_not_touched_is_not_read_again(folder, monkeypatch):
    from tfcq.data import folder as folder_module

    begun, read = load(settings(folder)), []
    content = folder_module.ImageFiles.content

    def noted(self, index):
        read.append(self.key(index))
        return content(self, index)

    monkeypatch.setattr(folder_module.ImageFiles, "content", noted)
    load(settings(folder), begun.manifest)
    assert read == []
    os.utime(folder / "a" / "04.png", (0, 0))
    add(folder)
    load(settings(folder), begun.manifest)
    assert sorted(read) == ["a/00-new.png", "a/04.png"]


def test_a_change_that_keeps_size_and_modification_time_is_seen(folder):
    path = folder / "a" / "04.png"
    begun, status = load(settings(folder)), path.stat()
    other = bytearray(path.read_bytes())
    other[-20] ^= 1
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "1 changed" in message_of(load, settings(folder), begun.manifest)


def write_idx(path, images):
    header = bytes([0, 0, 8, 3]) + b"".join(length.to_bytes(4, "big") for length in images.shape)
    path.mkdir(exist_ok=True)
    with gzip.open(path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + images.tobytes())
    with gzip.open(path / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(header[:4] + (0).to_bytes(4, "big")[:3] + b"\x05" + header[8:] + images[-5:].tobytes())


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_arrays_are_known_by_their_content_too(tmp_path, kind):
    place = tmp_path / ("data.npz" if kind == "npz" else "idx")
    images = np.stack([pixels(number)[..., 0] for number in range(40)])

    def save(array):
        np.savez(place, images=array) if kind == "npz" else write_idx(place, array)

    save(images)
    begun = load(settings(place, kind))
    save(np.concatenate([[pixels(77)[..., 0]], images[::-1]]) if kind == "npz" else np.roll(images, 5, axis=0))
    if kind == "npz":
        assert contents(load(settings(place, kind), begun.manifest)) == contents(begun)
    else:  # its test file now has five other images, which train has: they are found there
        assert contents(load(settings(place, kind), begun.manifest))["train"] == contents(begun)["train"]
    save(np.where(np.arange(40)[:, None, None] == 3, 255 - images, images))
    assert "1 changed (train/image 3 of " in message_of(load, settings(place, kind), begun.manifest)


def test_records_are_known_by_their_image_whatever_stands_beside_it(tmp_path):
    def prepare(folder, order):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(8, 8, 3)), "id": tfds.features.Text()})

        def info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def generate(self):
            yield from ((place, {"image": pixels(number), "id": f"{folder} {place}"}) for place, number in enumerate(order))

        with tfds.core.registered.skip_registration():
            kind = type("toy_records", (tfds.core.GeneratorBasedBuilder,), {
                "__doc__": "Noise.", "name": "toy_records", "VERSION": tfds.core.Version("1.0.0"), "_info": info,
                "_split_generators": lambda self, _: {"train": generate(self)}, "_generate_examples": generate})
        kind(data_dir=str(folder), file_format="tfrecord").download_and_prepare()
        return DataConfig(dataset="toy_records", data_dir=str(folder), image_size=8)

    one = prepare(tmp_path / "one", range(30))
    begun = load(one)
    assert load(one, begun.manifest).manifest == begun.manifest
    other = prepare(tmp_path / "other", [*range(29, -1, -1), 50])
    assert contents(load(other, begun.manifest)) == contents(begun)
    gone = prepare(tmp_path / "gone", range(1, 30))
    assert "1 gone (train/image " in message_of(load, gone, begun.manifest)


class Stub:
    """Records of one file, which keeps its stamp: some of them no image to this version, but to another."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        example = tf.train.Example()
        example.features.feature["image"].bytes_list.value.append(b"%d" % self.numbers[index])
        return example.SerializeToString()


def test_an_image_keeps_its_name_whatever_is_left_out_before_it():
    records = Records(Stub(range(6)), "image", 1, "toy train", ["one file"] * 6)
    without = records.select([0, 2, 3, 4, 5])  # --skip_broken_images left out number 1
    begun = Manifest({"train": entries(without, "train")[:3], "validation": [], "test": entries(without, "train")[3:]})
    match = begun.match(Source({"train": records}))
    assert match.whole and match.added == ["train/image 1"] and not match.moved
    assert [index for _, index, _ in match.splits["train"]] == [0, 2, 3]
    assert [index for _, index, _ in match.splits["test"]] == [4, 5]
    array = RawArray(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), "toy")
    assert [array.select([0, 2]).key(index) for index in (0, 1)] == ["image 0", "image 2"]
    assert array.select([1, 4]).select([1]).key(0) == "image 4"


def test_the_same_content_in_two_splits_is_told(tmp_path):
    for number in range(20):
        write(tmp_path / "train" / f"{number}.png", number)
        write(tmp_path / "test" / f"{number}.png", number + 17)
    dataset = load(settings(tmp_path))
    held = {entry.key for entry in dataset.manifest.splits["validation"]} & {"17.png", "18.png", "19.png"}
    assert f"{3 - len(held)} of test are in train too" in dataset.description
    assert "too" not in load(DataConfig(dataset="digits", image_size=8)).description


def test_a_manifest_survives_its_file(folder):
    odd = Entry("train", 'a "quoted"\nname \udcff ü.png', "0" * 32, "")
    manifest = load(settings(folder)).manifest
    manifest.splits["test"].append(odd)
    content = manifest.to_bytes()
    assert Manifest.from_bytes(content) == manifest and manifest.to_bytes() == content
    shrunk = Manifest(manifest.splits, {"train": [0, 3]})
    assert Manifest.from_bytes(shrunk.to_bytes()) == shrunk and shrunk.numbers("train")[:3] == [1, 2, 4]
    cut = [b"", content[:-9], content[: len(content) // 2]]
    for broken in (*cut, b"{}", gzip.compress(b"{}\n"), gzip.compress(b'[1, 2]\n"end"\n')):
        with pytest.raises(ValueError):
            Manifest.from_bytes(broken)
