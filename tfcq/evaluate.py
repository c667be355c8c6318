"""Measures a trained model: `python -m tfcq.evaluate --workdir=DIR [--metrics=all] [--split=test]`.

With `--compare=DIR,DIR,...` it sets what was measured in several workdirs side by side.
"""

from absl import flags

from tfcq import workdir as workdirs
from tfcq.config import flags as config_flags
from tfcq.config.evaluation import EvaluationConfig, metric_names
from tfcq.errors import UserError
from tfcq.metrics.registry import flag_help

WORKDIR = config_flags.define_folder("workdir", None, "Folder of a trained run.")
METRICS = flags.DEFINE_list(
    "metrics",
    None,
    "all, or some of the following, separated by commas (default: the likelihoods that the model has).\n" + flag_help(),
)
REPORT = flags.DEFINE_bool("report", True, "Write report.md and its figures.")
COMPARE = config_flags.define_folders(
    "compare",
    [],
    "Workdirs that were evaluated, to be put in one table and figure, separated by commas; one with a comma in its name stands "
    "in double quotes.",
)
OUTPUT = config_flags.define_folder("output", "comparison", "Folder for what --compare writes.")
config_flags.define_section_flags(EvaluationConfig)


def main():
    if bool(WORKDIR.value) == bool(COMPARE.value):
        raise UserError("expected --workdir=DIR of a trained run, or --compare=DIR,DIR,... of evaluated ones")
    options = config_flags.section_from_flags(EvaluationConfig)
    metrics = None if METRICS.value is None else metric_names(METRICS.value)
    for folder in COMPARE.value or [WORKDIR.value]:
        workdirs.read_config(folder)  # says it at once where there is no run
    config_flags.start_tensorflow()
    if COMPARE.value:
        from tfcq.evaluation.comparison import write_comparison

        print(f"wrote {write_comparison(COMPARE.value, OUTPUT.value)}", flush=True)
        return
    from tfcq.evaluation.run import evaluate

    evaluate(WORKDIR.value, metrics, REPORT.value, **vars(options))


if __name__ == "__main__":
    config_flags.run(main, outlives_stdout=True)
