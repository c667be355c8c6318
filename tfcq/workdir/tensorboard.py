"""tensorboard/: the writers of its files, the configuration there, and what reads their scalars.

A scalar has one name everywhere; in TensorBoard its tag is the group of `GROUPS` that it is shown in, and the name.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tfcq.machine.paths import AnyPath, as_path, is_remote, markdown

if TYPE_CHECKING:
    import tensorflow as tf

    from tfcq.config import Config

REMOTE_SECONDS = 30.0
"""The least time between two writes of curves at an address: each uploads the whole file again."""

GROUPS = ("loss", "density", "evaluation", "players", "optimizer", "time")
"""The groups of scalars: losses; bounds and errors of real images; numbers of samples; other terms of the players; norms of
gradients and learning rates; speed."""

HEADER, FOOTER = 12, 4
"""Bytes of a TFRecord, of which a file of TensorBoard consists: its length with a checksum; the checksum of its content."""

_EVENTS = 100_000  # that a writer keeps at an address until `flush`, or the end of `as_default`, which flushes
_DENSITIES = ("elbo", "first_stage_elbo", "importance_weighted_bits_per_dim", "latent_log_prob", "reconstruction_error")
_SPLITS = ("train", "validation", "test", "train_and_validation")
_LONGEST = 4096  # bytes of an event with a scalar, by far; longer ones are pictures and texts, which are not read


class Point(NamedTuple):
    """A scalar at a step: the time when it was written, in s, the step, the value."""

    time: float
    step: int
    value: float


def tag_of(name: str) -> str:
    """The tag in TensorBoard of a scalar: its group and its name.

    >>> tag_of("generator/loss"), tag_of("elbo/kl"), tag_of("discriminator/accuracy_real"), tag_of("test/fd_pixels")
    ('loss/generator/loss', 'density/elbo/kl', 'players/discriminator/accuracy_real', 'evaluation/test/fd_pixels')
    """
    first, last = name.split("/")[0], name.split("/")[-1]
    if last == "loss":
        group = "loss"
    elif last in ("gradient_norm", "learning_rate"):
        group = "optimizer"
    elif name == "images_per_second":
        group = "time"
    elif first.startswith(_DENSITIES):
        group = "density"
    elif "/" in name and first not in _SPLITS:
        group = "players"
    else:
        group = "evaluation"
    return f"{group}/{name}"


def name_of(tag: str) -> str:
    """The name of the scalar with that tag; a tag without a group, of an earlier version, is the name.

    >>> name_of(tag_of("elbo/kl")), name_of("elbo/kl")
    ('elbo/kl', 'elbo/kl')
    """
    group, _, name = tag.partition("/")
    return name if group in GROUPS and name else tag


def event_writer(folder: AnyPath) -> tf.summary.SummaryWriter:
    """A writer of TensorBoard's files in a folder."""
    import tensorflow as tf

    return tf.summary.create_file_writer(str(folder), max_queue=_EVENTS if is_remote(folder) else None)


def seconds_between_curves(folder: AnyPath) -> float:
    """The least time between two writes of a file of curves in the folder."""
    return REMOTE_SECONDS if is_remote(folder) else 0.0


def describe(workdir: AnyPath, config: Config) -> None:
    """Writes the configuration to tensorboard/ itself, in place of what was there: as text, and for the tab HParams.

    That tab then has a row for each run below the folder that TensorBoard shows, with the last values of its scalars.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import summary_v2

    folder = workdir / "tensorboard"
    for old in [*folder.glob("*tfevents*")]:
        old.unlink()
    writer = event_writer(folder)
    with writer.as_default(0):
        # Without a name of their own runs of equal options would be one row.
        summary_v2.hparams(config.hyperparameters(), trial_id=str(workdir))
        tf.summary.text("configuration", _as_table(config))
    writer.close()


def _as_table(config):
    """Markdown: each option with its value and, where it differs, the default."""
    lines = [f"`--model={config.model}`", "", "| option | value | default |", "|---|---|---|"]
    for section in ("data", "system", "training"):
        options = getattr(config, section)
        defaults = dataclasses.asdict(type(options)())
        for name, value in dataclasses.asdict(options).items():
            usual = defaults[name]
            shown = [f"**{markdown(str(value))}**", markdown(str(usual))] if value != usual else [markdown(str(value)), ""]
            lines.append(f"| {section}.{name} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def read_scalars(folder: str | os.PathLike) -> dict[str, list[Point]]:
    """{name: points} of the scalars in a folder of TensorBoard's files, in the order of the files and in them.

    Pictures are passed over, not read: memory is that of the scalars. An incomplete event at the end of a file, which a
    running training or a killed one leaves, ends that file. A folder that is not there has none.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.util import event_pb2

    found: dict[str, list[Point]] = {}
    files: list[AnyPath] = [*as_path(folder).glob("*tfevents*")]
    for path in sorted(files, key=str):  # names begin with the time
        for content in short_records(path):
            try:
                event = event_pb2.Event.FromString(content)
            except DecodeError:
                break
            for value in event.summary.value:
                if value.HasField("simple_value"):  # TensorFlow 1's form
                    number = value.simple_value
                elif value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                    array = tf.make_ndarray(value.tensor)
                    if array.dtype.kind not in "fiu":
                        continue
                    number = float(array)
                else:
                    continue
                found.setdefault(name_of(value.tag), []).append(Point(event.wall_time, event.step, number))
    return found


def short_records(path: AnyPath) -> Iterator[bytes]:
    """The contents of a file's whole records of up to 4096 bytes; longer ones, such as pictures, are passed over."""
    with path.open("rb") as file:
        while len(header := file.read(HEADER)) == HEADER:
            (length,) = struct.unpack("<Q", header[:8])
            if length > _LONGEST:
                file.seek(length + FOOTER, os.SEEK_CUR)
                continue
            record = file.read(length + FOOTER)
            if len(record) < length + FOOTER:
                return
            yield record[:length]
