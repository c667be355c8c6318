"""Where a run's images come from, and what becomes of them."""

import dataclasses

from tfcq.config.fields import Section, option
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True, repr=False)
class DataConfig(Section):
    """Where images come from, and what a model sees of them: uint8 [image_size, image_size, channels]."""

    dataset: str = option(
        "digits",
        "the data set: digits | photo_patches | idx:DIR | folder:DIR | npz:FILE | the name of a TFDS image data set "
        "(cifar10, celeb_a, ...)",
        on_resume="place", paths=("idx:", "folder:", "npz:"),
    )
    data_dir: str = option(
        "", "the folder where TFDS keeps prepared data sets; empty: TFDS's own default", on_resume="place", paths=("",)
    )
    image_size: int = option(32, "the side of the square images that a model sees", minimum=4, maximum=1024, unit="pixels")
    center_crop: int = option(
        0,
        "the side of the square that is cut from the centre of each source image before it is resized; 0: the largest square",
        minimum=0, maximum=16384, unit="source pixels",
    )
    resize: str = option(
        "area",
        "how the cut square reaches image_size: area (averaged, up or down) | pad (unscaled, centred in black)",
        choices=("area", "pad"),
    )
    color: str = option(
        "source",
        "the colours of the images: grey | rgb | source (as the files are; files of both kinds are then an error)",
        choices=("source", "grey", "rgb"),
    )
    skip_broken_images: bool = option(
        False,
        "leaves out the images that cannot be read or are of a kind that is refused (16 bits, CMYK, transparent, ...), and "
        "says which; without it they are an error before training",
    )
    horizontal_flip: bool = option(False, "mirrors each training image with probability 1/2")
    random_translation: float = option(
        0.0,
        "the largest move of a training image, as a fraction of its side: each is moved by whole pixels, down or up and "
        "right or left, and its edge is repeated where it leaves",
        minimum=0.0, maximum=1.0,
    )
    train_split: str = option(
        "train",
        "the split of the data set that the training images are; another than train only where TFDS has it (stl10: "
        "unlabelled)",
    )
    test_split: str = option(
        "test",
        "the split of the data set that the test images are, held out of the training images where there is none; another "
        "than test only where TFDS has it (lsun: validation)",
    )
    num_validation: int = option(
        0, "how many images are held out of the training split for validation; 0: a tenth of them", minimum=0, unit="images"
    )
    held_out: str = option(
        "random",
        "which images are held out where a source has no such split: random (by one fixed permutation) | last (the source's "
        "last ones)",
        choices=("random", "last"),
    )

    def check(self):
        if not self.dataset:
            raise UserError("dataset: expected a name, received an empty string")
        if self.train_split == self.test_split:
            raise UserError(
                f"train_split and test_split: expected two different splits, received {self.train_split!r} for both"
            )
