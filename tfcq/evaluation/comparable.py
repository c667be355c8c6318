"""What two numbers must have in common to be comparable. Every entry of metrics.json has it; tables mark numbers that differ.

    split, seed, num_images, extractor, ...     how it was measured
    checkpoint                                  best or last
    data                                        on which images, `data_facts`

The step is not among these facts: models may be best at different steps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tfcq.config import DataConfig

_PROTOCOL = {
    *("split", "temperature", "seed", "seeds", "extractor", "checksum", "preprocessing", "block_size", "near_copy_quantile"),
}
"""And every name that begins with num_."""

_OF_DATA = ("dataset", "image_size", "center_crop", "resize", "train_split", "test_split", "held_out")
"""Options of `DataConfig`; the colour is not among them: the number of channels says it, whatever the files have."""

_NAMING = {"dataset", "train_split", "test_split", "held_out", "split", "split_images"}
"""What identifies the images of a split if their content is unknown."""

_OFTEN_UNKNOWN = {*_OF_DATA, "channels", "split_images", "content", "train_content", "num_compared"}
_OFTEN_UNKNOWN |= {"checkpoint", "image_draw", "temperature"}
"""Compared only between entries that have them: those of earlier versions do not, few systems draw images in two ways, and how
images were drawn that are no run's is not known."""


def data_facts(
    data: DataConfig, channels: int | None = None, split_images: int | None = None, content: str | None = None
) -> dict:
    """Which images a number was measured on, as plain values.

    Args:
        data: `tfcq.DataConfig` of the images.
        channels: number of channels of an image; None: unknown.
        split_images: number of images in the split; None: unknown.
        content: a digest of the split's images, the same for equal sets wherever they are stored; None: unknown.
    """
    if channels is None:
        channels = {"grey": 1, "rgb": 3}.get(data.color)
    images = {"channels": channels, "split_images": split_images, "content": content}
    return {name: getattr(data, name) for name in _OF_DATA} | images


def completed(entry: dict, row: dict, data: dict) -> dict:
    """`entry` with the facts that entries of earlier versions lack, from their row and the configuration.

    Args:
        entry: an entry of metrics.json.
        row: the row that has it.
        data: `data_facts` of the run's configuration.
    """
    names = ("checkpoint",) if "seeds" in entry else ("checkpoint", "seed")
    known = {name: row[name] for name in names if name in row}
    if "data" in entry:
        return known | entry
    own = data | {"dataset": entry.get("dataset", row.get("dataset", data["dataset"]))}
    if "dataset" in entry:  # other data than the run's, prepared alike; the names of its splits were not recorded
        own |= dict.fromkeys(("train_split", "test_split", "held_out"))
    return known | entry | {"data": own}


def differences(entries: Sequence[dict]) -> list[str]:
    """The names of the facts that comparable entries have in common and these do not, sorted.

    Args:
        entries: entries of one number; `completed` ones if earlier versions may have written them.
    """
    facts = [_facts(entry) for entry in entries]
    if all(one.get("content") for one in facts):
        facts = [{name: value for name, value in one.items() if name not in _NAMING} for one in facts]
    found = []
    for name in set().union(*facts):
        values = {json.dumps(one.get(name)) for one in facts} - ({"null"} if name in _OFTEN_UNKNOWN else set())
        if len(values) > 1:
            found.append(name)
    return sorted(found)


def _facts(entry):
    known = _PROTOCOL | {"checkpoint", "image_draw"}
    return {name: value for name, value in entry.items() if name in known or name.startswith("num_")} | entry.get("data", {})
