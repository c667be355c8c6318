"""Times the likelihoods of images by one shard of tfcq.bulk against a plain loop over files that calls the same export.

    python tools/benchmark_shards.py --num_images=1024 --rounds=5

The model is an untrained RealNVP, the images are PNG files of 32x32 pixels. Both ways read the files, ask for batches of 64 and
write a row for each image; the model is loaded and has answered before. They take turns, so that other load on the machine
affects both. Prints a JSON line per way, images per processor second (median, minimum, maximum over the rounds), and the median
over the rounds of the shard's rate as a multiple of the loop's.
"""

from __future__ import annotations

import json
import pathlib
import resource
import statistics
import sys
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from tfcq.bulk.images import key_seeds
from tfcq.bulk.place import ModelPlace
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags

BATCH, SIDE = 64, 32


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.integer("num_images", 1024, "How many images are scored; a multiple of 64", minimum=BATCH)
    flags.integer("rounds", 5, "How many times each way is timed", minimum=1)


def write_export(folder: pathlib.Path) -> None:
    """Writes the model's SavedModel."""
    import tensorflow as tf

    import tfcq
    from tfcq import models
    from tfcq.exporting.signatures import ServingModule

    system = tfcq.RealNVPConfig(flow_scales=2, flow_blocks=1, flow_width=16)
    model = models.build(tfcq.Config(data=tfcq.DataConfig(image_size=SIDE), system=system), (SIDE, SIDE, 3))
    module = ServingModule(model, 1)
    tf.saved_model.save(module, str(folder), signatures={"likelihood": module.signature("likelihood")})


def plain_loop(signature: Any, files: list[pathlib.Path], output: pathlib.Path) -> None:
    """Scores the files, and writes their rows."""
    import tensorflow as tf

    with open(output, "w") as rows:
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            images = np.stack([np.asarray(Image.open(path)) for path in some])
            seeds = key_seeds([path.name for path in some], 0)
            answers = signature(images=tf.constant(images), seed=tf.constant(seeds))
            columns = answers["log_prob"].numpy(), answers["bits_per_dim"].numpy()
            rows.writelines(f"{path.name},{nats},{bits}\n" for path, nats, bits in zip(some, *columns))


def main(flags: Flags) -> None:
    """Times both ways."""
    starting.start_tensorflow()
    from tfcq.bulk.image_stages import Scoring
    from tfcq.bulk.running import Work

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_export(folder / "export")
        (folder / "images").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (flags.num_images, SIDE, SIDE, 3), np.uint8)
        files = [folder / "images" / f"{number:06}.png" for number in range(flags.num_images)]
        for path, image in zip(files, noise):
            Image.fromarray(image).save(path)
        stage = Scoring(ModelPlace(export=folder / "export"), data={"dataset": f"folder:{folder}/images"})
        signature = stage.asked.signature("likelihood")
        ways = {
            "plain loop": lambda number: plain_loop(signature, files, folder / f"{number}.csv"),
            "shard": lambda number: Work(stage, 1, folder / str(number)).compute(0),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(-1, flags.rounds):  # the first round is not counted
            for way in sorted(ways, reverse=bool(number % 2)):
                begin = _processor_seconds()
                ways[way](number)
                if number >= 0:
                    rates[way].append(flags.num_images / (_processor_seconds() - begin))
    for way, found in rates.items():
        row = {"way": way, "images_per_processor_second": round(statistics.median(found), 1)}
        print(json.dumps(row | {"minimum": round(min(found), 1), "maximum": round(max(found), 1)}))
    ratio = statistics.median(shard / loop for shard, loop in zip(rates["shard"], rates["plain loop"]))
    print(json.dumps({"shard_over_plain_loop": round(ratio, 3)}), flush=True)


def _processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


COMMAND = Command("tools/benchmark_shards.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
