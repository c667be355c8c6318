"""Exports a trained model: `python -m tfcq.export --workdir=DIR --export_dir=BASE` writes BASE/<model name>/<version>/."""

from absl import flags

from tfcq import workdir as workdirs
from tfcq.config import flags as config_flags
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
ALLOW_OTHER_SIGNATURES = flags.DEFINE_bool(
    "allow_other_signatures",
    False,
    "Export even where the newest version in BASE takes or answers other tensors (another image size, other channels or latents, "
    "an endpoint less): a server that watches BASE would then answer its clients otherwise.",
)


def main():
    if not WORKDIR.value or not EXPORT_DIR.value:
        raise UserError("expected --workdir=DIR and --export_dir=BASE")
    workdirs.read_config(WORKDIR.value)  # says it at once where there is no run
    config_flags.start_tensorflow()
    from tfcq.exporting.export import export

    path = export(
        WORKDIR.value, EXPORT_DIR.value, SAMPLES.value, CHECKPOINT.value, IMAGE_DRAW.value, ALLOW_OTHER_SIGNATURES.value
    )
    print(f"exported {path}", flush=True)


if __name__ == "__main__":
    config_flags.run(main, outlives_stdout=True)
