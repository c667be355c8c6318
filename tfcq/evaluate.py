"""Measures a trained model: `python -m tfcq.evaluate --workdir=DIR [--metrics=all] [--split=test]`.

With `--compare=DIR,DIR,...` it compares the measurements of several workdirs.
"""

import sys

from tfcq import workdir as workdirs
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config.evaluation import EvaluationConfig, metric_names
from tfcq.errors import UserError
from tfcq.metrics.registry import flag_help
from tfcq.run import Run

_GROUPS = {
    "Likelihoods": ("num_images", "num_importance_samples", "likelihood_dataset", "likelihood_test_split"),
    "Samples against real images": (
        *("num_samples", "num_seeds", "seed", "temperature", "image_draw", "features", "feature_weights"),
        *("num_train_images", "neighbour_distance", "num_pairs", "reference_dataset", "reference_test_split"),
    ),
    "Where the run's images are now": ("dataset", "data_dir", "data_cache", "accept_changed_data"),
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
    flags.group("Comparison")
    flags.folders(
        "compare",
        [],
        "Evaluated workdirs that are put in one table and figure; one with a comma in its name stands in double quotes",
    )
    flags.folder("output", "comparison", "The folder for what --compare writes")
    for title, names in _GROUPS.items():
        flags.group(title)
        flags.options(EvaluationConfig, names)


def main(flags: Flags) -> None:
    """Evaluates, or compares evaluated runs."""
    if bool(flags.workdir) == bool(flags.compare):
        raise UserError("expected --workdir=DIR of a trained run, or --compare=DIR,DIR,... of evaluated ones")
    options = flags.section(EvaluationConfig)
    metrics = None if flags.metrics is None else metric_names(flags.metrics)
    starting.reach(flags.workdir, flags.output, *flags.compare)
    for folder in flags.compare or [flags.workdir]:
        workdirs.read_config(folder)  # reports a folder without a run at once
    starting.start_tensorflow()
    if flags.compare:
        from tfcq.evaluation.comparison import write_comparison

        print(f"wrote {write_comparison(flags.compare, flags.output)}", flush=True)
        return
    Run(flags.workdir).evaluate(metrics, flags.report, **vars(options))


COMMAND = Command("tfcq evaluate", __doc__, define, main, outlives_stdout=True, presets="evaluation")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
