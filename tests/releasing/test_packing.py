"""What is in a packed model, what is left out, and what its run can do."""

import dataclasses
import hashlib
import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq import workdir as workdirs
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.images import write_png
from tfcq.releasing import packing
from tfcq.workdir import packed


@pytest.fixture(scope="module")
def unpacked(packed_zip, tmp_path_factory):
    return tfcq.Run.from_pretrained(packed_zip, cache_dir=tmp_path_factory.mktemp("cache"))


def test_the_packed_model_answers_as_the_run_does(run, unpacked):
    one, other = run.model("last"), unpacked.model()
    assert (other.checkpoint_of_run, other.steps_taken) == ("last", 2)
    seeds = tfcq.row_seeds(3)
    np.testing.assert_array_equal(one.sample(seeds), other.sample(seeds))
    images = tiny.images((8, 8, 1), 3)
    np.testing.assert_array_equal(one.log_prob(images, seeds), other.log_prob(images, seeds))
    # ... which are of the running mean of the weights, not of the weights.
    own = tfcq.Run(run.workdir, tiny.config(8)).model("last")
    assert own.averages and not other.averages


def test_what_only_training_uses_is_left_out(run, packed_zip, tmp_path):
    with zipfile.ZipFile(packed_zip) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
        release = json.loads(archive.read("tiny_digits/release.json"))
        archive.extractall(tmp_path)
    checkpoint = [f"checkpoints/last/step-2.{ending}" for ending in ("index", "data-00000-of-00001")]
    texts = ["config.json", "data.json", "environment.json", "metrics.json", "metrics.jsonl", "LICENSE", "MODEL_CARD.md"]
    assert names == {*checkpoint, *texts, "release.json"}
    assert "discriminator" in release["left_out"] and {"encoder", "decoder", "flow", "step"} <= set(release["parts"])
    kept = tf.train.list_variables(str(tmp_path / "tiny_digits" / "checkpoints" / "last" / "step-2"))
    assert {name.partition("/")[0] for name, _ in kept} - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == set(release["parts"])
    whole = tf.train.list_variables(str(run.workdir / "checkpoints" / "last" / "step-2"))
    assert any("optimizers" in name for name, _ in whole) and any("averages" in name for name, _ in whole)


def test_each_file_has_its_size_and_sha_256(packed_zip):
    with zipfile.ZipFile(packed_zip) as archive:
        files = json.loads(archive.read("tiny_digits/release.json"))["files"]
        contents = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    contents.pop("release.json")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert files == {name: {"bytes": len(contents[name]), "sha256": digests[name]} for name in contents}


def test_a_folder_has_the_files_of_the_zip_file_and_nothing_else_is_left(run, packed_zip, license_file, tmp_path):
    folder = run.pack(tmp_path / "tiny_digits", "last", license_file)
    with zipfile.ZipFile(packed_zip) as archive:
        for name in archive.namelist():
            content = (tmp_path / name).read_bytes()
            assert "step-2" in name or name.endswith("release.json") or content == archive.read(name)
    assert [one.name for one in tmp_path.iterdir()] == ["tiny_digits"]
    assert tfcq.Run(folder).model().steps_taken == 2  # it is a workdir


def test_the_card_says_what_it_is_of_and_how_it_is_used(unpacked):
    text = (unpacked.workdir / "MODEL_CARD.md").read_text()
    for expected in ("# tiny_digits\n", "packed by tfcq", "digits", "step 2 of 2", "from_pretrained('tiny_digits')", "`LICENSE`"):
        assert expected in text
    assert (unpacked.workdir / "LICENSE").read_text() == "Do as you like.\n"


def test_the_run_is_evaluated_and_sampled_but_not_trained(run, unpacked):
    row = unpacked.evaluate(["elbo"], report=False)
    assert row["elbo"]["nats"] == run.evaluate(["elbo"], report=False, checkpoint="last")["elbo"]["nats"]
    assert unpacked.picture(num_samples=4).ndim == 3
    assert repr(unpacked).endswith("cqf, step 2 of 2>")
    with pytest.raises(UserError, match="holds a packed model, which has no optimizers to train on with"):
        tfcq.Run(unpacked.workdir, run.config).train()


def test_another_run_begins_with_its_weights(run, unpacked, tmp_path):
    training = dataclasses.replace(run.config.training, init_from=str(unpacked.workdir), train_steps=1, learning_rate=1e-12)
    model = tfcq.Run(tmp_path / "new", dataclasses.replace(run.config, training=training)).train()
    release, before = packed.read(unpacked.workdir), unpacked.model()
    for name in set(release.parts) - {"step"}:
        pairs = zip(*(packed.variables_of(getattr(one, name)) for one in (model, before)), strict=True)
        assert all(np.allclose(one.numpy(), other.numpy(), atol=1e-6) for one, other in pairs)


def test_no_path_of_the_machine_is_packed(tmp_path, monkeypatch):
    place = tmp_path / "secret person" / "pictures"
    for name in ("a", "b"):
        (place / name).mkdir(parents=True)
        for number, image in enumerate(tiny.images((4, 4, 1), 20)):
            write_png(place / name / f"private {number}.png", image)
    config = tiny.config(4, data={"dataset": f"folder:{place}"}, model="vae")
    tiny.make_workdir(tmp_path / "run", config)
    workdirs.record_metrics(tmp_path / "run", {"step": 1, "dataset": f"folder:{place}", "checkpoint": "last"})
    packing.pack(tmp_path / "run", tmp_path / "mine")
    contents = b"".join(path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file())
    assert b"secret" not in contents and b"private" not in contents and b"folder:pictures" in contents
    assert Config.from_json((tmp_path / "mine" / "config.json").read_text()).data.dataset == "folder:pictures"
    again = tfcq.Run(tmp_path / "mine")
    with pytest.raises(UserError, match="its images are not there any more; if they have moved, say where they are"):
        again.data()


@pytest.mark.parametrize("name", ["secret josé", 'secret "x"', "secret a:b"])
def test_no_path_of_another_kind_is_packed(tmp_path, name):
    place = tmp_path / name / "pictures"
    place.mkdir(parents=True)
    for number, image in enumerate(tiny.images((4, 4, 1), 20)):
        write_png(place / f"{number}.png", image)
    data = {"dataset": f"folder:{place}", "data_cache": str(tmp_path / name / "decoded")}
    tiny.make_workdir(tmp_path / "run", tiny.config(4, data=data, model="vae"))
    others = {"likelihood_dataset": f"folder:{tmp_path}/secret/others", "features": "saved_model:/home/secret/network"}
    workdirs.record_metrics(tmp_path / "run", {"step": 1, "checkpoint": "last", "elbo": others | {"devices": ["/device:CPU:0"]}})
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step"')  # of a killed writer
    packing.pack(tmp_path / "run", tmp_path / "mine")
    contents = b"".join(path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file())
    assert b"secret" not in contents and str(tmp_path).encode() not in contents
    data = Config.from_json((tmp_path / "mine" / "config.json").read_text()).data
    assert (data.dataset, data.data_cache) == ("folder:pictures", "decoded")
    (row,) = workdirs.read_metrics(tmp_path / "mine")
    assert row["elbo"] == {
        "likelihood_dataset": "folder:others", "features": "saved_model:network", "devices": ["/device:CPU:0"]
    }  # fmt: skip


@pytest.mark.parametrize(("output", "said"), [
    ("there.zip", "expected a new folder or zip file, found one that exists|expected a folder"),
    ("a name.zip", "expected a model's name of letters, digits, _, . and -, received 'a name'"),
    ("blocked/x.zip", "blocked"),
])
def test_an_output_that_cannot_be_is_refused(run, tmp_path, output, said):
    (tmp_path / "there.zip").touch()
    (tmp_path / "blocked").touch()
    with pytest.raises(UserError, match=said):
        run.pack(tmp_path / output)


def test_a_packed_model_is_not_packed_again(unpacked, tmp_path):
    with pytest.raises(UserError, match="expected a run, received a packed model"):
        unpacked.pack(tmp_path / "again")


@pytest.mark.parametrize(("changes", "said"), [
    ({"format": 2}, "expected format 1, received 2; a newer tfcq reads it"),
    ({"step": "2"}, "received something else: fields of other types"),
    ({"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, r"received something else: a file '\.\./x'"),
    ({"files": {"/etc/x": {"bytes": 1, "sha256": "0" * 64}}}, "received something else: a file '/etc/x'"),
    ({"files": {"x": {"bytes": 1, "sha256": "0"}}}, "received something else: the size or digest of x"),
    ({"other": 1}, "unexpected keyword argument 'other'"),
    ({"name": "../x"}, "fields of other types"),
    ({"parts": [1]}, "fields of other values"),
    ({"checkpoint": "newest"}, "fields of other values"),
    ({"files": {"x": {"bytes": -1, "sha256": "0" * 64}}}, "the size or digest of x"),
])
def test_a_description_that_is_none_is_refused(unpacked, changes, said):
    values = json.loads((unpacked.workdir / "release.json").read_text())
    with pytest.raises(UserError, match=said):
        packed.Packed.from_json(json.dumps(values | changes), "there")


def test_a_description_without_end_is_refused():
    with pytest.raises(UserError, match="received something else: maximum recursion depth"):
        packed.Packed.from_json("[" * 100_000, "there")


def test_other_networks_are_told_by_name(unpacked, tmp_path):
    release = packed.read(unpacked.workdir)
    model = unpacked.model()
    for changed, said in (
        (dataclasses.replace(release, parts=[*release.parts, "refiner"]), "of this version: refiner"),
        (dataclasses.replace(release, left_out=[]), "variables that it does not name"),
    ):
        with pytest.raises(UserError, match=said):
            packed.restore(model, unpacked.workdir, changed)


def test_what_is_not_the_runs_model_is_not_kept(run, tmp_path, monkeypatch):
    def damaged(*given):
        model = load(*given)
        if len(given) == 1:  # the folder that was written
            model.trainable_variables[0].assign_add(np.ones(model.trainable_variables[0].shape))
        return model

    load = workdirs.load
    monkeypatch.setattr(workdirs, "load", damaged)
    with pytest.raises(UserError, match="output tiny: other weights of .* were written than the run has; nothing was kept"):
        run.pack(tmp_path / "tiny", "last")
    assert not list(tmp_path.iterdir())
