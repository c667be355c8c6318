"""Trains the rows of a paper's table for one budget each, measures them, and compares them with the paper's numbers.

    python -m tfcq.reproduce --table=1 --dataset=cifar10 \\
        --budget_minutes=30 --narrow=0.25

Any flag of tfcq.train applies to all rows, except to the options that define a row (with --quality_weight=10 the vae still has
no discriminator). The last checkpoint is evaluated, as rows without a likelihood keep no best one. With --budget_minutes the
rows' steps are timed first, in turns, so that other work on the machine slows them alike; each row then takes the steps that
fit into the minutes. The same command run again keeps to these steps, continues with the rows that are not done and retries those
that failed; other --rows, --metrics or evaluation options need no new training.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.config.evaluation import EvaluationConfig, metric_names
from tfcq.errors import UserError
from tfcq.machine import paths
from tfcq.metrics.registry import LATENT_LIKELIHOODS, LIKELIHOODS
from tfcq.picture_files import check_name
from tfcq.reproduction.curves import lines_of, thresholds_from, write_curves
from tfcq.reproduction.measured import labels_of
from tfcq.reproduction.plane import write_plane
from tfcq.reproduction.report import verdicts, write_report
from tfcq.reproduction.rows import WIDTHS
from tfcq.reproduction.run import Ablation, Budget, Job
from tfcq.reproduction.tables import TABLES
from tfcq.reproduction.timing import steps_in


def define(flags: Flags) -> None:
    """The flags of `tfcq.reproduce`: its own, those of `tfcq.train`, and the remaining ones of `tfcq.evaluate`."""
    flags.configuration()
    flags.group("The table")
    flags.choice("table", None, list(TABLES), "Which table of the paper is reproduced")
    flags.several("rows", [], "The rows that are run (default: all)")
    flags.folder("output", None, "The folder of the rows and their table (default: runs/ablation_TABLE)")
    flags.number("narrow", 1.0, "The factor of every default width of the networks", minimum=1e-3)
    flags.integer(
        "rows_at_once",
        1,
        "The rows that are trained or evaluated at a time, where a device has capacity to spare",
        minimum=1,
    )
    flags.boolean("dry_run", False, "Prints the commands and stops")
    flags.group("Pictures of any runs, instead of a table (which draws those of its rows itself)")
    flags.file("plane", None, "The picture of --runs in the coverage-quality plane: bits/dim against Frechet distance")
    flags.file("curves", None, "The picture of --runs over their trainings: Frechet distance against epochs")
    flags.folders("runs", [], "Workdirs for --plane and --curves; one with a comma in its name stands in double quotes")
    flags.several(
        "thresholds",
        [],
        "Distances of the table of epochs until the distance is at most so much, of --curves and of a table with curves "
        "(default: round ones)",
    )
    flags.group("The budget of a row")
    flags.number(
        "budget_minutes",
        None,
        "Minutes of training of each row: as many steps as take them by the time of a step, which is measured first",
        minimum=0.01,
    )
    flags.integer("budget_steps", None, "Steps of training of each row, instead of minutes", minimum=1)
    flags.several("row_steps", [], "Other steps for some rows, ROW:STEPS, such as those that take equal minutes")
    flags.group("The evaluation of a row")
    flags.several(
        "metrics",
        None,
        "What is measured, as --metrics of tfcq.evaluate; likelihoods are left out if a row has none (default: the table's)",
    )
    names = [field.name for field in dataclasses.fields(EvaluationConfig)]
    flags.options(EvaluationConfig, [name for name in names if name not in flags and name != "checkpoint"])


def _jobs(flags, table, given, budget):
    """[Job] of every requested row, with flags that make a valid Config."""
    metrics = metric_names(list(table.metrics) if flags.metrics is None else flags.metrics)
    flags.section(EvaluationConfig)  # reports a value out of bounds now, not after an hour of training
    options = flags.given_of(EvaluationConfig)
    jobs = []
    for row in [table.row(name) for name in flags.rows] or table.rows:
        train = table.flags(row, given, flags.narrow)
        train |= _of_row(row, budget.flags, train, row.name, row.first_stage_fraction)
        config = _of_row(row, config_of, train)  # as the row's own command will parse it
        train = {name: value for name, value in train.items() if name in given or name not in config.unused()}  # by --narrow
        likelihoods = {"images": LIKELIHOODS, "latents": LATENT_LIKELIHOODS}
        missing = [name for kind, names in likelihoods.items() if kind != row.likelihood for name in names]
        chosen = [name for name in metrics if name not in missing]
        evaluate = {"metrics": ",".join(chosen), "checkpoint": "last"} | options if chosen else {}
        jobs.append(Job(row.name, train, evaluate))
    return jobs


def _of_row(row, function, *arguments):
    """Calls `function`; its errors name the row."""
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(f"row {row.name}: {error}") from error


def _row_steps(flags, table):
    """{row name: steps} of --row_steps."""
    found = {}
    for part in flags.row_steps:
        name, _, steps = part.partition(":")
        if not steps.isdecimal() or not int(steps):
            raise UserError(f"row_steps: expected ROW:STEPS,... with at least 1 step, received {part!r}")
        found[table.row(name).name] = int(steps)
    return found


def _in_minutes(budget, table, given, jobs, ablation):
    """The budget with the rows' steps, which are timed where they are not yet."""

    def steps_of(name, ms_per_step):
        row = table.row(name)
        length = table.first_stage_steps(row, given)
        steps = _of_row(row, steps_in, budget.minutes, ms_per_step, row.first_stage_fraction, length)
        times = ", then ".join(f"{one:.4g}" for one in ms_per_step)
        print(f"row {name}: {times} ms a step, {steps} steps in {budget.minutes:g} minutes", flush=True)
        return steps

    return dataclasses.replace(budget, timed=ablation.time({job.name: job.train for job in jobs}, steps_of))


def _protocol(flags, table, given, budget, ablation):
    """Sentences for the protocol."""
    shared = [name for name, record in ablation.rows.items() if record.get("shared")]
    taken = f"{budget.steps} steps" if budget.steps else f"{budget.minutes:g} minutes of steps"
    others = "".join(f", {name} {steps}" for name, steps in budget.row_steps.items())
    by_time: dict[tuple[str, str], list[str]] = {}
    for name, timed in ablation.timing.items():
        by_time.setdefault((timed["time"], timed["machine"]), []).append(name)
    return [
        f"Budget: {taken} per row{others}, in batches of the row's size.",
        *(
            f"Steps of {', '.join(names)} timed in turns, {when}, on {machine}; data, checkpoints, evaluations and start-up are "
            "not in the minutes of the budget, but in those of the table, which other work on the machine lengthens too."
            for (when, machine), names in by_time.items()
        ),
        *([f"Trained beside other rows, which lengthens their minutes: {', '.join(shared)}."] if shared else []),
        f"Widths ({', '.join(WIDTHS)}): {flags.narrow:g} times their defaults, unless given here.",
        f"All rows: {_written(table.options | given)}.",
        *(f"Row {row.name}: {_made(table, row, given)}{_larger(row)}." for row in table.rows),
    ]


def _made(table, row, given):
    """The options that define a row, and those of its defaults that the command line does not override."""
    model = {"model": row.model} if row.model else {}
    return _written(model | {name: value for name, value in row.defaults.items() if name not in given} | row.options)


def _written(options):
    return " ".join(f"--{name}={value}" for name, value in options.items())


def _larger(row):
    return "".join(f", {name} times {factor:g}" for name, factor in row.factors.items())


def _draw_runs(flags):
    if not (flags.plane or flags.curves) or not flags.runs or flags.table:
        received = " ".join(f"--{name}" for name in ("table", "plane", "curves", "runs") if getattr(flags, name))
        raise UserError(
            f"expected --plane=FILE.png or --curves=FILE.png with --runs=DIR,DIR,... and no --table, received {received}"
        )
    pictures = [path for path in (flags.plane, flags.curves) if path]
    for path in pictures:
        check_name(path)
    thresholds = thresholds_from(flags.thresholds)
    starting.reach(*pictures, *flags.runs)
    for folder in flags.runs:
        if not any(paths.exists(folder / name) for name in ("metrics.jsonl", "metrics.json")):
            raise UserError(f"runs: expected folders with metrics.json, as tfcq evaluate writes it, received {folder}")
    folders = labels_of(flags.runs)
    if flags.plane:
        plane = write_plane(flags.plane, folders)
        print(*plane.remarks, sep="\n", end="\n" if plane.remarks else "")
        if not plane.num_points:
            raise UserError(f"plane {flags.plane}: nothing to draw: no run has a bits/dim and a Frechet distance of one step")
        print(f"wrote {flags.plane}: {plane.num_points} points", flush=True)
    if flags.curves:
        curves = write_curves(flags.curves, folders, thresholds)
        if not curves.curves:
            raise UserError(
                f"curves {flags.curves}: nothing to draw: no run has Frechet distances of its training; expected runs trained "
                "with --evaluate_every=STEPS --eval_metrics=frechet_distance"
            )
        print(*lines_of(curves), f"wrote {flags.curves}", sep="\n", flush=True)
    return 0


def main(flags: Flags) -> int:
    """Runs the rows, and writes the table after each of them; or draws pictures of runs."""
    if flags.plane or flags.curves or flags.runs:
        return _draw_runs(flags)
    if not flags.table:
        raise UserError(f"expected --table={'|'.join(TABLES)}, received none")
    given = flags.given()
    if flags.model:
        raise UserError(f"--model={flags.model}: the rows of a table name their model; leave the flag out")
    if not given.get("dataset"):
        raise UserError("expected --dataset=..., as that of tfcq.train, received none")
    table, thresholds = TABLES[flags.table], thresholds_from(flags.thresholds)
    budget = Budget(flags.budget_minutes, flags.budget_steps, _row_steps(flags, table))
    jobs = _jobs(flags, table, given, budget)
    output = flags.output or f"runs/ablation_{flags.table}"
    if flags.dry_run:
        if budget.minutes:
            print(f"# --train_steps, and what follows from it, will be the steps that take {budget.minutes:g} minutes")
        for job in jobs:
            for which in ("train", "evaluate") if job.evaluate else ("train",):
                print(shlex.join(["python", "-m", f"tfcq.{which}", *job.arguments(which, f"{output}/{job.name}")]))
        return 0
    starting.reach(output)
    plan = {"table": flags.table, "budget": budget.plan(), "narrow": flags.narrow, "flags": given}
    ablation = Ablation(output, plan)
    if budget.minutes:
        budget = _in_minutes(budget, table, given, jobs, ablation)
        jobs = _jobs(flags, table, given, budget)

    def report() -> paths.AnyPath:
        folders = {row.name: ablation.output / row.name for row in table.rows if row.name in ablation.rows}
        plane = write_plane(ablation.output / "plane.png", folders, fewest=2)
        timed = {name: times["ms_per_step"] for name, times in ablation.timing.items()}
        curves = write_curves(ablation.output / "curves.png", folders, thresholds, timed, fewest=2)
        has_curves = curves.num_courses > 1
        protocol = _protocol(flags, table, given, budget, ablation)
        return write_report(table, ablation.rows, output, protocol, plane.num_points > 1, curves if has_curves else None)

    failed = ablation.run(jobs, after_row=report, at_once=flags.rows_at_once)
    print(f"wrote {report()}", *verdicts(table, ablation.rows), sep="\n", flush=True)
    if failed:
        print(f"error: {len(failed)} of {len(jobs)} rows failed: {', '.join(failed)}; see the table", file=sys.stderr)
    return 1 if failed else 0


COMMAND = Command("tfcq reproduce", __doc__, define, main, presets="")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
