"""Pictures of a trained model: `python -m tfcq.sample --workdir=DIR --mode=prior --num_samples=64 --output=FILE.png`."""

from absl import flags

from tfcq import flags as config_flags
from tfcq.errors import UserError

WORKDIR = config_flags.define_folder("workdir", None, "Folder of a trained run.")
MODE = flags.DEFINE_enum(
    "mode",
    "prior",
    ["prior", "reconstruct", "generative_reconstruct", "super_resolve", "interpolate"],
    "prior: new images | reconstruct: test images beside their reconstructions | generative_reconstruct: beside what the "
    "first of two stages makes of them | super_resolve: test images, their compressed images, and images drawn of those | "
    "interpolate: rows between pairs of test images.",
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 64, "New images, reconstructed images, or rows.", lower_bound=1)
INTERPOLATION = flags.DEFINE_enum(
    "interpolation",
    "linear",
    ["linear", "spherical"],
    "The way of mode interpolate, in the space of the noise that latents are made of (of the latents, where they are not).",
)
OUTPUT = config_flags.define_file("output", None, "PNG file (default: samples/MODE.png in the workdir).")
SEED = flags.DEFINE_integer("seed", 0, "Of the images; image i of seed s is always the same.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Scales the prior's standard deviation (mode prior).", lower_bound=0.0
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Of the images that are reconstructed.")
IMAGE_DRAW = flags.DEFINE_enum(
    "image_draw", "", ["", "sample", "mode"], "How images are drawn of logistic mixtures, instead of the run's --image_draw."
)
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")


def main():
    if not WORKDIR.value:
        raise UserError("expected --workdir=DIR of a trained run")
    config_flags.start_tensorflow()
    from tfcq import images, workdir
    from tfcq.evaluation.pictures import Pictures

    model = workdir.load(WORKDIR.value, CHECKPOINT.value, IMAGE_DRAW.value)
    pictures = Pictures(model)
    if MODE.value == "prior":
        picture = pictures.sample_grid(NUM_SAMPLES.value, SEED.value, TEMPERATURE.value)
    elif MODE.value in ("reconstruct", "generative_reconstruct"):
        model.require(MODE.value)
        picture = pictures.reconstruction_grid(_held_out(model, NUM_SAMPLES.value), SEED.value, MODE.value)
    elif MODE.value == "super_resolve":
        model.require(MODE.value)
        picture = pictures.super_resolution_grid(_held_out(model, NUM_SAMPLES.value), seed=SEED.value)
    else:
        images_of_pairs = _held_out(model, 2 * NUM_SAMPLES.value)
        spherical = INTERPOLATION.value == "spherical"
        picture = pictures.interpolation_grid(images_of_pairs, seed=SEED.value, spherical=spherical)
    path = OUTPUT.value or f"{WORKDIR.value}/samples/{MODE.value}.png"
    try:
        images.write_png(path, picture)
    except OSError as error:
        raise UserError(f"output {path}: cannot be written: {error.strerror}") from error
    print(f"wrote {path}", flush=True)


def _held_out(model, count):
    from tfcq import data

    dataset = data.load(model.config_of_run.data)
    available = dataset.num_images(SPLIT.value)
    if count > available:
        raise UserError(f"expected at most {available} images, the {SPLIT.value} split, received a need of {count}")
    return dataset.images(SPLIT.value, list(range(count)))


if __name__ == "__main__":
    config_flags.run(main)
