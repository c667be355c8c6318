"""Measures a trained model: `python -m tfcq.evaluate --workdir=DIR [--metrics=all] [--split=test]`.

With `--generated=PLACE --reference=PLACE --output=DIR` it measures images that are there already, of any model, beside real ones.
With `--compare=DIR,DIR,...` it compares the measurements in several folders.
"""

import dataclasses
import sys

from tfcq import workdir as workdirs
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config import DataConfig
from tfcq.config.data import PREPARATION
from tfcq.config.evaluation import OF_IMAGE_SETS, EvaluationConfig, metric_names
from tfcq.errors import UserError
from tfcq.image_sets import evaluate_images
from tfcq.metrics.registry import flag_help
from tfcq.run import Run

_GROUPS = {
    "Likelihoods": ("num_images", "num_importance_samples", "likelihood_dataset", "likelihood_test_split"),
    "Samples against real images": (
        *("num_samples", "num_seeds", "seed", "temperature", "image_draw", "features", "feature_weights"),
        *("num_train_images", "neighbour_distance", "near_copy_quantile", "num_pairs"),
        *("reference_dataset", "reference_test_split"),
    ),
    "Where real images are": ("dataset", "data_dir", "data_cache", "accept_changed_data"),
    "The machine": ("batch_size", "distribution", "logical_devices", "cache_dir"),
}


def define(flags: Flags) -> None:
    """The flags of `tfcq.evaluate`."""
    flags.group("What is measured")
    flags.folder("workdir", None, "The folder of a trained run")
    flags.several(
        "metrics",
        None,
        "What is measured: all, or some of the following (default: the likelihoods that the model has).\n" + flag_help(),
    )
    flags.options(EvaluationConfig, ("split", "checkpoint"))
    flags.boolean("report", True, "Writes report.md and its figures")
    flags.group("Images instead of a model")
    place = "folder:DIR or DIR (all below it) | list:FILE (a path a line) | npz:FILE | idx:DIR | a data set"
    flags.string("generated", None, f"The generated images that are measured, without a model: {place}", "PLACE")
    flags.string(
        "reference",
        None,
        "The real images that they are compared with, named alike: all of them, but of a data set with splits, and with --split, "
        "those of that split, as in a run",
        "PLACE",
    )
    flags.integer(
        "image_size", None, "The side at which images of both are compared, in pixels (default: the generated images')", minimum=4
    )
    flags.options(DataConfig, PREPARATION)
    flags.group("Comparison")
    flags.folders(
        "compare",
        [],
        "Evaluated workdirs, or outputs of --generated, that are put in one table and figure; one with a comma in its name "
        "stands in double quotes",
    )
    flags.folder("output", None, "The folder for what --generated or --compare writes (default of --compare: comparison)")
    for title, names in _GROUPS.items():
        flags.group(title)
        flags.options(EvaluationConfig, names)


def main(flags: Flags) -> None:
    """Evaluates a run or images, or compares what was evaluated."""
    if [bool(flags.workdir), bool(flags.compare), bool(flags.generated)].count(True) != 1:
        raise UserError(
            "expected --workdir=DIR of a trained run, or --compare=DIR,DIR,... of evaluated ones, or --generated=PLACE of images"
        )
    _check_flags(flags)
    options = flags.section(EvaluationConfig)
    metrics = None if flags.metrics is None else metric_names(flags.metrics)
    starting.reach(flags.workdir, flags.output, *flags.compare)
    if flags.generated:
        preparation = flags.given_of(DataConfig) | {"image_size": flags.image_size}
        given = flags.given_of(EvaluationConfig)
        starting.start_tensorflow()
        evaluate_images(flags.generated, flags.reference, flags.output, metrics, flags.report, **preparation, **given)
        return
    for folder in flags.compare or [flags.workdir]:
        if not (flags.compare and workdirs.has_evaluated_images(folder)):
            workdirs.read_config(folder)  # reports a folder without a run at once
    starting.start_tensorflow()
    if flags.compare:
        from tfcq.evaluation.comparison import write_comparison

        print(f"wrote {write_comparison(flags.compare, flags.output or 'comparison')}", flush=True)
        return
    Run(flags.workdir).evaluate(metrics, flags.report, **vars(options))


def _check_flags(flags):
    """Raises UserError if a flag was given that has no meaning with or without --generated, or one is missing."""
    if not flags.generated:
        unfit, expected = ["reference", "image_size", *PREPARATION], "with --generated alone"
    else:
        for name, what in (("reference", "PLACE of real images"), ("output", "DIR for the numbers and the report")):
            if not getattr(flags, name):
                raise UserError(f"expected --{name}={what} with --generated")
        options = [field.name for field in dataclasses.fields(EvaluationConfig)]
        unfit, expected = [name for name in options if name not in OF_IMAGE_SETS], "with --workdir, and not with --generated"
    for name in unfit:
        if flags.values[name].present:
            raise UserError(f"{name}: expected it {expected}")


COMMAND = Command("tfcq evaluate", __doc__, define, main, outlives_stdout=True, presets="evaluation")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
