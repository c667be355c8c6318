"""Both stages with a model: four shards, one killed and run again, equal one process and the plain endpoints to the bit."""

import csv
import functools
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from commands import REPOSITORY, run_here
from PIL import Image

from tfcq import workdir
from tfcq.bulk import model as models
from tfcq.bulk import read_parts
from tfcq.bulk.image_stages import Scoring
from tfcq.bulk.images import key_seeds
from tfcq.bulk.place import ModelPlace
from tfcq.bulk.running import Work
from tfcq.bulk.stages import Sampling
from tfcq.errors import UserError
from tfcq.evaluation.pictures import Pictures
from tfcq.images import bits_per_dim
from tfcq.machine.paths import as_path

KILLED = """
import os, signal, sys
from tfcq.bulk import running
from tfcq.score import COMMAND

class Progress(running.ImageProgress):
    def __call__(self, done):
        os.kill(os.getpid(), signal.SIGKILL)  # after its first batch

running.ImageProgress = Progress
COMMAND.run(sys.argv[1:])
"""


LOADED = functools.cache(models.load)


@pytest.fixture(autouse=True)
def load_once(monkeypatch):
    """Loads each model once for all tests here: that is what takes long."""
    monkeypatch.setattr(models, "load", LOADED)


def test_scoring_an_export(place, tmp_path):
    flags = [f"--export={place}/export", f"--images=folder:{place}/images", "--seed=5", "--batch_size=4"]
    assert run_here("score", *flags, f"--output={tmp_path}/one")[0] == 0
    # The plain endpoint: batches of four as above, to the bit; an image at a time, whose rounding is the processor's own.
    likelihood = tf.saved_model.load(str(place / "export" / "7")).signatures["likelihood"]
    images = np.stack([np.asarray(Image.open(place / "images" / f"{number}.png"))[..., None] for number in range(43)])
    names = [f"{number}.png" for number in range(43)]
    ordered = sorted(range(43), key=names.__getitem__)
    rows = list(read_parts(tmp_path / "one"))
    assert [row["key"] for row in rows] == [names[number] for number in ordered]
    for size, tolerance in ((4, 0.0), (1, 1e-5)):
        for first in range(0, 43, size):
            numbers = ordered[first : first + size]
            filled = np.zeros((size, *images.shape[1:]), np.uint8)
            seeds = np.zeros((size, 2), np.int32)
            filled[: len(numbers)] = images[numbers]
            seeds[: len(numbers)] = key_seeds([names[number] for number in numbers], 5)
            answers = likelihood(images=tf.constant(filled), seed=tf.constant(seeds))
            for name in ("log_prob", "bits_per_dim"):
                received = [np.float32(row[name]) for row in rows[first : first + size]]
                np.testing.assert_allclose(received, answers[name].numpy()[: len(numbers)], rtol=tolerance)
    assert len({row["log_prob"] for row in rows}) == 43

    shards = [*flags, f"--output={tmp_path}/four"]
    for index in (0, 1, 3):
        assert run_here("score", *shards, f"--shard={index}/4")[0] == 0
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *shards, "--shard=2/4"], env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, timeout=600
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("four/*.partial")] == ["part-00002-of-00004.jsonl.gz.partial"]
    with pytest.raises(UserError, match=r"cannot be used: 2/4 \(it is not there\)"):
        read_parts(tmp_path / "four")
    status, output, errors = run_here("score", *shards, "--shard=2/4")
    assert (status, errors) == (0, "") and f"wrote {tmp_path}/four/part-00002-of-00004.jsonl.gz: images 21 to 31 of 43" in output
    assert list(read_parts(tmp_path / "four")) == rows and not list(tmp_path.glob("four/*.partial"))


def test_a_run_is_scored_beside_its_test_images(place, tmp_path):
    """The shard that comes last makes the table; again with another ranking nothing is computed anew."""
    flags = [f"--workdir={place}/run", f"--images=folder:{place}/images", "--num_importance_samples=2", "--num_held_out=10"]
    flags += [f"--output={tmp_path}/out", "--false_alarm_rate=0.2", "--num_repeats=2"]
    for index in (2, 1, 0):  # shard 0 has the held-out images, too
        assert not (tmp_path / "out" / "scores.csv").exists()
        status, output, errors = run_here("score", *flags, f"--shard={index}/3")
        assert (status, errors) == (0, "") and ("the table is written when all 3 parts are there" in output) == (index > 0)
    assert re.search(r"scores.html: 43 images; \d+ flagged by complexity_corrected$", output.strip())
    with open(tmp_path / "out" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    dataset, model = workdir.load_data(place / "run"), workdir.load(place / "run", "last")
    numbers = np.linspace(0, dataset.num_images("test") - 1, 10).astype(int)
    keys = [f"test/image {number}" for number in numbers]
    drawn = [model.log_prob(dataset.images("test", numbers), key_seeds(keys, 0, repeat), 2) for repeat in range(2)]
    bits = bits_per_dim(np.mean(drawn, axis=0), model.image_shape)
    for row in rows:
        typicality = abs(float(row["bits_per_dim"]) - bits.mean()) / bits.std(ddof=1)
        assert float(row["typicality"]) == pytest.approx(typicality, rel=1e-4, abs=1e-4)
        assert float(row["log_prob_standard_error"]) > 0
    assert len(list(read_parts(tmp_path / "out" / "held_out"))) == 10
    status, output, _ = run_here("score", *flags, "--shard=1/3", "--flag_by=typicality")
    assert status == 0 and output.count("is there already") == 1 and output.rstrip().endswith("flagged by typicality")
    # Others to compare with: a mistake is found before anything is scored, and the parts stay.
    assert run_here("score", *flags, f"--held_out=folder:{place}/none", "--shard=0/3")[0] == 2
    shutil.rmtree(tmp_path / "out" / "held_out")
    status, output, _ = run_here("score", *flags, f"--held_out=folder:{place}/images", "--shard=0/3")
    assert status == 0 and output.count("is there already") == 1
    names = sorted(path.name for path in (place / "images").iterdir())
    held_out = [row["key"] for row in read_parts(tmp_path / "out" / "held_out")]
    assert held_out == [names[int(number)] for number in np.linspace(0, 42, 10)]


def test_a_run_without_its_images_is_scored_where_none_are_compared(place, tmp_path, monkeypatch):
    def gone(workdir):
        raise UserError("its images are not there")

    monkeypatch.setattr("tfcq.bulk.image_stages.workdirs.load_data", gone)
    flags = [f"--workdir={place}/run", f"--images=folder:{place}/images", "--num_importance_samples=2"]
    flags += [f"--output={tmp_path}/out"]
    status, _, errors = run_here("score", *flags)
    assert status == 2 and "cannot be read (its images are not there); expected --held_out=PLACE, or --held_out=none" in errors
    assert not list((tmp_path / "out").glob("part-*"))
    assert run_here("score", *flags, "--held_out=none")[0] == 0 and (tmp_path / "out" / "scores.html").exists()


@pytest.mark.parametrize("given, message", [
    (["--false_alarm_rate=1"], "false_alarm_rate: expected above 0 and below 1, received 1"),
    (["--held_out=test"], "held_out: expected PLACE or none with --export or --server, which know no splits, received test"),
    (["--flag_by=typicality"], "flag_by: expected one of bits_per_dim, complexity_corrected, which these scores have"),
    (["--held_out=list:{place}/one.txt"], "held_out: expected at least two images, received 1; or --held_out=none"),
])  # fmt: skip
def test_a_comparison_that_cannot_be_made(place, tmp_path, given, message):
    (place / "one.txt").write_text("images/0.png\n")
    flags = [f"--export={place}/export", f"--images=folder:{place}/images", f"--output={tmp_path}/out"]
    flags += [one.format(place=place) for one in given]
    status, _, errors = run_here("score", *flags)
    assert status == 2 and errors.startswith(f"error: {message}"), errors


def test_sampling_a_run_is_what_sample_draws(place, tmp_path):
    flags = [f"--workdir={place}/run", "--num_samples=192", "--seed=3", f"--output={tmp_path}/out"]
    for index in (3, 0, 2, 1):
        assert run_here("sample", *flags, f"--shard={index}/4")[0] == 0
    plain = Pictures(workdir.load(place / "run", "last")).samples(192, seed=3)  # three batches, as long as the shards' own
    drawn = np.concatenate(list(read_parts(tmp_path / "out")))
    assert drawn.shape == (192, 4, 4, 1) and np.array_equal(drawn, plain) and len(np.unique(drawn, axis=0)) > 100


def test_a_run_and_its_export_score_alike(place, tmp_path):
    data = {"dataset": f"folder:{place}/images"}
    for name, at in {
        "run": ModelPlace(workdir=place / "run"),
        "export": ModelPlace(export=place / "export" / "7"),
    }.items():
        Work(Scoring(at, data=data), 1, tmp_path / name).compute(0)
    of_run, of_export = (list(read_parts(tmp_path / name)) for name in ("run", "export"))
    assert [row["key"] for row in of_run] == [row["key"] for row in of_export] and len(of_run) == 43
    for name in ("log_prob", "bits_per_dim"):  # the graphs are two: rounding may differ
        np.testing.assert_allclose([row[name] for row in of_run], [row[name] for row in of_export], rtol=1e-5)
    # Other weights are another job.
    with pytest.raises(UserError, match="its parts are of another job, with model="):
        Work(Scoring(ModelPlace(export=place / "export"), data=data), 1, tmp_path / "run")


def test_an_export_at_an_address_is_the_same_model(place):
    address = as_path("ram://test_models/export")
    for path in (place / "export").rglob("*"):
        if path.is_file():
            (address / path.relative_to(place / "export")).write_bytes(path.read_bytes())
    local, remote = (LOADED(ModelPlace(export=path)) for path in (place / "export", address))
    assert local.digest == remote.digest and remote.signature("sample")


def test_what_is_no_model(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(UserError, match="expected a SavedModel, received something else"):
        Work(Sampling(ModelPlace(export=tmp_path / "export")), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
