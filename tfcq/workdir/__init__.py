"""The folder of a run, which holds everything that is needed after training.

config.json        the Config               environment.json   versions, devices, commit
data.json          shape and source of the images, doubts about them, digests of the other files that training reads; of a model
                   with classes their names, and how many training images each has
images.npz         the images, if they were given in Python (`tfcq.Run.train`), and their classes
images.jsonl.gz    which image belongs to which split (`tfcq.data.manifest`)
history.jsonl      a row each time that options, images or the environment changed on resuming: {"time", "step", "changes":
                   {name: [before, after]}}; of step 0, from which run the first weights are (--init_from)
checkpoints/       last/ and best/, with record.json: by which number the best was chosen
tensorboard/       the configuration; train/, validation/ and, of evaluations, evaluation/
csv/               train.csv, validation.csv: with --loggers=csv (tfcq.training.loggers); wandb.json, wandb/: with --loggers=wandb
samples/           PNG grids                 metrics.jsonl      a row per evaluation    metrics.json   the last
report.md          the report of the last evaluation; report.html, the same as one file; report/, its figures
progress.json      progress of training: state, step, seconds, losses; updated while it runs (tfcq.training.progress)
demo/              scores of held-out images, which tfcq.demo keeps
lock               exists while a training runs in the folder (tfcq.training.opening); at an address lock-TOKEN

Each file is written whole or not at all. Rows of metrics.jsonl are of training, or (with "checkpoint") of `tfcq.evaluate`. With
"generated" they are of images, in a folder that is no run's: `tfcq.evaluate --generated`.
"""

from tfcq.workdir.configuration import check_for, exists, has_begun, open_for, read_config, saved_step
from tfcq.workdir.history import record_changes
from tfcq.workdir.images import (
    IMAGES,
    MANIFEST,
    check_files,
    data_facts,
    keep_data,
    kept_sizes,
    read_classes,
    read_digests,
    read_image_shape,
    read_manifest,
)
from tfcq.workdir.loading import images_of, load, load_data
from tfcq.workdir.metrics import (
    check_metrics_writable,
    drop_metrics_after,
    has_evaluated_images,
    read_metrics,
    record_metrics,
)
from tfcq.workdir.tensorboard import Point, describe, event_writer, read_scalars, seconds_between_curves, tag_of

__all__ = [
    "IMAGES",
    "MANIFEST",
    "Point",
    "check_files",
    "check_for",
    "check_metrics_writable",
    "data_facts",
    "describe",
    "drop_metrics_after",
    "event_writer",
    "exists",
    "has_begun",
    "has_evaluated_images",
    "images_of",
    "keep_data",
    "kept_sizes",
    "load",
    "load_data",
    "open_for",
    "read_classes",
    "read_config",
    "read_digests",
    "read_image_shape",
    "read_manifest",
    "read_metrics",
    "read_scalars",
    "record_changes",
    "record_metrics",
    "saved_step",
    "seconds_between_curves",
    "tag_of",
]
