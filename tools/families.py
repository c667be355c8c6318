"""The picture of README: rows of test images and of samples of four small models, all trained here on scikit-learn's digits.

    .venv/bin/python tools/families.py --output=docs/images/families.png [--models=runs/families]

Took 22 minutes on two cores beside other work; run again it goes on where it stopped.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfcq
from tfcq import picture_files
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags

DATA = tfcq.DataConfig(dataset="digits", image_size=8)
COLUMNS = 16
SCALE = 6  # of a pixel in the picture
GAP = 2  # pixels between two images, before they are scaled


def adam(steps: int, **options: object) -> tfcq.TrainingConfig:
    """Training with Adam that is evaluated at its end."""
    return tfcq.TrainingConfig(train_steps=steps, evaluate_every=steps, optimizer="adam", **options)


MODELS = {
    "glf": tfcq.Config(
        data=DATA,
        system=tfcq.GLFConfig(latent_dim=16, autoencoder_width=32, hidden_units=256),
        training=adam(4000, batch_size=128, learning_rate=1e-3, learning_rate_drops="0.5:0.5"),
    ),
    "cqf": tfcq.Config(
        data=DATA,
        system=tfcq.CQFConfig(
            latent_size=2, latent_form="vector", latent_levels=1, latent_channels=16, width=32, discriminator_width=32,
            flow_width=16, quality_weight=2.0, initial_sigma=0.5,
        ),
        training=adam(
            2000, beta_1=0.5, clip_norm=2000.0, warmup_steps=100, learning_rate=5e-4, discriminator_learning_rate=1e-3
        ),
    ),
    "soft_introvae": tfcq.Config(
        data=DATA,
        system=tfcq.SoftIntroVAEConfig(
            latent_dim=32, width=32, reconstruction_weight=1.5, kl_weight=1.0, negative_weight=16.0
        ),
        training=adam(4000, batch_size=64, learning_rate=2e-4, ema_decay=0.999),
    ),
    "srvae": tfcq.Config(
        data=DATA,
        system=tfcq.SRVAEConfig(latent_channels=4, growth_scale=0.25, steps_scale=0.3, prior_scales=1, prior_couplings=2),
        training=adam(2500, batch_size=64, learning_rate=1e-3, learning_rate_drops="0.5:0.5"),
    ),
}
"""{name of the row: how it is trained}."""


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.group("The picture")
    flags.file("output", "docs/images/families.png", "The file of the picture")
    flags.folder("models", "runs/families", "The folder of the trained models")


def main(flags: Flags) -> None:
    """Trains what is not trained yet, and draws the picture."""
    picture_files.check_name(flags.output)
    starting.start_tensorflow()
    rows = []
    for name, config in MODELS.items():
        run = tfcq.Run(flags.models / name, config)
        run.train()
        if not rows:
            rows.append(run.data().images("test", range(COLUMNS)))
        rows.append(run.model("last").sample(COLUMNS))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    picture_files.write(flags.output, grid_of(rows))
    print(f"wrote {flags.output}: test images, {', '.join(MODELS)}", flush=True)


def grid_of(rows: list[np.ndarray]) -> np.ndarray:
    """Images in rows, uint8 [N, H, W, C] each, on white, as one picture uint8 [height, width, C]."""
    framed = [np.pad(row, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255) for row in rows]
    lines = [np.concatenate(list(row), axis=1) for row in framed]
    return np.concatenate(lines, axis=0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)


COMMAND = Command("tools/families.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
