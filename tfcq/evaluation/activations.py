"""The features of real and of generated images, streamed: features are kept, images are not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.evaluation.streaming import Sharded
from tfcq.machine.files import check_folder, replacing
from tfcq.machine.paths import as_path
from tfcq.machine.terminal import ImageProgress
from tfcq.randomness import row_seeds

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.features import FeatureExtractor
    from tfcq.models.base import GenerativeModel

IMAGES_SHOWN = 16
"""How many images are kept if no metric looks at pixels: those that the report shows."""

_FINGERPRINTED = 256  # number of images that represent their data set in the cache's key


@dataclasses.dataclass(frozen=True)
class Activations:
    """What an extractor gives for N images.

    Attributes:
        features: float32 [N, D].
        logits: float32 [N, classes], or None if the extractor has no classes.
        images: uint8 [at most N, H, W, C], the first images.
        classes: the images' classes by name, str [N], or None if they are not known.
    """

    features: np.ndarray
    logits: np.ndarray | None
    images: np.ndarray
    classes: np.ndarray | None = None

    def __len__(self):
        return len(self.features)

    def first(self, count: int) -> Activations:
        """The Activations of the first `count` images."""
        logits, classes = (None if one is None else one[:count] for one in (self.logits, self.classes))
        return Activations(self.features[:count], logits, self.images[:count], classes)

    def with_images(self, count: int) -> Activations:
        """These Activations, with the first `count` of their images alone."""
        return dataclasses.replace(self, images=self.images[:count])


class Activator:
    """Runs images through an extractor; its functions are compiled once.

    Args:
        extractor: a `tfcq.features` extractor, made in the strategy's scope.
        image_shape: (H, W, C).
        batch_size: images at a time.
        strategy: its replicas divide the work; None: one device does it.
        cache_dir: folder for the features of real images; None: they are not kept.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        image_shape: Sequence[int],
        batch_size: int = 250,
        strategy: tf.distribute.Strategy | None = None,
        cache_dir: str | os.PathLike | None = None,
    ) -> None:
        self.extractor = extractor
        self._batch_size, self._strategy = batch_size, strategy
        self._cache = Cache(cache_dir) if cache_dir else None
        images = tf.TensorSpec((None, *image_shape), tf.uint8)
        self._of_images = Sharded(self._outputs, (images,), strategy)
        self._samplers: dict[tuple[GenerativeModel, bool], Sharded] = {}

    def _outputs(self, images):
        features, logits = self.extractor(images)
        return (features,) if logits is None else (features, logits)

    def real(
        self, dataset: ImageDataset, split: str, count: int, num_kept: int = IMAGES_SHOWN, cached: bool = True
    ) -> Activations:
        """Activations of the first `count` images of a split of an `ImageDataset` (of all, if there are fewer).

        `num_kept` images themselves are kept; `cached`: whether the features are kept in the cache, if there is one.
        """
        count = min(count, dataset.num_images(split))
        kept, in_use = dataset.images(split, range(min(count, num_kept))), self._cache if cached else None
        key = self._key(dataset, split, count) if in_use else ""
        outputs = in_use.read(key) if in_use else None
        if outputs is None:
            cache = in_use if in_use and in_use.check() else None
            batches = dataset.eval_batches(split, self._batch_size, count)
            outputs = self._stream(f"features of {split}", (self._of_images(np.asarray(batch)) for batch in batches), count)
            if cache:
                cache.write(key, outputs)
        return self._activations(outputs, kept)

    def generated(
        self,
        model: GenerativeModel,
        count: int,
        seed: int,
        temperature: float = 1.0,
        num_kept: int = IMAGES_SHOWN,
        classes: np.ndarray | None = None,
    ) -> Activations:
        """Activations of images that `model` draws: image i has the seed (seed, i). `num_kept`: as in `real`.

        `classes`: of each image, numbers int32 [count], of a model with classes, and the Activations then have their names.
        None: the model draws what it draws.
        """
        key = model, classes is not None
        if key not in self._samplers:

            def sample(seeds, temperatures, *given):
                images = model.sample_class(*given, seeds, temperatures) if given else model.sample(seeds, temperatures)
                return images, *self._outputs(images)

            signature = [tf.TensorSpec((None, 2), tf.int32), tf.TensorSpec((None,), tf.float32)]
            signature += [] if classes is None else [tf.TensorSpec((None,), tf.int32)]
            of_model = {known: sampler for known, sampler in self._samplers.items() if known[0] is model}
            self._samplers = of_model | {key: Sharded(sample, tuple(signature), self._strategy)}
        sampler, kept = self._samplers[key], []

        def batches():
            for start in range(0, count, self._batch_size):
                size = min(self._batch_size, count - start)
                given = [] if classes is None else [classes[start:start + size]]
                images, *outputs = sampler(row_seeds(size, seed, start), np.full(size, temperature, np.float32), *given)
                if start < num_kept:
                    kept.append(images)
                yield outputs

        outputs = self._stream(f"samples of seed {seed}", batches(), count)
        names = None if classes is None else np.array(model.class_names, str)[classes]
        return dataclasses.replace(self._activations(outputs, np.concatenate(kept)[:num_kept]), classes=names)

    @staticmethod
    def _activations(outputs, images):
        logits = outputs[1] if len(outputs) > 1 else None
        return Activations(outputs[0], logits, images)

    @staticmethod
    def _stream(name, batches, total):
        rows, done, progress = [], 0, ImageProgress(name, total)
        for outputs in batches:
            rows.append(outputs)
            done += len(outputs[0])
            progress(done)
        return [np.concatenate(column) for column in zip(*rows)]

    def _key(self, dataset, split, count):
        """A hash of all that determines the features: the preprocessed images and the extractor."""
        positions = np.unique(np.linspace(0, count - 1, _FINGERPRINTED).astype(int))
        facts = {
            "images": hashlib.sha256(dataset.images(split, positions).tobytes()).hexdigest(),  # after preprocessing
            "content": dataset.manifest and dataset.manifest.fingerprint(split, count),  # of every image
            "shape": list(dataset.image_shape),
            "split": split,
            "count": count,
            "num_images": dataset.num_images(split),
            "extractor": self.extractor.name,
            "checksum": self.extractor.checksum,
            "protocol": self.extractor.protocol,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class Cache:
    """Features of real images on disk, a file for each set. A broken file is ignored; a full disk is reported, not raised."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = as_path(folder).expanduser()

    def check(self) -> bool:
        """Whether files can be written; if not, says so before the work."""
        try:
            check_folder("cache", self._folder)
        except UserError as error:
            print(f"{error}; continuing without a cache", flush=True)
            return False
        return True

    def read(self, key: str) -> list[np.ndarray] | None:
        """The list of arrays kept under `key`, or None."""
        try:
            with (self._folder / f"{key}.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"cache {self._folder / key}.npz cannot be read and is rebuilt: {error}", flush=True)
            return None

    def write(self, key: str, outputs: Sequence[np.ndarray]) -> None:
        """Keeps a list of arrays under `key`, completely or not at all."""
        path = self._folder / f"{key}.npz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(file, *outputs)
        except OSError as error:
            print(f"cache {path}: cannot be written: {error.strerror}; continuing without it", flush=True)
