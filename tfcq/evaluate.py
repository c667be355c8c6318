"""Measures a trained model: `python -m tfcq.evaluate --workdir=DIR [--metrics=elbo,bits_per_dim] [--split=test]`."""

from absl import flags

from tfcq import flags as config_flags
from tfcq.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.")
METRICS = flags.DEFINE_list(
    "metrics", ["elbo", "bits_per_dim"], "elbo | bits_per_dim (importance-weighted), separated by commas."
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Of the data set.")
NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "The first images of the split; 0: all.", lower_bound=0)
SAMPLES = flags.DEFINE_integer("num_importance_samples", 50, "K of bits_per_dim.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the noise.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images at a time; changes no number.", lower_bound=1)
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")


def main():
    if not WORKDIR.value:
        raise UserError("expected --workdir=DIR of a trained run")
    config_flags.start_tensorflow()
    from tfcq.evaluation.run import evaluate

    evaluate(
        WORKDIR.value,
        METRICS.value,
        split=SPLIT.value,
        num_images=NUM_IMAGES.value,
        num_importance_samples=SAMPLES.value,
        seed=SEED.value,
        batch_size=BATCH_SIZE.value,
        checkpoint=CHECKPOINT.value,
    )


if __name__ == "__main__":
    config_flags.run(main)
