"""What the experiments of Shmelkov et al. (2018) would take on a GPU: a projection, from counted operations and measured rates.

    python tools/project_gpu.py --rate_gflops=5390,8500 --device="an NVIDIA H100 or H200"

For each flagfile of configs/ (--presets) and each row of tables of `tfcq.reproduce` (--tables) the graph of a train step is
built, and the operations of its matrix products and convolutions are counted, as `tfcq.benchmark` does; no step is taken, and
no GPU is needed. Images/s and hours follow from rates that train steps reached on that GPU: `gflop_per_second` in the lines of
`tfcq.benchmark`. Two rates give a range. Reading images, evaluations and checkpoints are not counted. Prints a table in Markdown.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.command_line.preset_config import preset
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.reproduction.tables import TABLES

PRESETS = ["cifar10_cqf", "stl10_48_cqf", "celeba_178_cqf", "celeba_96_cqf", "stl10_96_cqf", "lsun_bedroom_64_cqf"]
PRESETS += ["stl10_48_cqf_two_scales", "imagenet64_cqf"]
"""CQF's flagfiles of Tables 2, 4 and 5."""


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.several("presets", PRESETS, "The flagfiles of configs/, by their names")
    flags.several(
        "tables", ["1", "2", "3a", "3b"], "The tables of tfcq.reproduce; their rows are at 32x32, in batches of 64"
    )
    flags.integer(
        "table_steps", 200000, "The train steps of each row of a table; the papers do not say how long they trained", 1
    )
    flags.several(
        "rate_gflops",
        ["5390", "8500"],
        "The rates of train steps on the GPU, GFLOP/s; one, or the least and the largest (default: those of CQF)",
    )
    flags.string(
        "device", "an NVIDIA H100 or H200 in float32 (configs/README.md, Speed)", "The GPU on which the rates were measured"
    )


def configurations(names: Sequence[str], tables: Sequence[str], table_steps: int) -> dict[str, Config]:
    """{name: the Config} of presets, and of the rows of tables.

    Raises:
        UserError: there is no such preset or table.
    """
    found = {}
    for name in names:
        found[name] = preset(name)
    for name in tables:
        if name not in TABLES:
            raise UserError(f"tables: expected some of {', '.join(TABLES)}, received {name!r}")
        given = {"image_size": 32, "batch_size": 64, "train_steps": table_steps}
        found |= {f"Table {name}: {row.name}": config_of(TABLES[name].flags(row, given)) for row in TABLES[name].rows}
    return found


def projection(
    configs: Mapping[str, Config],
    rates: Sequence[float],
    stages_of: Callable[[Config], Sequence[tuple[int, float | None]]],
) -> list[dict[str, str]]:
    """A row of the table, {heading: cell}, for each configuration and stage of training.

    Args:
        configs: {name: Config}.
        rates: GFLOP/s, from the least to the largest.
        stages_of: function from a Config to (number of steps, GFLOP of a step) of each stage; None: not known.
    """
    rows = []
    for name, config in configs.items():
        stages, batch = stages_of(config), config.training.batch_size
        for stage, (steps, gflop) in enumerate(stages):
            speeds = [batch * rate / gflop for rate in rates] if gflop else []
            rows.append(
                {
                    "experiment": f"`{name}`" + (f", stage {stage}" if len(stages) > 1 else ""),
                    "side, batch": f"{config.data.image_size}, {batch}",
                    "GFLOP a step": f"{float(f'{gflop:.4g}'):,.10g}" if gflop else "unknown",
                    "steps": f"{steps:,}",
                    "images/s (projection)": " to ".join(f"{float(f'{speed:.3g}'):,.10g}" for speed in speeds),
                    "hours (projection)": " to ".join(
                        f"{steps * batch / speed / 3600:,.1f}" for speed in reversed(speeds)
                    ),
                }
            )
    return rows


def _rates(texts):
    """The rates that --rate_gflops gives, sorted."""
    try:
        rates = sorted(float(text) for text in texts)
    except ValueError:
        rates = []
    if not (1 <= len(rates) <= 2 and 0.0 < rates[0] and rates[-1] < math.inf):
        raise UserError(
            f"rate_gflops: expected one or two numbers above 0, as 5390,8500, received {','.join(texts)!r}"
        )
    return rates


def main(flags: Flags) -> None:
    """Prints the table."""
    rates = _rates(flags.rate_gflops)
    configs = configurations(flags.presets, flags.tables, flags.table_steps)
    starting.start_tensorflow()
    from tfcq.benchmarking.workloads import stages_of_training

    def stages_of(config):
        gc.collect()  # of the models before: they are in cycles, and each has hundreds of megabytes
        return stages_of_training(config)

    between = " to ".join(f"{rate:,.0f}" for rate in rates)
    print(f"Projection, not a measurement: {flags.device}, at {between} GFLOP/s of a train step.\n")
    print(tabulate(projection(configs, rates, stages_of), headers="keys", tablefmt="github", disable_numparse=True))


COMMAND = Command("tools/project_gpu.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
