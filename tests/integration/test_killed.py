"""A run that is killed again and again, while images are added to its folder, ends as one that was left alone."""

import json
import os
import random
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf
from commands import command, last_step, start
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLS = int(os.environ.get("TFCQ_KILLS", "2"))
"""How often; 20 by hand now and then: each costs a start of TensorFlow."""

STEPS = 60 * (KILLS + 2)
FLAGS = {
    "model": "vae",
    "image_size": 8,
    "latent_dim": 3,
    "autoencoder_width": 2,
    "hidden_units": 6,
    "batch_size": 8,
    "train_steps": STEPS,
    "checkpoint_every": 17,
    "evaluate_every": 41,
    "log_every": 10,
    "validation_images": 4,
    "grid_images": 1,
}


def write(path, seed):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (8, 8)).astype(np.uint8)).save(path)


def train(images, workdir):
    arguments = command("train", **FLAGS, dataset=f"folder:{images}", workdir=workdir)
    return start(arguments, stderr=subprocess.STDOUT)


def weights(workdir):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "last" / f"step-{STEPS}"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name).tobytes() for name in names if not name.startswith("save_counter")}


def rows(workdir):
    """The rows of metrics.jsonl without what the clock says."""
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in read]


def curves(workdir):
    """{(writer, tag): [(step, value), ...]} of TensorBoard's scalars, as TensorBoard reads them."""
    found = {}
    for writer in ("train", "validation"):
        events = EventAccumulator(str(workdir / "tensorboard" / writer), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if tag == "time/images_per_second" or events.Tensors(tag)[0].tensor_proto.dtype != tf.float32.as_datatype_enum:
                continue
            found[writer, tag] = [
                (event.step, tf.make_ndarray(event.tensor_proto).tobytes()) for event in events.Tensors(tag)
            ]
    return found


@pytest.mark.long
@pytest.mark.timeout(300 + 60 * KILLS)
def test_killed_at_random_a_run_loses_and_doubles_nothing(tmp_path):
    for number in range(40):
        write(tmp_path / "images" / f"{number:02}.png", number)
    whole = train(tmp_path / "images", tmp_path / "whole")
    assert whole.wait() == 0, whole.stdout.read()
    clock, workdir = random.Random(0), tmp_path / "killed"
    for number in range(KILLS):
        process = train(tmp_path / "images", workdir)
        target = last_step(workdir) + clock.randint(1, 35)
        try:
            while last_step(workdir) < target and process.poll() is None:
                time.sleep(0.002)
            time.sleep(clock.uniform(0.0, 0.2))  # anywhere between two checkpoints, or while one is written
            assert process.poll() is None, process.stdout.read()
        finally:
            process.kill()
            process.communicate()
        write(tmp_path / "images" / f"00-{number}.png", 1000 + number)
    process = train(tmp_path / "images", workdir)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert f"{KILLS} added" in said and "resumed from step" in said
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    expected, received = curves(tmp_path / "whole"), curves(tmp_path / "killed")
    assert received.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in received[name]] == [step for step, _ in points], name  # none lost, none doubled
        if name[0] == "validation":  # a mean over --log_every steps is over fewer where a run was resumed between two
            assert received[name] == points
