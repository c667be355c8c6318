"""Pictures of a trained model: `python -m tfcq.sample --workdir=DIR --mode=prior --num_samples=64 --output=FILE.png`."""

from absl import flags

from tfcq import picture_files
from tfcq import workdir as workdirs
from tfcq.config import flags as config_flags
from tfcq.config.evaluation import ImagesPlace
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.machine import files

WORKDIR = config_flags.define_folder("workdir", None, "Folder of a trained run.")
_REBUILT = [name for name, one in ENDPOINTS.items() if one.inputs == ("images", "seeds") and "images" in one.outputs]
"""The endpoints that make an image of an image, which is shown beside it."""

MODE = flags.DEFINE_enum(
    "mode",
    "prior",
    ["prior", *_REBUILT, "super_resolve", "interpolate"],
    "prior: new images | super_resolve: test images, their compressed images, and images drawn of those | interpolate: rows "
    "between pairs of test images | others: test images, and beside them "
    + "; ".join(f"{name}: {ENDPOINTS[name].meaning}" for name in _REBUILT) + ".",
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 64, "New images, reconstructed images, or rows.", lower_bound=1)
INTERPOLATION = flags.DEFINE_enum(
    "interpolation",
    "linear",
    ["linear", "spherical"],
    "The way of mode interpolate, in the space of the noise that latents are made of (of the latents, where they are not).",
)
OUTPUT = config_flags.define_file(
    "output",
    None,
    "File of the picture; its ending says the format: .png | .jpg | .webp (default: samples/MODE.png in the workdir).",
)
SEED = flags.DEFINE_integer("seed", 0, "Of the images; image i of seed s is always the same.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Scales the prior's standard deviation (mode prior).", lower_bound=0.0
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Of the images that are reconstructed.")
IMAGE_DRAW = flags.DEFINE_enum(
    "image_draw", "", ["", "sample", "mode"], "How images are drawn of logistic mixtures, instead of the run's --image_draw."
)
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")
config_flags.define_section_flags(ImagesPlace)


def main():
    if not WORKDIR.value:
        raise UserError("expected --workdir=DIR of a trained run")
    path = OUTPUT.value or f"{WORKDIR.value}/samples/{MODE.value}.png"
    picture_files.check_name(path)
    workdirs.read_config(WORKDIR.value)  # says it at once where there is no run
    files.check_file("output", path)
    config_flags.start_tensorflow()
    from tfcq.evaluation.pictures import Pictures

    model = workdirs.load(WORKDIR.value, CHECKPOINT.value, IMAGE_DRAW.value)
    pictures = Pictures(model)
    if MODE.value == "prior":
        picture = pictures.sample_grid(NUM_SAMPLES.value, SEED.value, TEMPERATURE.value)
    elif MODE.value in _REBUILT:
        model.require(MODE.value)
        picture = pictures.reconstruction_grid(_held_out(NUM_SAMPLES.value), SEED.value, MODE.value)
    elif MODE.value == "super_resolve":
        model.require(MODE.value)
        picture = pictures.super_resolution_grid(_held_out(NUM_SAMPLES.value), seed=SEED.value)
    else:
        images_of_pairs = _held_out(2 * NUM_SAMPLES.value)
        spherical = INTERPOLATION.value == "spherical"
        picture = pictures.interpolation_grid(images_of_pairs, seed=SEED.value, spherical=spherical)
    with files.writing("output", path):
        picture_files.write(path, picture)
    print(f"wrote {path}", flush=True)


def _held_out(count):
    dataset = workdirs.load_data(WORKDIR.value, config_flags.section_from_flags(ImagesPlace))
    available = dataset.num_images(SPLIT.value)
    if count > available:
        raise UserError(
            f"num_samples={NUM_SAMPLES.value} with mode={MODE.value} needs {count} images of the {SPLIT.value} split, which has "
            f"{available}; expected --num_samples={available * NUM_SAMPLES.value // count or 1} or fewer"
        )
    return dataset.images(SPLIT.value, list(range(count)))


if __name__ == "__main__":
    config_flags.run(main, outlives_stdout=True)
