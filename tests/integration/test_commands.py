"""The commands, most of them as processes: signals, exit statuses, what they print, and that a stopped run goes on."""

import json
import re
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from commands import TINY, command, last_step, output_of, run_here, start
from grid_cells import cells
from markdown_tables import unpadded

from tfcq.errors import UserError
from tfcq.evaluation.run import evaluate

FLAGS = TINY | {"dataset": "digits", "train_steps": 600, "checkpoint_every": 10, "evaluate_every": 600}


def stopped_by(number, workdir):
    """Starts the training, sends it the signal once it has taken steps; returns (status, stderr)."""
    before = last_step(workdir)
    process = start(command("train", workdir=workdir, **FLAGS))
    try:
        while process.poll() is None and last_step(workdir) <= before:
            time.sleep(0.005)
        process.send_signal(number)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, errors


def done_here(name, **flags):
    """What a command prints; in this process, as another start of TensorFlow takes seconds."""
    status, output, errors = run_here(name, *(f"--{flag}={value}" for flag, value in flags.items()))
    assert (status, errors) == (0, "")
    return output


def state(workdir):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "last" / f"step-{FLAGS['train_steps']}"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names if not name.startswith("save_counter")}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_training_that_is_stopped_twice_ends_as_one_that_is_not(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    undisturbed = start(command("train", workdir=whole, **FLAGS))  # beside the others, to save time
    try:
        steps = []
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            returned, errors = stopped_by(number, stopped)
            steps.append(last_step(stopped))
            expected = (
                f"error: {number.name} at step {steps[-1]}: state saved; run the same command again to resume\n"
            )
            assert (returned, errors) == (status, expected)
        assert 0 < steps[0] < steps[1] < FLAGS["train_steps"]
        # The workdir alone is enough to go on.
        assert f"resumed from step {steps[1]}" in output_of(start(command("train", workdir=stopped)))
        output_of(undisturbed)
    finally:
        undisturbed.kill()
    expected, received = state(whole), state(stopped)
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_workdir_is_evaluated_and_drawn_by_commands_that_repeat_no_flag(tmp_path):
    tiny.make_workdir(tmp_path, tiny.config(8, latent_size=4, **tiny.ROWS["vae"]))
    picture = tmp_path / "picture.png"
    evaluation = start(command("evaluate", workdir=tmp_path, num_images=20, num_importance_samples=2))
    drawing = start(command("sample", workdir=tmp_path, mode="interpolate", num_samples=2, output=picture))
    for process in (evaluation, drawing):
        output = output_of(process)
        if process is evaluation:
            assert re.search(r"^elbo: [\d.]+ \+- [\d.]+ bits/dim \(test, 20 images, ELBO\)$", output, re.M), output
            assert re.search(r"^bits_per_dim: [\d.]+ \+- [\d.]+ bits/dim \(test, 20 images, K=2\)$", output, re.M), (
                output
            )
        else:
            told = f"workdir {tmp_path}: no best checkpoint is kept, so the last is taken, of step 1"
            assert output.splitlines() == [told, f"wrote {picture}"]
    row = json.loads((tmp_path / "metrics.json").read_text())
    assert row["bits_per_dim"]["num_importance_samples"] == 2 and row["split"] == "test"
    assert cells(tf.io.decode_png(picture.read_bytes()), 8, 8).shape == (2 * 8, 8, 8, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_samples_are_measured_on_two_devices_and_compared_by_commands(tmp_path):
    for name in "ab":
        tiny.make_workdir(tmp_path / name, tiny.config(8, latent_size=4, **tiny.ROWS["vae"]))
    facts = {"metrics": "frechet_distance", "features": "pixels", "num_samples": 30, "cache_dir": tmp_path / "cache"}
    on_two_devices = start(command("evaluate", workdir=tmp_path / "a", logical_devices=2, **facts))
    done_here("evaluate", workdir=tmp_path / "b", **facts)
    output_of(on_two_devices)
    numbers = [json.loads((tmp_path / name / "metrics.json").read_text())["fd_pixels"] for name in "ab"]
    assert numbers[0]["value"] == pytest.approx(numbers[1]["value"], rel=1e-2)  # the weights are the same
    said = done_here("evaluate", compare=f"{tmp_path}/a,{tmp_path}/b", output=tmp_path / "c")
    assert said == f"wrote {tmp_path}/c/comparison.md\n"
    assert "| number | a | b | real |" in unpadded((tmp_path / "c" / "comparison.md").read_text())


@pytest.mark.parametrize(
    "protocol, message",
    [
        ({"features": "inceptoin"}, r"did you mean inception\?"),
        ({"split": "tset"}, r"did you mean test\?"),
        ({"num_seeds": 0}, "num_seeds: expected at least 1, received 0"),
        ({"metrics": "frechet"}, r"did you mean frechet_distance\?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_protocol_is_one_line_and_status_2(protocol, message, tmp_path):
    tiny.make_workdir(tmp_path, tiny.config(8, latent_size=4, **tiny.ROWS["vae"]))
    protocol = {"metrics": "prd"} | protocol
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path, **protocol)
    if protocol["metrics"] == "frechet":  # one stands for all: a process takes seconds
        output, errors = (process := start(command("evaluate", workdir=tmp_path, **protocol))).communicate(timeout=600)
        assert process.returncode == 2 and re.fullmatch(rf"error: .*{message}.*\n", errors), errors


@pytest.mark.parametrize("module", ["train", "evaluate", "sample", "export"])
def test_a_mistake_is_one_line_and_status_2(module, tmp_path):
    process = start(command(module, workdir=tmp_path / "none", no_such_flag=1))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 2 and output == ""
    assert re.fullmatch(r"error: .*no_such_flag.*\n", errors)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_srvae_is_drawn_and_measured_and_a_model_of_mixtures_exported_by_commands(tmp_path):
    workdir, small = tmp_path / "run", {"prior_scales": 1, "data": {"color": "rgb", "num_validation": 100}}
    tiny.make_workdir(workdir, tiny.config(16, model="srvae", **small))
    tiny.make_workdir(tmp_path / "vae", tiny.config(16, model="vae_bijective_prior", **small))  # sooner traced
    protocol = {"metrics": "elbo", "num_images": 4, "likelihood_dataset": "photo_patches"}
    export = {"export_dir": tmp_path, "num_importance_samples": 2, "image_draw": "mode"}
    picture = tmp_path / "super_resolve.png"
    exporting = start(command("export", workdir=tmp_path / "vae", **export))
    done_here("evaluate", workdir=workdir, **protocol)
    done_here("sample", workdir=workdir, mode="super_resolve", num_samples=2, output=picture)
    output_of(exporting, timeout=600)
    # An image, its compressed image and four draws.
    assert cells(tf.io.decode_png(picture.read_bytes()), 6, 16).shape == (2 * 6, 16, 16, 3)
    assert (tmp_path / "vae_bijective_prior" / "1" / "saved_model.pb").is_file()
    card = (tmp_path / "vae_bijective_prior" / "1" / "assets.extra" / "MODEL_CARD.md").read_text()
    assert "`reconstruct`" in card and '"image_draw": "mode"' in card
    row = json.loads((workdir / "metrics.json").read_text())
    assert row["image_draw"] == "sample" and row["elbo_other"]["dataset"] == "photo_patches"
    text = unpadded((workdir / "report.md").read_text())
    for term in ("reconstruction_x", "reconstruction_y", "kl_z", "kl_u"):
        assert f"| {term} | {row['elbo']['terms'][term]:.5g} | {row['elbo']['terms_bits_per_dim'][term]:.5g} |" in text
    pictures = {path.stem for path in (workdir / "report").glob("*.png")}
    assert pictures >= {"samples", "reconstructions", "generative_reconstructions", "super_resolutions"}
