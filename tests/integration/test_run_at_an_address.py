"""A whole run at an address, in a store that has no more than an object store has: as the same run in a folder, to the bit."""

import io
import json
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from object_stores import ObjectStore
from tensorflow.python.framework import config as framework_config

import tfcq
from tfcq import sample
from tfcq.endpoints import SIGNATURES
from tfcq.errors import UserError
from tfcq.exporting import export, verify
from tfcq.exporting import signatures as of_exports
from tfcq.machine import remote, remote_lock
from tfcq.machine.paths import as_path
from tfcq.training import progress


def config(steps):
    settings = {"train_steps": steps, "checkpoint_every": 2, "evaluate_every": 2, "deterministic": True}
    return tiny.config(8, training=settings, latent_size=4, **tiny.ROWS["vae"])


@pytest.fixture(autouse=True)
def store(monkeypatch):
    store = ObjectStore()
    monkeypatch.setattr(remote, "_gfile", lambda: store)
    monkeypatch.setattr(remote_lock, "_POLL", (0.01, 0.02))
    yield store
    framework_config.disable_op_determinism()


def weights(folder):
    reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/checkpoints/last/step-4")
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def rows(run):
    return [{name: value for name, value in row.items() if name != "time"} for row in run.metrics()]


def listing(folder):
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"(tfevents)\..*", r"\1", name) for name in found}


def test_a_run_lives_there_as_in_a_folder(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = tiny.images((8, 8, 1), 60)
    here = tfcq.Run(tmp_path / "run", config(4))
    here.train(images)

    there = tfcq.Run("ram://bucket/runs/one", config(2))
    seen = []
    there.train(images, on_progress=lambda one: seen.append(one.state))
    assert seen[-1] == progress.read(there.workdir).state == "done"
    again = tfcq.Run("ram://bucket/runs/one/", config(4))
    again.train()
    assert "resumed from step 2" in capsys.readouterr().out
    assert weights(again.workdir) == weights(here.workdir)
    assert rows(again) == rows(here) and len(rows(here)) == 3
    assert listing(again.workdir) - {"history.jsonl"} == listing(here.workdir)  # train_steps is another one there
    assert again.history()["step"].tolist() == here.history()["step"].tolist() == [1, 2, 3, 4]
    assert "step 4 of 4" in repr(again)

    protocol = {"num_samples": 64, "batch_size": 32, "features": "pixels", "cache_dir": "ram://bucket/cache"}
    row = again.evaluate(["elbo", "frechet_distance"], **protocol)
    assert row["step"] == 4 and again.metrics()[-1] == row and len(listing(as_path("ram://bucket/cache"))) == 2
    assert listing(again.workdir) >= {"report.md", "report/samples.png", "metrics.json"}

    place = "ram://bucket/pictures/x.png"
    assert sample.COMMAND.run(["--workdir=ram://bucket/runs/one", f"--output={place}", "--num_samples=4"]) == 0
    assert np.array_equal(tf.io.decode_png(as_path(place).read_bytes()), here.picture("prior", 4))

    def reloaded_here(folder, inputs, begin):
        return verify.answer(
            str(folder), {f"{name}/{key}": value for name, each in inputs.items() for key, value in each.items()}
        )

    monkeypatch.setattr(export, "_reloaded_answers", reloaded_here)
    monkeypatch.setattr(of_exports, "SIGNATURES", {name: SIGNATURES[name] for name in ("sample", "likelihood")})
    store.uploads.clear()
    exported = again.export("ram://bucket/models", num_importance_samples=1)
    assert str(exported) == "ram://bucket/models/cqf/1"
    assert [name for name in store.uploads if name.startswith(str(exported))][-1] == f"{exported}/saved_model.pb"
    named = json.loads((exported / "manifest.json").read_text())["files"]
    assert listing(exported) == {*named, "manifest.json"} and {"saved_model.pb", "variables/variables.index"} <= named.keys()
    seeds = tfcq.row_seeds(3, seed=5)
    asked = {"seed": tf.constant(seeds), "temperature": tf.ones(3)}
    loaded = tf.saved_model.load(str(exported)).signatures["sample"](**asked)["images"].numpy()
    # TensorFlow optimises a graph that was loaded: a value at the edge of a bin may fall into the next.
    difference = np.abs(loaded.astype(int) - here.model().sample(seeds))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01

    store.broken = tf.errors.PermissionDeniedError(None, None, "no access to\nthe bucket")
    with pytest.raises(UserError, match="^export_dir ram://bucket/models/cqf: cannot be written: no access to the bucket$"):
        again.export("ram://bucket/models")
    store.broken = None
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert json.loads((again.workdir / "metrics.json").read_text())["step"] == 4
    with np.load(io.BytesIO((again.workdir / "images.npz").read_bytes())) as kept:
        assert np.array_equal(kept["train"], images)
