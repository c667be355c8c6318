"""A run goes on with its own images, whatever becomes of the folder they came from, or says what differs."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from PIL import Image

from tfcq import workdir as workdirs
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.evaluation.run import evaluate
from tfcq.training.run import train


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (4, 4)).astype(np.uint8)).save(path)


def run_of(place, steps):
    training = {"train_steps": steps, "checkpoint_every": 2, "evaluate_every": 100, "validation_images": 4}
    return tiny.config(4, data={"dataset": f"folder:{place}"}, training=training, model="vae")


def weights(workdir, step):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "last" / f"step-{step}"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name).tobytes() for name in names if not name.startswith("save_counter")}


def codes(run, step):
    """Of the training images, by their numbers, on the unit sphere."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints/last" / f"step-{step}"))
    name, = (name for name in reader.get_variable_to_shape_map() if name.startswith("model/codes/"))
    rows = reader.get_tensor(name)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def message_of(call, *arguments, **named):
    with pytest.raises(UserError) as raised:
        call(*arguments, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module", name="begun")
def fixture_begun(tmp_path_factory):
    """A folder of images, and a run that trained two of four steps on it; the same run uninterrupted."""
    place = tmp_path_factory.mktemp("begun")
    for number in range(40):
        write(place / "images" / f"{number:02}.png", number)
    train(run_of(place / "images", 4), place / "whole")
    shutil.copytree(place / "whole", place / "run")
    for path in (place / "run/checkpoints/last").glob("step-4*"):
        path.unlink()
    return place


@pytest.fixture(name="place")
def fixture_place(begun, tmp_path, monkeypatch):
    """A copy of both. The workdir names the images by a place that is another now, as after a move of everything."""
    shutil.copytree(begun, tmp_path / "moved")
    return tmp_path / "moved"


def test_resumed_among_other_images_a_run_ends_as_it_would_have(place, begun, capsys):
    for number in range(5):
        write(place / "images" / f"00-{number}.png", 100 + number)
    (place / "images/07.png").rename(place / "images/zz.png")
    assert train(run_of(place / "images", 4), place / "run").steps_taken == 4
    said = capsys.readouterr().out
    assert "5 added (train/00-0.png, train/00-1.png, train/00-2.png, ...); 1 renamed or moved" in said
    assert "resumed from step 2" in said
    assert weights(place / "run", 4) == weights(begun / "whole", 4)
    # It is the run of the new place now, and of the new name.
    assert workdirs.read_config(place / "run").data.dataset == f"folder:{place / 'images'}"
    names = {entry.key for split in workdirs.read_manifest(place / "run").splits.values() for entry in split}
    assert "zz.png" in names and "07.png" not in names and len(names) == 40


def test_a_run_whose_images_are_gone_or_changed_says_which(place, capsys):
    (place / "images/08.png").unlink()
    write(place / "images/09.png", 200)
    here = f"folder:{place / 'images'}"
    expected = ("1 gone (train/08.png of ", "1 changed (train/09.png of ", "--accept_changed_data")
    for message in (
        message_of(train, run_of(place / "images", 4), place / "run"),
        message_of(evaluate, place / "whole", ["elbo"], False, dataset=here),
        message_of(workdirs.load_data, place / "whole", ImagesPlace(dataset=here)),
    ):
        assert all(part in message for part in expected)
    row = evaluate(place / "whole", ["elbo"], False, dataset=here, accept_changed_data=True)
    assert "not on the images that the run began with: 1 gone, 1 changed" in row["elbo"]["notes"]
    before = (place / "run/data.json").read_text()
    assert train(run_of(place / "images", 4), place / "run", accept_changed_data=True).steps_taken == 4
    assert "continuing with those of the run that are there" in capsys.readouterr().out
    assert (place / "run/data.json").read_text() != before
    # From now on those are the run's images: nothing needs to be accepted twice.
    images = workdirs.load_data(place / "run", ImagesPlace(dataset=here))
    assert sum(images.num_images(split) for split in ("train", "validation", "test")) == 39


def test_an_evaluation_finds_images_that_have_moved_and_measures_the_same(place, begun, monkeypatch):
    shutil.move(place / "images", place / "elsewhere")
    write(place / "elsewhere/00-new.png", 300)
    monkeypatch.chdir(place)
    there = evaluate(begun / "whole", ["elbo"], False)
    here = evaluate(place / "whole", ["elbo"], False, dataset="folder:elsewhere")
    assert here["elbo"]["bits_per_dim"] == there["elbo"]["bits_per_dim"]
    assert here["dataset"] == here["elbo"]["data"]["dataset"] == f"folder:{place / 'elsewhere'}"  # where they were found
    assert "notes" not in here["elbo"] or not any("began with" in note for note in here["elbo"]["notes"])
    message = message_of(evaluate, place / "whole", ["elbo"], False, dataset="folder:images")
    assert "its images are not there any more; if they have moved, say where they are: --dataset=folder:NEW_PLACE" in message


def test_a_relative_place_holds_in_every_current_folder(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(begun)
    train(run_of("images", 1), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert workdirs.load_data(tmp_path / "run").num_images("test") == 4
    monkeypatch.chdir(begun)
    assert train(run_of("./images/", 1), tmp_path / "run").steps_taken == 1  # no other configuration


def test_a_run_of_an_earlier_version_goes_by_position_and_says_so(place, capsys):
    run = place / "run"
    (run / "images.jsonl.gz").unlink()
    facts = json.loads((run / "data.json").read_text())
    del facts["fingerprints"]
    (run / "data.json").write_text(json.dumps(facts))
    config = json.loads((run / "config.json").read_text())
    config["data"]["dataset"] = f"folder:{place / 'images'}"
    (run / "config.json").write_text(json.dumps(config))
    workdirs.load_data(run)
    assert "there is no list of its images (packed models and runs of earlier versions have none)" in capsys.readouterr().out
    write(place / "images/00-new.png", 100)
    for _ in range(10):
        write(place / f"images/01-new{_}.png", 101)
    message = message_of(workdirs.load_data, run)
    assert "train 32, validation 4, test 4, and are train 41, validation 5, test 5 now" in message
    assert "--accept_changed_data to split what is there anew" in message
    assert message_of(train, run_of(place / "images", 4), run) == message
    assert not (run / "images.jsonl.gz").exists()


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00"])
def test_a_damaged_list_of_images_is_not_passed_over(place, content):
    (place / "run/images.jsonl.gz").write_bytes(content)
    message = message_of(workdirs.load_data, place / "run", ImagesPlace(dataset=f"folder:{place / 'images'}"))
    assert "images.jsonl.gz: the list of the run's images cannot be read" in message


def test_codes_stay_with_their_images_whichever_others_are_gone_or_changed(place):
    training = {"train_steps": 5, "checkpoint_every": 2}
    config = tiny.config(4, data={"dataset": f"folder:{place / 'images'}"}, training=training, model="glann", first_stage_steps=4)
    run = place / "glann"
    train(config, run)
    for path in (run / "checkpoints/last").glob("step-[45]*"):
        path.unlink()
    listed = workdirs.read_manifest(run).splits["train"]

    def numbers_of(images, start):
        batches = images.train_batches(8, config.training.seed, start, with_indices=True).take(2)
        return {number for _, numbers in batches.as_numpy_iterator() for number in numbers.tolist()}

    seen = numbers_of(workdirs.load_data(run), 0)
    for number in (0, 5, 31):  # 31: the last
        (place / "images" / listed[number].key).unlink()
    write(place / "images" / listed[7].key, 500)
    before = codes(run, 2)
    assert "--accept_changed_data" in message_of(train, config, run)
    train(config, run, accept_changed_data=True)
    dataset = workdirs.load_data(run)
    images, numbers = next(dataset.train_batches(29, 0, with_indices=True).as_numpy_iterator())
    assert sorted(numbers) == sorted(set(range(32)) - {0, 5, 31})
    for image, number in zip(images, numbers):
        drawn = 500 if number == 7 else int(listed[number].key[:2])
        np.testing.assert_array_equal(image[..., 0], np.random.RandomState(drawn).randint(0, 256, (4, 4)))
    moved, now = np.abs(codes(run, 4) - before).max(axis=-1) > 1e-6, numbers_of(dataset, 2)
    assert moved[sorted(now)].all()
    never = sorted(set(range(32)) - seen - now)  # what was seen before may still go on a little, by its momentum
    assert never and not moved[never].any()


def test_a_link_may_lead_to_the_images(place):
    os.symlink(place / "images", place / "link")
    images = workdirs.load_data(place / "whole", ImagesPlace(dataset=f"folder:{place / 'link'}"))
    assert images.num_images("train") == 32
