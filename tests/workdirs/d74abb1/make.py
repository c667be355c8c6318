import json
import os
import pathlib
import shutil

import numpy as np
import tiny_models as tiny
from PIL import Image

from tfcq import data, workdir
from tfcq.randomness import row_seeds
from tfcq.training.run import train


def pixels(number):
    return np.random.RandomState(number).randint(0, 256, (4, 4)).astype(np.uint8)


def write(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)


def config(steps):
    training = {"train_steps": steps, "checkpoint_every": 2, "evaluate_every": 2, "validation_images": 4, "keep_checkpoints": 2}
    return tiny.config(4, data={"dataset": "folder:images"}, training=training, model="vae")


images = pathlib.Path("images")
for number in range(20):
    write(images / f"Train/a/{number:02}.png", number)
for number in range(20, 30):
    write(images / f"Test/b/{number:02}.png", number)
for number in range(30, 33):
    write(images / f"Train/a/{number:02}.tif", number)
os.symlink("a", images / "Train/again")

train(config(2), "run")
train(config(4), "longer")
known = {pixels(number).tobytes(): number for number in range(33)}
dataset = data.load(config(2).data)
splits = {
    split: [known[image.tobytes()] for image in dataset.images(split, range(dataset.num_images(split)))]
    for split in ("train", "validation", "test")
}
test, expected = dataset.images("test", range(5)), {"commit": "d74abb1", "splits": splits}
for name, folder in (("at_step_2", "run"), ("at_step_4", "longer")):
    model = workdir.load(folder, "last")
    expected[name] = {
        "log_prob": model.log_prob(test, row_seeds(5), 3).tolist(),
        "samples": model.sample(row_seeds(4))[..., 0].reshape(4, 16).tolist(),
    }
target = pathlib.Path("d74abb1")
for kind in ("last", "best"):
    shutil.copytree(f"run/checkpoints/{kind}", target / "run/checkpoints" / kind)
for name in ("config.json", "data.json", "environment.json", "metrics.json", "metrics.jsonl"):
    shutil.copy(f"run/{name}", target / "run" / name)
environment = json.loads((target / "run/environment.json").read_text())
(target / "run/environment.json").write_text(json.dumps(environment | {"platform": "Linux"}, indent=2) + "\n")
lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
(target / "expected.json").write_text(f"{{\n{lines}\n}}\n")
