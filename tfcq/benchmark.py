"""Times a configuration on random images: first step, train step (of each stage of training), log_prob (K = 1) and sample.

It also measures the FLOP rates of the machine. Each line is one JSON object: images/s of the median call, the median and the
extremes of a call in ms, peak memory of the process so far in MB, number of weights; of a train step also the GFLOP of its matrix
products and convolutions, and which fraction of the machine's rate it reaches. Calls are timed until their results are on the
host, after warm-up. Each round is a process of its own, so that rounds can alternate with another program (--beside): on a
shared machine only times measured side by side can be compared. --families measures a configuration of each family;
--table prints the lines' numbers once more, as rows for the table of the documentation.
"""

from __future__ import annotations

import json
import sys

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError


def define(flags: Flags) -> None:
    """The flags of `tfcq.benchmark`."""
    flags.configuration()
    flags.group("The measurement")
    flags.integer("rounds", 1, "How many times everything is measured, each time in a new process", minimum=1)
    flags.string(
        "beside",
        None,
        "A shell command that is run after each round; {name} in it is the name of the configuration. Its output is passed "
        "through, and where it prints JSON lines with workload and images_per_second, a line with the ratio follows",
        "COMMAND",
    )
    flags.boolean("families", False, "Measures a configuration of each family, one after the other")
    flags.boolean("table", False, "Prints the rows for the table of the documentation at the end, in Markdown")
    flags.integer("calls", 15, "How many calls of each workload are timed", minimum=3)
    flags.boolean("parts", False, "Also times the parts of a train step, one by one, and prints their sum and the step's time")
    flags.integer("image_channels", 3, "The channels of the random images", minimum=1)
    flags.integer(
        "training_images", 50000, "The size of the simulated data set (glann has one code per image)", minimum=1
    )


def main(flags: Flags) -> None:
    """Measures: one round in this process; several rounds, families or a program --beside in processes of their own."""
    if flags.families:
        if flags.run_name() or flags.model:
            raise UserError("families: expected no preset, flagfile or model beside it; leave one out")
        return _measure_in_turns(flags, families=True)
    config = config_of({"model": flags.model} | flags.given())
    if flags.rounds > 1 or flags.beside:
        return _measure_in_turns(flags)
    starting.start_tensorflow()
    from tfcq.benchmarking.rounds import table
    from tfcq.benchmarking.workloads import Measurement, measure_config

    wanted = Measurement(
        flags.run_name() or config.model, flags.calls, flags.parts, flags.image_channels, flags.training_images
    )
    lines = measure_config(config, wanted)
    if flags.table:
        print(table(lines), flush=True)


def _measure_in_turns(flags: Flags, families: bool = False) -> None:
    from tfcq.benchmarking import rounds

    without_table = [*flags.arguments, "--table=false", "--families=false"]  # the last one of a flag holds
    configurations = rounds.FAMILIES if families else {flags.run_name() or flags.model or "": ()}
    lines, found = [], []
    failed: dict[str, UserError] = {}
    for name, of_family in configurations.items():
        try:
            ours, theirs = rounds.run_rounds(name, [*of_family, *without_table], flags.rounds, flags.beside)
        except UserError as error:  # the others are measured all the same: a small GPU has no room for the largest
            failed[name] = error
            continue
        lines += ours
        found += rounds.ratios(name, ours, theirs)
    for line in found:
        print(json.dumps(line), flush=True)
    if flags.table and lines:
        print(rounds.table(lines), flush=True)
    if failed:
        first, *others = failed
        raise UserError(f"{failed[first]}" + (f" (and so did {', '.join(others)})" if others else ""))


COMMAND = Command("tfcq benchmark", __doc__, define, main, presets="")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
