"""Trains the rows of a paper's table for one budget each, measures them, and sets them beside the paper's numbers.

    python -m tfcq.reproduce --table=1 --dataset=cifar10 --budget_minutes=30 --narrow=0.25

Any flag of tfcq.train holds for all rows; what makes a row stays (--quality_weight=10 leaves the vae without a
discriminator). Evaluation takes the last checkpoint, which is all that a row without a likelihood keeps. What is counted
as training time: see tfcq.reproduction.process.Clock. The same command run again goes on with what is not done; rows that failed
are tried again, and other --rows, --metrics or evaluation options need no new training.
"""

import dataclasses
import shlex
import sys
import typing

from absl import flags
from absl.testing import flagsaver

from tfcq.config import flags as config_flags
from tfcq.config.evaluation import EvaluationConfig, metric_names
from tfcq.config.fields import Section
from tfcq.errors import UserError
from tfcq.metrics.registry import LATENT_LIKELIHOODS, LIKELIHOODS
from tfcq.reproduction.report import write_report
from tfcq.reproduction.run import Ablation, Budget, Job
from tfcq.reproduction.tables import TABLES, WIDTHS

config_flags.define_config_flags()
TABLE = flags.DEFINE_enum("table", None, list(TABLES), "Which table of the paper.")
MINUTES = flags.DEFINE_float("budget_minutes", None, "Wall-clock minutes of training a row.", lower_bound=0.01)
STEPS = flags.DEFINE_integer("budget_steps", None, "Steps of training a row, instead of minutes.", lower_bound=1)
ROW_STEPS = flags.DEFINE_list(
    "row_steps", [], "Other steps for some rows, ROW:STEPS separated by commas, such as those that take equal minutes."
)
ROWS = flags.DEFINE_list("rows", [], "The rows to run, separated by commas (default: all).")
OUTPUT = config_flags.define_folder("output", None, "Folder (default: runs/ablation_TABLE).")
NARROW = flags.DEFINE_float("narrow", 1.0, "Multiplies every default width of the networks.", lower_bound=1e-3)
METRICS = flags.DEFINE_list(
    "metrics",
    None,
    "What to measure, as --metrics of tfcq.evaluate; likelihoods are left out where a row has none (default: the table's).",
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands and stop.")


def _evaluation_options():
    """The options of tfcq.evaluate whose flags tfcq.train does not have too; those that both have are of training here."""
    kinds = typing.get_type_hints(EvaluationConfig)
    fields = {field.name: field for field in dataclasses.fields(EvaluationConfig) if field.name not in flags.FLAGS}
    own = [
        (name, kinds[name], dataclasses.field(default=field.default, metadata=field.metadata))
        for name, field in fields.items()
        if name != "checkpoint"
    ]
    return dataclasses.make_dataclass("EvaluationOptions", own, bases=(Section,), frozen=True)


EVALUATION = _evaluation_options()
config_flags.define_section_flags(EVALUATION)


def _jobs(table, given, budget):
    """[Job] of every row that was asked for, with flags that make a valid Config."""
    metrics = metric_names(list(table.metrics) if METRICS.value is None else METRICS.value)
    config_flags.section_from_flags(EVALUATION)  # a value out of bounds is said now, not after an hour of training
    options = {name: flags.FLAGS[name].value for name in (field.name for field in dataclasses.fields(EVALUATION))}
    options = {name: value for name, value in options.items() if value is not None}
    jobs = []
    for row in [table.row(name) for name in ROWS.value] or table.rows:
        train = table.flags(row, given, NARROW.value)
        train |= _of_row(row, budget.flags, train, row.name, row.first_stage_share)
        with flagsaver.flagsaver(**(dict.fromkeys(given) | train)):  # as the row's own command will read them
            _of_row(row, config_flags.config_from_flags)
        likelihoods = {"images": LIKELIHOODS, "latents": LATENT_LIKELIHOODS}
        missing = [name for kind, names in likelihoods.items() if kind != row.likelihood for name in names]
        chosen = [name for name in metrics if name not in missing]
        evaluate = {"metrics": ",".join(chosen), "checkpoint": "last"} | options if chosen else {}
        jobs.append(Job(row.name, train, evaluate))
    return jobs


def _of_row(row, function, *arguments):
    """What `function` gives; its errors name the row."""
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(f"row {row.name}: {error}") from error


def _row_steps(table):
    """{row name: steps} of --row_steps."""
    found = {}
    for part in ROW_STEPS.value:
        name, _, steps = part.partition(":")
        if not steps.isdecimal() or not int(steps):
            raise UserError(f"row_steps: expected ROW:STEPS,... with at least 1 step, received {part!r}")
        found[table.row(name).name] = int(steps)
    return found


def _told(table, given, budget):
    """Sentences for the protocol."""
    taken = f"{budget.steps} steps" if budget.steps else f"{budget.minutes:g} minutes of training"
    others = "".join(f", {name} {steps}" for name, steps in budget.row_steps.items())
    counted = (
        "minutes are counted from a process's first line of progress (about a second after its first step, which traces and "
        "compiles) to its last, or to the end of the budget: checkpoints and evaluations between steps count; start-up, the "
        "evaluation at step 0 and what follows the last step do not; the step under way at the end is finished"
    )
    return [
        f"Budget: {taken} a row{others}, in batches of the row's size; {counted}.",
        f"Widths ({', '.join(WIDTHS)}): {NARROW.value:g} times their defaults, where not given here.",
        f"All rows: {_written(table.options | given)}.",
        *(f"Row {row.name}: {_made(table, row, given)}{_larger(row)}." for row in table.rows),
    ]


def _made(table, row, given):
    """What makes a row, and its defaults where the command line did not say otherwise."""
    model = {"model": row.model} if row.model else {}
    return _written(model | {name: value for name, value in row.defaults.items() if name not in given} | row.options)


def _written(options):
    return " ".join(f"--{name}={value}" for name, value in options.items())


def _larger(row):
    return "".join(f", {name} times {factor:g} (at least 1 more)" for name, factor in row.factors.items())


def main():
    if not TABLE.value:
        raise UserError(f"expected --table={'|'.join(TABLES)}, received none")
    given = config_flags.given_flags()
    if flags.FLAGS.model:
        raise UserError(f"--model={flags.FLAGS.model}: the rows of a table name their model; leave the flag out")
    if not given.get("dataset"):
        raise UserError("expected --dataset=..., as that of tfcq.train, received none")
    table = TABLES[TABLE.value]
    budget = Budget(MINUTES.value, STEPS.value, _row_steps(table))
    jobs = _jobs(table, given, budget)
    output = OUTPUT.value or f"runs/ablation_{TABLE.value}"
    if DRY_RUN.value:
        for job in jobs:
            for which in ("train", "evaluate") if job.evaluate else ("train",):
                print(shlex.join(["python", "-m", f"tfcq.{which}", *job.arguments(which, f"{output}/{job.name}")]))
        return
    spent = {name: value for name, value in dataclasses.asdict(budget).items() if name != "row_steps" or value}
    plan = {"table": TABLE.value, "budget": spent, "narrow": NARROW.value, "flags": given}
    ablation, told = Ablation(output, plan, budget), _told(table, given, budget)

    def report():
        return write_report(table, ablation.rows, output, told)

    failed = ablation.run(jobs, after_row=report)
    print(f"wrote {report()}", flush=True)
    if failed:
        print(f"error: {len(failed)} of {len(jobs)} rows failed: {', '.join(failed)}; see the table", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    config_flags.run(main)
