"""The public side of the data: `load` makes an `ImageDataset`, which hands out batches.

If all splits together take at most `MEMORY_LIMIT`, the images are held in memory once, as uint8 of their final shape, and
batches are gathered from that array. Images of larger sets, and of many files, are decoded once into a file (`cache`), from
which batches are read. Without that, they are read and transformed on demand, by index, on all CPUs, after every image has been
read once (`survey`). In every case training batch s is a pure function of (seed, s): the order of an epoch, its flips and its
moves depend only on (seed, epoch), so a run resumes anywhere at no cost.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfcq.checks import as_array, check_bool, check_integer, check_kind, shown
from tfcq.config import DataConfig
from tfcq.config.fields import suggestion
from tfcq.data import earlier
from tfcq.data.classes import Classes, of_training
from tfcq.data.holding import cache_folder, decode_ahead, gather_all
from tfcq.data.manifest import Manifest
from tfcq.data.opening import open_source
from tfcq.data.order import epoch_of
from tfcq.data.sources import Source
from tfcq.data.split_images import Gather, by_content, by_position, without_others
from tfcq.data.splits import JOINED, SPLITS
from tfcq.data.transforms import Transform, translate
from tfcq.errors import UserError

FEW = 100
"""A split with fewer images than this gets a warning. Bits/dim of single images differ by about 0.6 (measured on
Fashion-MNIST, configs/README.md), so the mean over a hundred has a standard error of 0.06: as large as the differences
between the models of a table."""

MEMORY_LIMIT = 4 * 2**30
"""Largest number of bytes of transformed images, of all splits together, that are held in memory."""


def load(
    config: DataConfig, manifest: Manifest | None = None, accept_changed_data: bool = False, source: Source | None = None
) -> ImageDataset:
    """The images that a DataConfig names.

    Args:
        config: `tfcq.config.DataConfig`.
        manifest: the `Manifest` of a run that has begun: its images are found by their content and keep their splits and
            order; other images of the source are left out. None: splits are made by position.
        accept_changed_data: whether missing images are left out of their splits, and changed images used as they are now.
        source: the images, if they have not been written to the place that `config` names yet; None: they are read there.

    Returns:
        ImageDataset.

    Raises:
        UserError: an unknown or broken source, images unfit for the configuration, too few images, or other images than the
            manifest's.
    """
    advice = "make one with tfcq.DataConfig(dataset=..., image_size=...); that of a tfcq.Config is config.data"
    check_kind("config", config, DataConfig, "a tfcq.DataConfig", advice)
    check_kind("manifest", manifest, Manifest | None, "a Manifest, as tfcq.workdir.read_manifest returns it, or None")
    check_bool("accept_changed_data", accept_changed_data)
    source, match = source or _open_usable(config, begun=manifest is not None), None
    if manifest:
        images, how, match = by_content(source, config, manifest, accept_changed_data)
    else:
        images, how = by_position(source, config)
    chosen = images  # of the source, as `raws` may have fewer
    raws, images = without_others(source.splits, images)
    first = raws[images["train"].origins[0]]
    transform = Transform.of(config, first.channels, first.name(first.example))
    num_bytes = sum(map(len, raws.values())) * int(np.prod(transform.shape))
    in_memory = num_bytes <= MEMORY_LIMIT
    gather, way, parallel_calls = gather_all(raws, transform, in_memory, cache_folder(config.data_cache))
    if match is None or match.changed:  # images that a run began with have been accepted
        for raw in raws.values():
            raw.refuse_scaled()
    known, manifest = manifest, match.manifest() if match else Manifest.of(raws, images)
    _warn_of_few(config.dataset, {split: len(one.indices) for split, one in images.items()})
    height, width, channels = transform.shape
    held = f"{num_bytes / 2**20:.0f} MiB {way}"
    repeats = [f"{count} of {split} are in {other} too" for (split, other), count in manifest.repeats().items()]
    balance = "classes are drawn equally often" if config.balance_classes else ""
    notes = "".join(f"; {note}" for note in [source.notes, balance, *repeats] if note)
    description = f"{config.dataset}: {how}; {height}x{width}x{channels}, {held}{notes}"
    return ImageDataset(
        description,
        transform.shape,
        {split: one.gather(gather) for split, one in images.items()},
        config.horizontal_flip,
        parallel_calls,
        config.random_translation,
        manifest,
        match.counts() if match else "",
        functools.partial(of_training, manifest, known, config.dataset, accept_changed_data) if config.balance_classes else None,
        functools.partial(Classes.of, {split: source.splits[split].labels for split in raws}, chosen, config.dataset),
    )


def manifest_by_position(config: DataConfig, by_earlier_version: bool = False) -> Manifest:
    """A `Manifest` for a run that has none; correct only if the DataConfig still names the images that the run began with.

    `by_earlier_version`: whether to read a folder as the versions did that kept no manifest.
    """
    source = then = _open_usable(config, begun=True)
    kind, _, place = config.dataset.partition(":")
    if by_earlier_version and kind == "folder":
        then = earlier.folder(os.path.expanduser(place))
    manifest = Manifest.of(then.splits, by_position(then, config)[0])
    return manifest if then is source else manifest.match(source).manifest()  # under today's names


class ImageDataset:
    """Images of one shape in three splits; made by `load`.

    Args:
        description: one line: source, sizes of the splits, how they were made, notes.
        image_shape: (H, W, C).
        splits: {"train" | "validation" | "test": (gather, indices)}: `gather` maps int64 [n] to uint8
            [n, H, W, C]; `indices`, int64 [N], are the images of this split.
        horizontal_flip: whether `train_batches` mirrors images at random.
        parallel_calls: number of batches that are gathered in parallel.
        random_translation: how far `train_batches` moves images at most, as a fraction of an image's side.
        manifest: the `Manifest` of the splits; None: unknown.
        differs: how the images differ from those that the run began with, in words; "": no known difference.
        classes: function that gives the class of each training image, int64 [N]; `train_batches` draws all of them equally
            often. None: classes do not matter.
        labels: function that gives the `Classes` of the images, for `classes`; None: they have none.

    Attributes:
        doubt: why it is uncertain that the splits are those that the run began with, in words; "": it is certain.
    """

    doubt = ""

    def __init__(
        self,
        description: str,
        image_shape: Sequence[int],
        splits: Mapping[str, tuple[Gather, np.ndarray]],
        horizontal_flip: bool,
        parallel_calls: int = 2,
        random_translation: float = 0.0,
        manifest: Manifest | None = None,
        differs: str = "",
        classes: Callable[[], np.ndarray] | None = None,
        labels: Callable[[], Classes] | None = None,
    ) -> None:
        self.description = description
        self.image_shape = tuple(image_shape)
        self._splits = splits
        self._horizontal_flip = horizontal_flip
        self._parallel_calls = parallel_calls
        self._random_translation = random_translation
        self.manifest = manifest
        self.differs = differs
        self._classes = classes
        self._labels = labels
        self._error: UserError | None = None
        self._error_lock = threading.Lock()

    def take_error(self) -> UserError | None:
        """Returns and clears the first UserError that was raised while a batch was made; None: there was none.

        Images that are decoded as needed can turn out broken in the middle of a run. tf.data then raises a tf.errors.OpError
        of its own; code that catches one finds the cause here.
        """
        with self._error_lock:
            error, self._error = self._error, None
        return error

    @functools.cached_property
    def classes(self) -> Classes:
        """The classes of the images; they are looked at when this is first used. UserError if the images have none."""
        if self._labels is None:
            raise UserError(f"dataset {self.description.split(': ')[0]}: expected images with a class each, received others")
        return self._labels()

    def classes_of(self, split: str, names: Sequence[str]) -> np.ndarray:
        """The class of each image of a split, an index into `names`, int32 [N]; UserError for an image of none of them."""
        dataset = self.description.split(": ")[0]
        return np.concatenate([self.classes.numbered(one, names, dataset) for one in JOINED.get(split, (split,))])

    def num_images(self, split: str) -> int:
        """How many images "train", "validation" or "test" has, or "train_and_validation", both together."""
        return len(self._split(split)[1])

    def require_images(self, split: str) -> None:
        """Raises UserError if a split has no images: a run of num_validation=none has none for validation."""
        if not self.num_images(split):
            others = " or ".join(one for one in SPLITS if self.num_images(one))
            raise UserError(f"split: expected {others}, received {split}, of which the run has no images (num_validation=none)")

    def num_images_at_start(self, split: str) -> int:
        """How many images a split had when the run began: `num_images` plus the missing images, whose numbers stay unused."""
        return self.manifest.count_at_start(split) if self.manifest else self.num_images(split)

    def images(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some images of a split, uint8 [len(indices), H, W, C]; indices: a sequence of ints in 0 .. num_images - 1."""
        array = as_array(list(indices) if isinstance(indices, range) else indices, "indices", "ints [n]").reshape(-1)
        if array.size and array.dtype.kind not in "iu":  # a mask, or floats, which NumPy would round
            raise UserError(f"indices: expected ints [n], received {shown(array)}")
        array = array.astype(np.int64)
        count = self.num_images(split)
        if len(array) and not 0 <= array.min() <= array.max() < count:
            raise UserError(f"expected indices from 0 to {count - 1} into the {split} split, received {array.min()} "
                            f"to {array.max()}")
        return self._take(split, array)

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        with_indices: bool = False,
        rows: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Batches for training, without end.

        An epoch is num_images // batch_size batches of a fresh permutation; the remaining images are not seen in that
        epoch. With balance_classes it is as many draws, of every class equally often (`order.balanced`). With horizontal_flip
        each image is mirrored with probability 1/2. With random_translation it is moved by whole numbers of pixels: uniform up
        to that fraction of its side, then rounded. Both are drawn anew each epoch, or each time a balanced image is drawn.

        Args:
            batch_size: images of a batch.
            seed: int >= 0, for order, flips and moves.
            start_step: number of the first batch; the sequence goes on as if the earlier ones had been drawn.
            with_indices: whether each batch comes with the numbers of its images in the train split that the run began with.
            rows: which rows of each batch are read, so that it has only these; None: all.
            class_names: each batch comes with its images' classes, as `classes_of` numbers them by these names; empty: without.

        Returns:
            An infinite tf.data.Dataset of uint8 [batch_size, H, W, C], or of pairs of that and int64 [batch_size] (numbers) or
            int32 [batch_size] (classes), prefetched.

        Raises:
            UserError: fewer images than batch_size, or no classes to balance.
        """
        for name, value in {"batch_size": batch_size, "seed": seed, "start_step": start_step}.items():
            check_integer(name, value)
        count = self.num_images("train")
        if not 1 <= batch_size <= count:
            raise UserError(f"batch_size={batch_size}: expected 1 to {count}, the number of train images of "
                            f"{self.description.split(': ')[0]}; lower batch_size or add images")
        if seed < 0 or start_step < 0:
            raise UserError(f"expected seed and start_step of at least 0, received {seed} and {start_step}")
        steps_per_epoch, own = count // batch_size, np.array(range(batch_size) if rows is None else rows, np.int64)

        most = [self._random_translation * side for side in self.image_shape[:2]]
        classes = self._classes() if self._classes else None

        # Two epochs are in use while the last batches of one and the first of the next are prepared.
        @functools.lru_cache(maxsize=2)
        def plan(epoch):
            return epoch_of(seed, epoch, count, most, classes)

        def drawn(step):
            epoch, position = divmod(int(step), steps_per_epoch)
            return plan(epoch).take(position * batch_size + own)

        def batch(step):
            indices, flip, moved = drawn(step)
            images = self._take("train", indices)
            if self._horizontal_flip:
                images[flip] = images[flip, :, ::-1]
            return images if moved is None else translate(images, moved)

        steps = tf.data.Dataset.counter(start_step)
        if class_names:
            facts = self.classes_of("train", class_names)
        elif with_indices:
            facts = np.array(self.manifest.numbers("train") if self.manifest else range(count), np.int64)
        else:
            return self._pipeline(steps, batch, len(own))

        def of_images(step):
            return facts[drawn(step)[0]]

        def one(step):
            found = tf.numpy_function(of_images, [step], tf.as_dtype(facts.dtype), stateful=False)
            return tf.ensure_shape(found, (len(own),))

        return tf.data.Dataset.zip(self._pipeline(steps, batch, len(own)), steps.map(one))

    def eval_batches(self, split: str, batch_size: int, num_images: int | None = None) -> tf.data.Dataset:
        """A split once, in its fixed order, without flips.

        Args:
            split: as in `num_images`.
            batch_size: images of a batch; the last batch may have fewer.
            num_images: at most this many images, the first ones; None or 0: all.

        Returns:
            A finite tf.data.Dataset of uint8 [N, H, W, C], prefetched.
        """
        check_integer("batch_size", batch_size)
        check_integer("num_images", num_images or 0)
        if batch_size < 1 or (num_images or 0) < 0:
            raise UserError(f"expected batch_size of at least 1 and num_images of at least 0, received {batch_size} "
                            f"and {num_images}")
        count = min(num_images or self.num_images(split), self.num_images(split))

        def batch(step):
            return self._take(split, np.arange(step * batch_size, min((step + 1) * batch_size, count)))

        return self._pipeline(tf.data.Dataset.range(-(-count // batch_size)), batch, None)

    def _split(self, split):
        if split in list(JOINED):  # a list, as `split` may be unhashable
            return self._joined([self._splits[one] for one in JOINED[split]])
        if split not in list(self._splits):
            known = [*SPLITS, *JOINED]
            raise UserError(f"split: expected one of {', '.join(known)}, received {split!r}{suggestion(split, known)}")
        return self._splits[split]

    def _joined(self, splits):
        starts = np.cumsum([0, *(len(indices) for _, indices in splits)])

        def gather(positions):
            images = np.empty((len(positions), *self.image_shape), np.uint8)
            for (gather_one, indices), start, stop in zip(splits, starts[:-1], starts[1:]):
                here = (start <= positions) & (positions < stop)
                if here.any():
                    images[here] = gather_one(indices[positions[here] - start])
            return images

        return gather, np.arange(starts[-1])

    def _take(self, split, positions):
        gather, indices = self._split(split)
        return gather(indices[positions])

    def _pipeline(self, steps, batch, batch_size):
        def remembering(step):  # several threads call it
            try:
                return batch(step)
            except UserError as error:
                with self._error_lock:
                    self._error = self._error or error
                raise

        def one(step):
            # Not stateful: a pure function of the step, which may run in parallel under op determinism too.
            images = tf.numpy_function(remembering, [step], tf.uint8, stateful=False)
            images.set_shape((batch_size, *self.image_shape))
            return images

        return steps.map(one, num_parallel_calls=self._parallel_calls, deterministic=True).prefetch(2)


def _open_usable(config, begun=False):
    """`open_source` without broken images, if the DataConfig leaves those out."""
    source = open_source(config, begun)
    if not config.skip_broken_images:
        return source
    decode_ahead(source, config, MEMORY_LIMIT)
    return source.without_broken()


def _warn_of_few(name, counts):
    few = [f"{count} {split}" for split, count in counts.items() if 0 < count < FEW]
    if few:
        print(f"warning: {name} has only {', '.join(few)} images: with fewer than {FEW}, a model memorises its training "
              "images, and metrics on the others are mostly noise", flush=True)
