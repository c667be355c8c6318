"""Times the train steps of a table's rows in turns, and says how many steps a row takes in so many minutes.

    python -m tfcq.reproduction.timing RESULT ROWS

is run by `tfcq.reproduction.run.Ablation` in a process of its own, so that no memory of it stays while the rows are trained.
ROWS is JSON, {row: {flag of tfcq.train: value}}; the file RESULT is written, {"machine", "ms_per_step": {row: [of each stage]}}.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence

from tfcq.command_line import starting
from tfcq.command_line.configuration import config_of
from tfcq.config.groups import FIRST_STAGES
from tfcq.errors import UserError


def steps_in(
    minutes: float,
    ms_per_step: Sequence[float],
    first_stage_fraction: float = 0.0,
    first_stage_steps: int | None = None,
) -> int:
    """The number of steps, at least 1, that takes so many minutes.

    Args:
        minutes: of steps alone.
        ms_per_step: milliseconds of a step, of each stage of training: one or two.
        first_stage_fraction: the fraction of the steps in the first of two stages.
        first_stage_steps: the steps of the first of two stages, if they do not depend on the number of all.

    Raises:
        UserError: the first stage alone takes the minutes.
    """
    milliseconds = 60e3 * minutes
    if len(ms_per_step) == 1:
        return max(1, round(milliseconds / ms_per_step[0]))
    first, second = ms_per_step
    if first_stage_steps is not None:
        taken = first_stage_steps * first
        left = milliseconds - taken
        if left <= 0.0:
            raise UserError(
                f"a first stage of {first_stage_steps} steps takes {taken / 60e3:.3g} of {minutes:g} minutes; "
                f"expected fewer of --{' or --'.join(FIRST_STAGES)}, or more --budget_minutes"
            )
        return first_stage_steps + max(1, round(left / second))
    return max(1, round(milliseconds / (first_stage_fraction * first + (1.0 - first_stage_fraction) * second)))


def main(result: str, rows: str) -> None:
    """Times the rows' steps on random images like those of the first row's data, which all rows have in common."""
    configs = {name: config_of(flags) for name, flags in json.loads(rows).items()}
    starting.start_tensorflow()
    from tfcq import data
    from tfcq.benchmarking import machine
    from tfcq.benchmarking.steps import step_times

    dataset = data.load(next(iter(configs.values())).data)
    print(f"timing the steps of {', '.join(configs)}, in turns", flush=True)
    times = step_times(configs, dataset.image_shape, dataset.num_images("train"))
    pathlib.Path(result).write_text(json.dumps({"machine": machine.name(), "ms_per_step": times}))


if __name__ == "__main__":
    sys.exit(starting.run(lambda: main(*sys.argv[1:])))
