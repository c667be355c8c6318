"""What two numbers must share to be comparable. Every entry of metrics.json carries it; tables mark what was not measured alike.

    split, seed, num_images, extractor, ...     how it was measured
    checkpoint                                  best or last
    data                                        on which images, `data_facts`

The step is none of it: at which step a model is best is its own affair.
"""

import json

_PROTOCOL = {"split", "temperature", "seed", "seeds", "extractor", "checksum", "preprocessing", "block_size"}
"""With every num_..."""

_OF_DATA = ("dataset", "image_size", "center_crop", "resize", "train_split", "test_split", "held_out")
"""Options of `DataConfig`; not the colour: the number of channels says it, whatever the files have."""

_NAMING = {"dataset", "train_split", "test_split", "held_out", "split_images"}
"""What stands for the images of a split where their content is not known."""

_OFTEN_UNKNOWN = {*_OF_DATA, "channels", "split_images", "content", "train_content", "checkpoint", "image_draw", "num_compared"}
"""Compared only between entries that have it: those of earlier versions do not, and not every system draws images in two ways."""


def data_facts(data, channels=None, split_images=None, content=None):
    """Which images a number is of, as plain values.

    Args:
        data: `tfcq.DataConfig` of the images.
        channels: of an image; None: not known.
        split_images: how many images the split has; None: not known.
        content: a digest of the split's images, which two equal sets share wherever they lie; None: not known.
    """
    if channels is None:
        channels = {"grey": 1, "rgb": 3}.get(data.color)
    images = {"channels": channels, "split_images": split_images, "content": content}
    return {name: getattr(data, name) for name in _OF_DATA} | images


def completed(entry, row, data):
    """`entry` with what entries of earlier versions left to their row and to the configuration.

    Args:
        entry: of metrics.json.
        row: that it is in.
        data: `data_facts` of the run's configuration.
    """
    known = {name: row[name] for name in ("checkpoint", *(() if "seeds" in entry else ("seed",))) if name in row}
    if "data" in entry:
        return known | entry
    own = data | {"dataset": entry.get("dataset", row.get("dataset", data["dataset"]))}
    if "dataset" in entry:  # other data than the run's, prepared as those; what its splits are called was not recorded
        own |= dict.fromkeys(("train_split", "test_split", "held_out"))
    return known | entry | {"data": own}


def differences(entries):
    """The names of what two comparable entries share and these do not, sorted.

    Args:
        entries: list of entries of one number, `completed` where earlier versions may have written them.
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
