"""From the parts of a scoring, and of its held-out images, to the table and the page."""

from __future__ import annotations

import heapq
import math
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq.bulk import read_parts
from tfcq.errors import UserError
from tfcq.machine import files
from tfcq.machine.terminal import say
from tfcq.scoring import tables
from tfcq.scoring.columns import COLUMNS, FLAG_BY, default_ranking
from tfcq.scoring.page import NAME, page
from tfcq.scoring.reference import Reference, numbers_of, unusualness

if TYPE_CHECKING:
    from tfcq.bulk.images import KeyedImages, SplitImages, SpreadImages

SHOWN = 32
"""Images at either end of the page."""


def finish(
    folder: pathlib.Path,
    held_out: pathlib.Path | None,
    images: KeyedImages | SpreadImages | SplitImages,
    flag_by: str | None,
    false_alarm_rate: float,
    about: dict[str, Any],
) -> None:
    """Writes scores.csv, scores.parquet and scores.html into the folder of a scoring, and says so.

    Args:
        folder: of the parts.
        held_out: of the parts of the held-out images; None: there are none, and so no typicality, percentile or flag.
        images: those that were scored.
        flag_by: the column by which images are ranked and flagged; None: `default_ranking`.
        false_alarm_rate: the share of images like the held-out ones that may be flagged, in (0, 1).
        about: more facts for the page.

    Raises:
        UserError: parts that are missing, a column that the scores have not, no image that can be used, a full disk.
    """
    first = next((numbers_of(row) for row in read_parts(folder) if "unfit" not in row), None)
    if first is None:
        raise UserError(f"{folder}: none of the images could be used, so there is nothing to compare")
    typical = {"typicality"} if held_out and "bits_per_dim" in first else set()
    known = [name for name in COLUMNS if name in first or name in typical]
    flag_by = flag_by or default_ranking(known)
    if flag_by not in known:
        possible = ", ".join(name for name in known if name in FLAG_BY)
        raise UserError(f"flag_by: expected one of {possible}, which these scores have, received {flag_by}")
    reference = Reference(read_parts(held_out), flag_by) if held_out else None
    if reference:
        _warn_of_few(reference.count, false_alarm_rate)
    numbers = [*known, *(["percentile"] if reference else [])]
    ends = _Ends()
    unfit = flagged = count = 0
    with tables.writing(folder, numbers, flagged=reference is not None) as writer:
        for index, row in enumerate(read_parts(folder)):
            count += 1
            if "unfit" in row:
                unfit += 1
            else:
                row = reference.complete(row, false_alarm_rate) if reference else numbers_of(row)
                flagged += row.get("flagged", False)
                ends.add(unusualness(row, flag_by), index, row)
            writer.write(row)
    facts = {"images scored": count - unfit} | ({"images that could not be used": unfit} if unfit else {}) | about
    if reference:
        facts["held-out images"] = reference.count
        share = f"of images like the held-out ones at most {100 * false_alarm_rate:.3g} % would be, on average"
        facts["flagged"] = f"{flagged} of {count - unfit}; {share}"
    shown = [[(row, images.take(index, index + 1)[1][0]) for index, row in one] for one in (ends.lowest(), ends.highest())]
    with files.writing("output", folder):
        files.write_text(folder / NAME, page(f"Scores of {count} images", facts, flag_by, numbers, *shown))
    told = f"; {flagged} flagged by {flag_by}" if reference else ""
    say(f"wrote {folder / tables.CSV}, {tables.PARQUET} and {NAME}: {count} images{told}")


def _warn_of_few(count, false_alarm_rate):
    needed = math.ceil(1.0 / false_alarm_rate - 1.0 - 1e-9)
    if count < needed:
        say(
            f"warning: with {count} held-out images none can be flagged at false_alarm_rate={false_alarm_rate:g}, which needs "
            f"{needed}; name more by --held_out or --num_held_out, or give a higher rate"
        )


class _Ends:
    """The rows with the smallest and the largest numbers, `SHOWN` of either, of any number of rows."""

    def __init__(self):
        self._low: list = []
        self._high: list = []

    def add(self, number, index, row):
        for heap, sign in ((self._low, -1), (self._high, 1)):
            (heapq.heappush if len(heap) < SHOWN else heapq.heappushpop)(heap, (sign * number, -index, row))

    def lowest(self):
        return [(-index, row) for _, index, row in sorted(self._low, key=lambda one: (-one[0], -one[1]))]

    def highest(self):
        return [(-index, row) for _, index, row in sorted(self._high, key=lambda one: (-one[0], -one[1]))]
