"""Where a run's images come from, and how they are prepared."""

import dataclasses

from tfcq.config.fields import Section, option
from tfcq.errors import UserError

PREPARATION = ("center_crop", "resize", "color")
"""The options that say how a source image becomes one of the model's size and colours."""


@dataclasses.dataclass(frozen=True, repr=False)
class DataConfig(Section):
    """Where images come from, and how they become what a model sees: uint8 [image_size, image_size, channels]."""

    dataset: str = option(
        "digits",
        "the data set: digits | photo_patches | idx:DIR | folder:DIR | npz:FILE | the name of a TFDS image data set "
        "(cifar10, celeb_a, ...)",
        on_resume="place", paths=("idx:", "folder:", "npz:"),
    )
    data_dir: str = option(
        "", "the folder where TFDS keeps prepared data sets; empty: TFDS's default", on_resume="place", paths=("",)
    )
    data_cache: str = option(
        "",
        "the folder where images are kept decoded, if they do not fit into memory (4 GiB) or are 10,000 files or more; it "
        "changes speed alone; empty: ~/.cache/tfcq/images; none: no cache",
        on_resume="free", paths=("",), words=("none",),
    )
    image_size: int = option(
        32,
        "the side of the square images that a model sees",
        minimum=4, maximum=1024, unit="pixels",
        advice="models see square images, so it is one side: what is not square is cut at its centre",
    )
    center_crop: int = option(
        0,
        "the side of the square that is cut from the centre of each source image before it is resized; 0: the largest square",
        minimum=0, maximum=16384, unit="source pixels",
        advice="it is one side: a square is cut",
    )
    resize: str = option(
        "area",
        "how the cut square is brought to image_size: area (averaged, up or down) | pad (unscaled, centred in black)",
        choices=("area", "pad"),
    )
    color: str = option(
        "source",
        "the colours of the images: grey | rgb | source (as in the files; files of both kinds are then an error)",
        choices=("source", "grey", "rgb"),
    )
    skip_broken_images: bool = option(
        False,
        "leaves out images that cannot be read or are of an unsupported kind (16 bits, CMYK, transparent, ...), and lists "
        "them; without it they are an error before training",
    )
    horizontal_flip: bool = option(False, "mirrors each training image with probability 1/2")
    random_translation: float = option(
        0.0,
        "the largest translation of a training image, as a fraction of its side: each is moved by whole pixels, down or up "
        "and right or left, and its edge pixels are repeated to fill the gap",
        minimum=0.0, maximum=1.0,
    )
    balance_classes: bool = option(
        False,
        "draws every class equally often in training, whatever its number of images: the classes are the folders right below "
        "that of the training images (dataset=folder:DIR)",
    )
    train_split: str = option(
        "train",
        "the split of the data set with the training images; other names than train need a TFDS data set that has them "
        "(stl10: unlabelled)",
    )
    test_split: str = option(
        "test",
        "the split of the data set with the test images, which are held out of the training images if there is none; other "
        "names than test need a TFDS data set that has them (lsun: validation)",
    )
    num_validation: int | str = option(
        0,
        "how many images are held out of the training split for validation; 0: a tenth of them; none: no image, so that all "
        "are trained on; evaluations during training then measure eval_metrics alone, on another eval_split",
        minimum=0, unit="images", words=("none",),
    )
    num_test: int = option(
        0,
        "how many images are held out of the training split for test, if the source has no test split; 0: a tenth of them",
        minimum=0, unit="images",
    )
    held_out: str = option(
        "random",
        "which images are held out if a source has no such split: random (by one fixed permutation) | last (the source's "
        "last ones)",
        choices=("random", "last"),
    )

    def check(self) -> None:
        """Raises UserError for an empty data set, or if both splits are the same."""
        if not self.dataset:
            raise UserError("dataset: expected a name, received an empty string")
        if self.balance_classes and not self.dataset.startswith("folder:"):
            raise UserError(
                f"balance_classes with dataset={self.dataset}: expected dataset=folder:DIR with a folder for each class; other "
                "data sets are read without classes"
            )
        if self.train_split == self.test_split:
            raise UserError(
                f"train_split and test_split: expected two different splits, received {self.train_split!r} for both"
            )

    def other(
        self, channels: int, dataset: str, test_split: str = "test", data_dir: str = "", data_cache: str = ""
    ) -> "DataConfig":
        """The DataConfig of another data set, cut, resized and coloured like a run's images, with splits of its own.

        Args:
            channels: number of channels of the run's images, 1 or 3; the other images are read so, whatever their files have.
            dataset, test_split: as the options.
            data_dir, data_cache: as the options; empty: this one's.
        """
        return DataConfig(
            dataset=dataset,
            data_dir=data_dir or self.data_dir,
            data_cache=data_cache or self.data_cache,
            image_size=self.image_size,
            center_crop=self.center_crop,
            resize=self.resize,
            color={1: "grey", 3: "rgb"}[channels],
            test_split=test_split,
            skip_broken_images=self.skip_broken_images,
        )
