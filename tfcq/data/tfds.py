"""TFDS image data sets by name, read at random from the record files that TFDS prepared.

Nothing is ever downloaded: a data set that is not prepared is an error at once, with the command that prepares it.

TFDS's own input pipeline is not used: it gives records as a stream, where an even shuffle of an epoch needs the whole set
in a buffer, and resuming must read again the records that were seen. Record files allow random access once the start of
each record is known. So a data set of any size has the same exact shuffle and the same instant resume as one in memory.
Images are decoded by Pillow, like files of a folder (`decoding`).

A TFRecord is: uint64 length n, uint32 checksum of these 8 bytes, n bytes, uint32 checksum of those; little-endian
(tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import functools
import io
import os
import shlex
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfcq.config import DataConfig
from tfcq.config.fields import suggestion
from tfcq.data.classes import Labels
from tfcq.data.decoding import decode, verify
from tfcq.data.decoding_processes import Encoded
from tfcq.data.sources import RawReader, Source, require_package
from tfcq.data.splits import SPLITS
from tfcq.data.survey import file_stamp
from tfcq.data.transforms import to_channels
from tfcq.data.unfit import UnfitImage
from tfcq.errors import UserError
from tfcq.machine import paths
from tfcq.machine.terminal import SearchProgress

BEFORE, AFTER = 12, 4
"""Bytes around a TFRecord's content."""


class Items(Protocol):
    """Serialised records by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


def tfds(config: DataConfig, choices: Sequence[str], suggests: bool = True) -> Source:
    """A prepared TFDS data set as a Source, with the splits that `roles` chooses.

    Args:
        config: `dataset` is a name that `tfds.builder` takes (perhaps name/config:version), `data_dir` the folder of
            prepared data sets, `train_split` and `test_split` are names of the data set's own splits.
        choices: other values of `dataset`, for the message about an unknown one.
        suggests: whether that message suggests the nearest name.

    Raises:
        UserError: an unknown name, or a data set that is not prepared there, is damaged, or lacks the named splits or an
            8-bit image.
    """
    library = require_package(_import_tfds, "tensorflow-datasets")
    builder = _builder(library, config, choices, suggests)
    key = _image_key(library, builder.info.features, config.dataset)
    channels = builder.info.features[key].shape[-1]
    chosen = roles(list(builder.info.splits), config)
    features = builder.info.features
    label = features["label"] if "label" in features else None
    names = tuple(label.names) if isinstance(label, library.features.ClassLabel) else ()
    splits = {role: Records(_records(library, builder, name, config.data_dir), key, channels, f"{config.dataset} {name}",
                            _stamps(builder.info.splits[name]), class_names=names)
              for role, name in chosen.items()}
    return Source(splits, ", ".join(f"{role} is its split {name}" for role, name in chosen.items() if role != name))


def roles(available: Sequence[str], config: DataConfig) -> dict[str, str]:
    """Which split of a data set serves as train, validation and test.

    Train and test are the splits that the configuration names. A split called validation has that role, unless it is one
    of those two: LSUN's papers test on it.

    Args:
        available: names of the data set's splits.
        config: DataConfig.

    Returns:
        {"train": name} and, where there are such splits, "validation" and "test".

    Raises:
        UserError: a named split is missing; only `test`, the default of test_split, may be.
    """
    chosen = {"train": config.train_split}
    if config.test_split in available or config.test_split != "test":
        chosen["test"] = config.test_split
    for role, name in chosen.items():
        if name not in available:
            raise UserError(f"{role}_split: expected a split of {config.dataset} ({', '.join(available)}), received "
                            f"{name!r}{suggestion(name, available)}")
    if "validation" in available and "validation" not in chosen.values():
        chosen["validation"] = "validation"
    return {role: chosen[role] for role in SPLITS if role in chosen}


class Records(RawReader):
    """Images inside serialised tf.train.Examples.

    Args:
        records: serialised tf.train.Examples, thread-safe to index.
        feature: name of the feature that holds the encoded image.
        channels: 1 or 3, to which all images are converted, as TFDS would; None: they stay as they are.
        label: name of the sequence, for messages.
        stamps: stamps of the files that hold the records, a str for each record; None: unknown.
        numbers: int [N], the numbers in the images' names; None: 0, 1, ...
        class_names: names of the classes whose numbers are in the feature `label`; empty: there is none.
    """

    def __init__(
        self,
        records: Items,
        feature: str,
        channels: int | None,
        label: str,
        stamps: list[str] | None = None,
        numbers: np.ndarray | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.class_names = tuple(class_names)
        self.records = records
        self.feature = feature
        self.declared_channels = channels
        self.label = label
        self.stamps_of_records = [""] * len(records) if stamps is None else stamps
        self.numbers = np.arange(len(records)) if numbers is None else numbers

    def __len__(self):
        return len(self.records)

    @functools.cached_property
    def channels(self) -> int:
        return self.declared_channels or super().channels

    def name(self, index: int) -> str:
        return f"{self.label}, {self.key(index)}"

    def key(self, index: int) -> str:
        return f"image {self.numbers[index]}"

    @property
    def labels(self) -> Callable[[], Labels] | None:
        return self._labels if self.class_names else None

    def _labels(self):
        progress, numbers = SearchProgress(f"reading the labels of {self.label}"), np.empty(len(self), np.int64)
        for index in range(len(self)):
            values = tf.train.Example.FromString(self.records[index]).features.feature["label"].int64_list.value
            if len(values) != 1 or not 0 <= values[0] < len(self.class_names):
                raise UserError(f"{self.name(index)}: expected a label from 0 to {len(self.class_names) - 1}, received {values}")
            numbers[index] = values[0]
            progress(index + 1)
        progress.close()
        return Labels(self.class_names, numbers)

    def stamps(self) -> list[str]:
        return list(self.stamps_of_records)

    def content(self, index: int) -> bytes:
        try:
            return self._encoded(index)
        except UnfitImage as error:
            if isinstance(error.__cause__, OSError):
                raise
            return self.records[index]  # that it holds no image is reported elsewhere

    def read(self, index: int) -> np.ndarray:
        image = decode(io.BytesIO(self._encoded(index)), self.name(index))
        return to_channels(image[None], self.declared_channels)[0] if self.declared_channels else image

    def shape(self, index: int) -> tuple[int, int, int]:
        height, width, channels = verify(io.BytesIO(self._encoded(index)), self.name(index))
        return height, width, self.declared_channels or channels

    def format_and_shape(self, index: int) -> tuple[str, tuple[int, int, int]]:
        image_format, (height, width, channels) = super().format_and_shape(index)
        return image_format, (height, width, self.declared_channels or channels)

    def portable(self, indices: np.ndarray) -> Encoded:
        contents: list[bytes | UnfitImage] = []
        for index in indices:
            try:
                contents.append(self._encoded(index))
            except UnfitImage as error:
                contents.append(error.alone())
        return Encoded(contents, [self.name(index) for index in indices], self.declared_channels)

    @property
    def reading(self) -> str:
        return f"feature {self.feature}, channels {self.declared_channels}"

    def _some(self, indices):
        stamps = [self.stamps_of_records[index] for index in indices]
        chosen = _Chosen(self.records, indices)
        return Records(
            chosen, self.feature, self.declared_channels, self.label, stamps, self.numbers[indices], self.class_names
        )

    def _encoded(self, index):
        name = self.name(index)
        try:
            example = tf.train.Example.FromString(self.records[index])
        except OSError as error:
            raise UnfitImage(f"{name}: cannot be read: {error.strerror or error}", name, str(error.strerror or error)) from error
        except Exception as error:  # from the parser (DecodeError) or the reader of array_record files
            raise UnfitImage(f"{name}: expected a tf.train.Example, received bytes that are none; prepare the data set again, or "
                             "leave out what cannot be used by --skip_broken_images", name, "no example", "broken") from error
        encoded = example.features.feature[self.feature].bytes_list.value
        if len(encoded) != 1:
            raise UnfitImage(f"{name}: expected one encoded image in feature {self.feature!r}, received {len(encoded)}", name,
                             f"{len(encoded)} images", "broken")
        return encoded[0]


class TFRecordFiles:
    """The records of TFRecord files by their number: a thread-safe sequence of bytes.

    Args:
        paths: local files, in order.
        lengths: the number of records in each.

    Raises:
        UserError: naming a file that is missing, truncated, or has another number of records.
    """

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        self.paths = paths
        offsets = [record_offsets(path) for path in paths]
        for path, expected, found in zip(paths, lengths, offsets):
            if len(found) != expected:
                raise UserError(f"{path}: expected {expected} records, received {len(found)}; prepare the data set "
                                "again")
        self.files = np.repeat(np.arange(len(paths)), lengths)
        self.offsets = np.concatenate(offsets)

    def __len__(self):
        return len(self.offsets)

    def __getitem__(self, index: int) -> bytes:
        with open(self.paths[self.files[index]], "rb", buffering=0) as file:
            file.seek(self.offsets[index])
            length, = struct.unpack("<Q", file.read(8))
            file.seek(BEFORE - 8, os.SEEK_CUR)
            return file.read(length)


def record_offsets(path: str) -> np.ndarray:
    """Where each record of a TFRecord file starts, int64 [N]; UserError if the file does not end with a whole record."""
    try:
        size, offset, offsets = os.path.getsize(path), 0, []
        with open(path, "rb", buffering=0) as file:
            while offset < size:
                offsets.append(offset)
                file.seek(offset)
                header = file.read(8)
                offset += BEFORE + struct.unpack("<Q", header.ljust(8, b"\xff"))[0] + AFTER
    except OSError as error:
        raise UserError(f"{path}: expected a local TFRecord file ({error.strerror}); prepare the data set "
                        "again") from error
    if offset != size:
        raise UserError(f"{path}: expected whole TFRecords, received a file truncated or damaged in record "
                        f"{len(offsets) - 1}; prepare the data set again")
    return np.array(offsets, np.int64)


class _Chosen:
    """Some of a sequence's items."""

    def __init__(self, records, indices):
        self.records = records
        self.indices = indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.records[self.indices[index]]


class _Locked:
    """A sequence that one thread at a time indexes."""

    def __init__(self, records):
        self.records = records
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        with self.lock:
            return self.records[int(index)]


def _import_tfds():
    import tensorflow_datasets
    return tensorflow_datasets


def _builder(library, config, choices, suggests):
    where = paths.folder(config.data_dir, "data_dir", local=True) if config.data_dir else None
    try:
        # TFDS looks for its files by patterns.
        builder = library.builder(config.dataset, data_dir=paths.plain(where) if where and where.is_dir() else where)
    except library.core.DatasetNotFoundError as error:
        names = library.list_builders(with_community_datasets=False)
        nearest = suggestion(config.dataset, [*choices, *names]) if suggests else ""
        raise UserError(f"dataset: expected {', '.join(choices)} or the name of a TFDS data set, received "
                        f"{config.dataset!r}{nearest}") from error
    except Exception as error:  # TFDS raises many classes for a wrong config, version or a missing dependency
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"dataset={config.dataset}: TFDS cannot make it ({reason})") from error
    if not builder.is_prepared() or not builder.info.splits:
        option = f" {shlex.quote(f'--data_dir={where}')}" if where else ""
        place = paths.restore_name(os.fspath(builder.data_path), where or "")
        raise UserError(f"dataset={config.dataset}: expected it prepared in {place}, found nothing; where "
                        f"there is a network run `tfds build {config.dataset}{option}`, copy the result there if need "
                        "be, or give --data_dir")
    return builder


def _image_key(library, features, name):
    images = [key for key, feature in features.items() if isinstance(feature, library.features.Image)]
    if "image" not in images and len(images) != 1:
        raise UserError(f"dataset={name}: expected a feature `image`, or one other image, received "
                        f"{', '.join(sorted(features))}")
    key = "image" if "image" in images else images[0]
    if features[key].np_dtype != np.uint8:
        raise UserError(f"dataset={name}: expected uint8 images in feature {key!r}, received "
                        f"{np.dtype(features[key].np_dtype)}")
    if features[key].shape[-1] not in (1, 3, None):
        raise UserError(f"dataset={name}: expected grey or RGB images in feature {key!r}, received "
                        f"{features[key].shape[-1]} channels")
    return key


def _stamps(info):
    """For each record of a split the stamp of its file."""
    stamps = []
    for path, length in zip(info.filepaths, info.shard_lengths):
        stamp = file_stamp(path)
        stamps += [stamp and f"{os.path.basename(path)} {stamp}"] * length
    return stamps


def _records(library, builder, split, data_dir):
    info = builder.info.splits[split]
    if builder.info.file_format == library.core.FileFormat.TFRECORD:
        files = [paths.restore_name(os.fspath(path), os.path.expanduser(data_dir)) for path in info.filepaths]
        return TFRecordFiles(files, info.shard_lengths)
    if builder.info.file_format == library.core.FileFormat.ARRAY_RECORD:
        raw_bytes = library.core.decode.DeserializeMethod.RAW_BYTES
        return _Locked(builder.as_data_source(split=split, deserialize_method=raw_bytes))
    raise UserError(f"dataset={builder.info.name}: expected files of format tfrecord or array_record, received "
                    f"{builder.info.file_format.value}; prepare it again in one of these")
