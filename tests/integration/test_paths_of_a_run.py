"""A whole run in folders of the nastiest names: trained, resumed, measured, compared, drawn, exported, served."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from commands import TINY, command, output_of, start
from grid_cells import cells
from path_names import NASTY

import tfcq
from tfcq.evaluation.comparison import write_comparison

FLAGS = TINY | {
    "dataset": f"npz:~/{NASTY}.npz",
    "train_steps": 2,
    "checkpoint_every": 1,
    "evaluate_every": 2,
    "validation_images": 8,
    "log_every": 1,
    "deterministic": False,  # the switch is the whole process's
}


class Means(tf.Module):
    """A feature extractor with a variable."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    def features(self, images):
        return self.scale * tf.reduce_mean(images, (1, 2))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_works_in_folders_of_any_name(tmp_path, monkeypatch, capsys):
    home = tmp_path / NASTY
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    images = tiny.images((8, 8, 1), 40)
    np.savez(home / f"{NASTY}.npz", train=images[:24], validation=images[:8], test=images[24:])
    (home / f"{NASTY}.cfg").write_text("".join(f"--{name}={value}\n" for name, value in FLAGS.items()), encoding="utf-8")

    assert "step 2/2" in output_of(start(command("train", f"--flagfile=~/{NASTY}.cfg"), cwd=home))
    run = home / "runs" / NASTY
    checkpoints = run / "checkpoints" / "last"
    for path in checkpoints.glob("step-2.*"):
        path.unlink()
    config = tfcq.Config.from_json((run / "config.json").read_text())
    model = tfcq.Run(f"~/runs/{NASTY}/", config).train()
    assert "resumed from step 1" in capsys.readouterr().out and (checkpoints / "step-2.index").is_file()
    for folder in ("train", "validation"):
        assert any("tfevents" in path.name for path in (run / "tensorboard" / folder).iterdir())

    link = home / "link"
    link.symlink_to(run)
    drawing = start(command("sample", workdir="link", output=f"~/-{NASTY}/x.png", num_samples=2), cwd=home)
    extractor = Means()
    tf.saved_model.save(extractor, f"{home}/{NASTY}", signatures=extractor.features)
    protocol = {"features": f"saved_model:~/{NASTY}", "cache_dir": f"~/{NASTY} cache", "num_samples": 8, "batch_size": 8}
    row = tfcq.Run(run).evaluate(["elbo", "frechet_distance"], **protocol)
    assert len(list((home / f"{NASTY} cache").iterdir())) == 2
    assert len([name for name in row if name.startswith("fd_saved_model_")]) == 1
    assert "training_elbo_bits_per_dim" in (run / "report.md").read_text(encoding="utf-8")
    shutil.copytree(run, home / "_copy")
    table = write_comparison([run, home / "_copy"], home / NASTY / "*").read_text(encoding="utf-8")
    heading = next(line for line in table.splitlines() if line.startswith("| number"))
    assert heading.replace("\\|", "").count("|") == 5 and "\\[a\\]\\*?" in heading

    exported = tfcq.Run(run).export(f"~/{NASTY} exports", num_importance_samples=1)
    assert exported == home / f"{NASTY} exports" / "cqf" / "1"
    assert "warning: TensorFlow takes [ and \\ in a path" in capsys.readouterr().out
    assert json.loads((exported / "manifest.json").read_text())["files"].keys() >= {"saved_model.pb", "variables/variables.index"}
    from tensorflow_serving.apis import model_pb2

    from tfcq.serving.server.manager import ModelManager
    from tfcq.serving.server.versions import single_model_config

    manager = ModelManager()
    manager.configure(single_model_config("cqf", f"~/{NASTY} exports/cqf"))
    version, servable = manager.find(model_pb2.ModelSpec(name="cqf"))
    seeds = tfcq.row_seeds(4, seed=3)
    answer = servable.predict("sample", {"seed": seeds, "temperature": np.ones(4, np.float32)})["images"]
    difference = np.abs(answer.astype(int) - tfcq.Run(run).model().sample(seeds))
    assert version == 1 and difference.max() <= 1 and (difference > 0).mean() < 0.01  # a value at a bin's edge
    assert model.steps_taken == 2

    assert output_of(drawing) == f"wrote {home}/-{NASTY}/x.png\n"
    assert cells(tf.io.decode_png((home / f"-{NASTY}" / "x.png").read_bytes()), 2, 8).shape == (2, 8, 8, 1)
