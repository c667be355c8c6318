"""A score for each image: `python -m tfcq.score --workdir=DIR --images=folder:DIR --output=DIR [--shard=i/n]`.

Any number of processes, on any machines, compute a shard each. Whoever finishes last writes the table, scores.csv and
scores.parquet, and a page of the most and the least unusual images, scores.html.
"""

import sys

from tfcq.bulk import flags as bulk
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.scoring.columns import FLAG_BY

HELD_OUT = "held_out"
"""The folder below --output for the parts of the held-out images."""


def define(flags: Flags) -> None:
    """The flags of `tfcq.score`."""
    bulk.define_model(flags)
    flags.integer(
        "num_importance_samples", 50, "The number of draws per image of the likelihood (K), with --workdir", minimum=1
    )
    flags.integer("seed", 0, "The seed of the draws; an image's own follows from it and from the image's name", minimum=0)
    bulk.define_images(flags)
    flags.group("The comparison")
    flags.string(
        "held_out",
        None,
        "The images that those of --images are compared with, which the model was not trained on: test | validation, a split of "
        "the run | PLACE, as in --images, of several splits test | none (default: test with --workdir, else none)",
        "PLACE",
    )
    flags.integer(
        "num_held_out", 1000, "The largest number of held-out images that are scored, at equal distances among all", minimum=2
    )
    flags.choice(
        "flag_by",
        None,
        FLAG_BY,
        "The column by which images are ranked and flagged (default: the first that there is of complexity_corrected, "
        "reconstruction_error, energy, bits_per_dim)",
    )
    flags.number(
        "false_alarm_rate",
        0.05,
        "The largest share of images like the held-out ones that is flagged, on average; above 0 and below 1",
        minimum=0.0,
    )
    flags.group("The work")
    flags.folder("output", None, "The folder for the parts, the table and the page")
    flags.integer(
        "num_repeats",
        1,
        "How many times each likelihood is computed with draws of its own; from 2 on there is a column log_prob_standard_error",
        minimum=1,
    )
    bulk.define_shards(flags)


def main(flags: Flags) -> None:
    """Scores the images of a shard, and makes the table if all are scored."""
    if not 0.0 < flags.false_alarm_rate < 1.0:
        raise UserError(f"false_alarm_rate: expected above 0 and below 1, received {flags.false_alarm_rate:g}")
    data = bulk.images_place(flags, flags.images)
    held_out = flags.held_out or ("test" if flags.workdir else "none")
    if held_out in ("test", "validation") and not flags.workdir:
        raise UserError(f"held_out: expected PLACE or none with --export or --server, which know no splits, received {held_out}")

    def stage(place):
        from tfcq.bulk.image_stages import Scoring

        made = Scoring(place, flags.seed, flags.batch_size, data, flags.num_repeats)
        _check_ranking(flags.flag_by, made, held_out != "none")
        return made

    def compared(made):
        from tfcq.bulk.image_stages import ScoringHeldOut

        split = held_out if held_out in ("test", "validation") else ""
        others = {} if split else bulk.images_place(flags, held_out)  # a split of the run is prepared as there
        options = (made.model, flags.seed, flags.batch_size, others, flags.num_repeats)
        found = ScoringHeldOut(*options, split, flags.num_held_out)
        found.share_model_of(made)
        if found.count < 2:
            raise UserError(f"held_out: expected at least two images, received {found.count}; or --held_out=none")
        return found

    def finish(folder, made):
        from tfcq.scoring.finish import finish

        below = None if held_out == "none" else folder / HELD_OUT
        about = made.places() | ({} if below is None else {"held-out images from": held_out})
        finish(folder, below, made.images, flags.flag_by, flags.false_alarm_rate, about)

    beside = {} if held_out == "none" else {HELD_OUT: compared}
    bulk.run(flags, stage, flags.output, beside, finish)


def _check_ranking(flag_by, stage, compared):
    """Raises UserError if the model's scores will not have the column, before they are computed."""
    if not flag_by:  # and the model need not be loaded yet
        return
    numbers = [name for endpoint in stage.scores for name in ENDPOINTS[endpoint].outputs]
    if "likelihood" in stage.scores:
        numbers += ["complexity_corrected", *(["typicality"] if compared else [])]
    if "reconstruct" in stage.asked.endpoints:
        numbers += ["reconstruction_error"]
    possible = [name for name in FLAG_BY if name in numbers]
    if flag_by not in possible:
        raise UserError(f"flag_by: expected one of {', '.join(possible)}, which these scores have, received {flag_by}")


COMMAND = Command("tfcq score", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
