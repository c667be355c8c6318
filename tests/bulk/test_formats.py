"""Images and latents as files: PNG, npz, tf.train.Example, whole after an interruption, read by others' readers."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_bulk import NAMES, PLACE, Model, at_an_address, fixture_model, write_images  # noqa: F401

from tfcq.bulk import images as keyed
from tfcq.bulk import read_parts, running
from tfcq.bulk.image_stages import Encoding
from tfcq.bulk.job import forget_unbegun
from tfcq.bulk.reading import join
from tfcq.bulk.running import Work, parts_of
from tfcq.bulk.stages import Sampling, Varying
from tfcq.errors import UserError
from tfcq.seeds import row_seeds

EXPECTED = Model().ask("sample", seed=row_seeds(11, 5))["images"]


def sampling(files, count=11):
    return Sampling(PLACE, seed=5, batch_size=4, num_samples=count, files=files)


def test_pngs_are_numbered_by_seed_and_shared_among_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("tfcq.bulk.formats.IMAGES_OF_A_FOLDER", 4)
    Work(sampling("png"), 2, tmp_path).compute_all()
    paths = [tmp_path / f"{number // 4:05}" / f"seed-5-{number:08}.png" for number in range(11)]
    assert sorted(tmp_path.rglob("*.png")) == paths
    for path, image in zip(paths, EXPECTED, strict=True):
        with Image.open(path) as found:
            assert found.mode == "L" and np.array_equal(np.asarray(found), image[..., 0])
    assert np.array_equal(np.concatenate(list(read_parts(tmp_path))), EXPECTED)
    paths[7].unlink()
    with pytest.raises(UserError, match="1 of them cannot be used: 1/2 .it is not there"):
        read_parts(tmp_path)


def test_one_process_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys, model):
    monkeypatch.setattr(running, "ROWS_OF_A_PART", 3)
    assert [parts_of(count) for count in (1, 3, 4, 11)] == [1, 1, 2, 4]
    ask, asked = model.ask, []

    def interrupted(endpoint, **arrays):
        asked.append(arrays)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return ask(endpoint, **arrays)

    model.ask = interrupted
    with pytest.raises(KeyboardInterrupt):
        Work(sampling("npz"), 4, tmp_path).compute_all()
    model.ask, before = ask, len(model.asked)
    Work(sampling("npz"), 4, tmp_path).compute_all()
    assert f"{tmp_path}: 5 of 11 images are there already" in capsys.readouterr().out
    assert len(model.asked) - before < 6 and np.array_equal(np.concatenate(list(read_parts(tmp_path))), EXPECTED)
    Work(sampling("npz"), 4, tmp_path).compute_all()
    assert capsys.readouterr().out == f"{tmp_path}: 11 of 11 images are there already\n"


@pytest.mark.parametrize("at", ["here", "there"])
def test_an_npz_file_holds_all_and_nothing_else_is_left(tmp_path, at):
    folder = tmp_path if at == "here" else at_an_address()
    Work(sampling("npz"), 3, folder / "all.npz.parts").compute_all()
    join(folder / "all.npz.parts", folder / "all.npz")
    assert [path.name for path in folder.iterdir()] == ["all.npz"]
    with (folder / "all.npz").open("rb") as file, np.load(file) as arrays:
        assert arrays.files == ["images"] and np.array_equal(arrays["images"], EXPECTED)


@pytest.mark.parametrize("at", ["here", "there"])
def test_records_are_examples_that_tensorflow_reads(tmp_path, at):
    folder = tmp_path if at == "here" else at_an_address()
    Work(sampling("tfrecord"), 3, folder / "parts").compute_all()
    join(folder / "parts", folder / "all.tfrecord")
    assert [path.name for path in folder.iterdir()] == ["all.tfrecord"]
    described = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image/encoded", "image/format")}
    described |= {f"image/{name}": tf.io.FixedLenFeature([], tf.int64) for name in ("height", "width", "channels")}
    described["image/seed"] = tf.io.FixedLenFeature([2], tf.int64)
    records = [tf.io.parse_single_example(one, described) for one in tf.data.TFRecordDataset(str(folder / "all.tfrecord"))]
    assert np.array_equal([tf.io.decode_png(one["image/encoded"]) for one in records], EXPECTED)
    assert [one["image/seed"].numpy().tolist() for one in records] == [[5, number] for number in range(11)]
    sizes = {tuple(one[f"image/{name}"].numpy().item() for name in ("height", "width", "channels")) for one in records}
    assert sizes == {(4, 4, 1)} and {one["image/format"].numpy() for one in records} == {b"png"}


def test_a_part_that_is_missing_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "all.npz").write_bytes(b"earlier")
    work = Work(sampling("npz"), 3, tmp_path / "parts")
    work.compute(0)
    with pytest.raises(UserError, match="expected 3 parts, 2 of them cannot be used"):
        join(tmp_path / "parts", tmp_path / "all.npz")
    work.compute_all()
    part = tmp_path / "parts" / "part-00002-of-00003.npz"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="1 of them cannot be used: 2/3 .it is damaged"):
        join(tmp_path / "parts", tmp_path / "all.npz")
    assert (tmp_path / "all.npz").read_bytes() == b"earlier" and (tmp_path / "parts").is_dir()


def test_latents_are_those_of_each_image_by_its_name_and_unfit_ones_have_none(tmp_path, model):
    write_images(tmp_path / "images", NAMES)
    (tmp_path / "images" / "b" / "4.png").write_bytes(b"no image")
    data = {"dataset": f"folder:{tmp_path}/images", "skip_broken_images": True}
    Work(Encoding(PLACE, seed=3, batch_size=4, data=data), 2, tmp_path / "parts").compute_all()
    join(tmp_path / "parts", tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as arrays:
        keys, latents, unfit = arrays["keys"], arrays["latents"], arrays["unfit"]
    assert keys.tolist() == ["a/z.png", *(f"b/{number}.png" for number in range(9)), "top.png"]
    for key, row, reason in zip(keys, latents, unfit, strict=True):
        if key == "b/4.png":
            assert np.isnan(row).all() and "b/4.png" not in reason and reason
            continue
        image = np.asarray(Image.open(tmp_path / "images" / key))[None, ..., None]
        expected = Model().ask("encode", images=image, seed=keyed.key_seeds([key], 3))["latents"][0]
        assert np.array_equal(row, expected) and reason == ""


def test_a_variation_goes_along_a_great_circle_to_the_sample_of_its_number(tmp_path, model):
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(image).save(tmp_path / "like.png")
    ask, asked = model.ask, []

    def interpolate(endpoint, **arrays):
        if endpoint == "sample":
            return ask(endpoint, **arrays)
        asked.append((endpoint, arrays))
        return {"images": arrays["other_images"]}

    model.ask = interpolate
    stage = Varying(PLACE, seed=5, batch_size=4, num_samples=11, image=f"{tmp_path}/like.png", strength=0.25)
    Work(stage, 2, tmp_path / "out").compute_all()
    assert np.array_equal(np.concatenate(list(read_parts(tmp_path / "out"))), EXPECTED)
    for endpoint, arrays in asked:
        assert endpoint == "interpolate" and arrays["spherical"].all() and set(arrays["share"]) == {0.25}
        assert (arrays["images"] == image[..., None]).all()


def test_nothing_but_the_parts_is_removed(tmp_path):
    Work(sampling("npz"), 3, tmp_path / "parts").compute_all()
    (tmp_path / "parts" / "precious").write_text("mine")
    join(tmp_path / "parts", tmp_path / "all.npz")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["precious"]


def test_pngs_go_to_a_folder_of_their_own(tmp_path):
    (tmp_path / "another.png").write_bytes(b"")
    with pytest.raises(UserError, match="expected an empty or new folder for the images, found other files in it"):
        Work(sampling("png"), 1, tmp_path)
    (tmp_path / "another.png").unlink()
    Work(sampling("png"), 3, tmp_path).compute(0)
    (tmp_path / "part-00000-of-00003.json").unlink()  # killed in its first part
    with pytest.raises(UserError, match="seed=5, and this one has seed=0; expected .*or another folder$"):
        Work(Sampling(PLACE, batch_size=4, num_samples=11, files="png"), 3, tmp_path)


def test_a_job_of_which_nothing_is_there_is_forgotten(tmp_path):
    sampling("npz").job(1).begin(tmp_path)
    forget_unbegun(tmp_path)
    assert not list(tmp_path.iterdir())
    Work(sampling("npz"), 3, tmp_path).compute(1)
    before = sorted(path.name for path in tmp_path.iterdir())
    forget_unbegun(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before and len(before) == 3
