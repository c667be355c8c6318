"""Exports a trained model: `python -m tfcq.export --workdir=DIR --export_dir=BASE` writes BASE/<model name>/<version>/."""

from absl import flags

from tfcq import flags as config_flags
from tfcq.errors import UserError

WORKDIR = config_flags.define_folder("workdir", None, "Folder of a trained run.")
EXPORT_DIR = config_flags.define_folder("export_dir", None, "BASE of the exported models.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")
IMAGE_DRAW = flags.DEFINE_enum(
    "image_draw", "", ["", "sample", "mode"], "How images are drawn of logistic mixtures, instead of the run's --image_draw."
)
SAMPLES = flags.DEFINE_integer(
    "num_importance_samples", 10, "K of the likelihood endpoint; its cost grows with K.", lower_bound=1
)


def main():
    if not WORKDIR.value or not EXPORT_DIR.value:
        raise UserError("expected --workdir=DIR and --export_dir=BASE")
    config_flags.start_tensorflow()
    from tfcq.exporting.export import export

    path = export(WORKDIR.value, EXPORT_DIR.value, SAMPLES.value, CHECKPOINT.value, IMAGE_DRAW.value)
    print(f"exported {path}", flush=True)


if __name__ == "__main__":
    config_flags.run(main)
