"""A workdir that an earlier version made goes on with today's code and the numbers that it had; tests/workdirs has its story."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import tfcq
from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.evaluation.run import evaluate
from tfcq.training.run import train

MADE = pathlib.Path(__file__).parents[1] / "workdirs" / "d74abb1"
EXPECTED = json.loads((MADE / "expected.json").read_text())


def write(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(number).randint(0, 256, (4, 4)).astype(np.uint8)).save(path)


@pytest.fixture(name="run")
def fixture_run(tmp_path, monkeypatch):
    """A copy of the run in the current folder, beside the images that it was trained on."""
    shutil.copytree(MADE / "run", tmp_path / "run")
    images = tmp_path / "images"
    for number in range(20):
        write(images / f"Train/a/{number:02}.png", number)
    for number in range(20, 30):
        write(images / f"Test/b/{number:02}.png", number)
    for number in range(30, 33):
        write(images / f"Train/a/{number:02}.tif", number)
    os.symlink("a", images / "Train/again")
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("run")


def longer(run, **data):
    config = workdirs.read_config(run)
    training = dataclasses.replace(config.training, train_steps=4)
    return dataclasses.replace(config, training=training, data=dataclasses.replace(config.data, **data))


def check_splits(dataset):
    """Each split has the images that it had, in their order."""
    drawn = {np.random.RandomState(number).randint(0, 256, (4, 4)).astype(np.uint8).tobytes(): number for number in range(33)}
    for split, numbers in EXPECTED["splits"].items():
        assert [drawn[image.tobytes()] for image in dataset.images(split, range(dataset.num_images(split)))] == numbers


def check_model(run, dataset, expected):
    # float32 through a decoder of a few layers: log_prob is near -99, its rounding some 1e-5, and other processors' sums differ.
    model = tfcq.Run(run).model("last")
    log_prob = model.log_prob(dataset.images("test", range(5)), tfcq.row_seeds(5), 3)
    np.testing.assert_allclose(log_prob, expected["log_prob"], atol=2e-3)
    samples = model.sample(tfcq.row_seeds(4)).reshape(4, 16).astype(int)
    assert np.abs(samples - np.array(expected["samples"])).max() <= 1  # a pixel at the edge of two values


def test_a_run_of_d74abb1_is_evaluated_and_goes_on_with_its_images_and_its_numbers(run, capsys):
    dataset = workdirs.load_data(run)
    assert "there is no list of its images" in capsys.readouterr().out
    check_splits(dataset)
    check_model(run, dataset, EXPECTED["at_step_2"])
    train(longer(run), run)
    assert "resumed from step 2" in capsys.readouterr().out
    dataset = workdirs.load_data(run)
    said = capsys.readouterr().out
    assert "no list" not in said and "moved" not in said  # its list is kept now, under the names of today
    check_splits(dataset)
    check_model(run, dataset, EXPECTED["at_step_4"])
    row = evaluate(run, ["elbo"], False, checkpoint="last")
    assert row["step"] == 4 and row["elbo"]["num_images"] == 5
    assert row["elbo"]["notes"][-1] == "without a list of the run's images they were taken by their positions, unchecked"


def test_a_run_without_a_list_goes_on_elsewhere_or_with_more_images_where_that_is_accepted(run, capsys):
    shutil.move("images", "elsewhere")
    there = longer(run, dataset="folder:elsewhere")
    with pytest.raises(UserError, match="--accept_changed_data goes on if the same images have moved there"):
        train(there, run)
    write(pathlib.Path("elsewhere/Test/b/30.png"), 30)
    with pytest.raises(UserError, match="they were train 40.*are train 41.*--accept_changed_data to split what is there anew"):
        evaluate(run, ["elbo"], False, dataset="folder:elsewhere")
    assert train(there, run, accept_changed_data=True).steps_taken == 4
    assert "warning: workdir run: there is no list" in capsys.readouterr().out
    changes = [json.loads(line)["changes"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert {"data.dataset", "images"} <= set().union(*changes)
    assert workdirs.load_data(run).num_images("train") == 41
