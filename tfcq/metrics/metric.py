"""How a module describes its metric: by `METRIC`, at the module's end. Plain Python, without NumPy."""

import dataclasses
from collections.abc import Callable

IMAGES_KEPT = 8192
"""How many images are kept for a metric of pixels that does not say how many it needs; features are kept of all images."""


@dataclasses.dataclass
class Measured:
    """The result of a metric for one set of generated images.

    Attributes:
        values: {name: float}, under the names of `registry.numbers_of`.
        details: {name: dict of plain values}, written beside the value of that name.
        notes: sentences for the reader.
        curve: {name: array} that the report draws, or None.
    """

    values: dict[str, float]
    details: dict[str, dict] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    curve: dict | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric of samples is measured.

    Attributes:
        measure: function (real, generated, seed, **more) -> Measured. Both sets have a length N, `features` float32 [N, D],
            `logits` float32 [N, classes] or None, and `images` uint8 [at most N, H, W, C], the first
            (`tfcq.evaluation.activations.Activations`). `more`: the arguments that `train` and `options` add.
        needs: "features", "logits", "images" or "features and images": the part of the sets that it uses.
        floor: whether to measure other real images in place of the generated ones, too.
        train: whether it compares with the training images: they are passed as `train`, and `real` is then held-out images.
        options: names of options of `EvaluationConfig` that are passed to it.
        classes: whether it needs to know the images' classes, which are then in `classes`, str [N], of all sets.
        check_size: function (height, width), which raises UserError if images of that size cannot be measured.
        num_images: function of those options -> how many images it looks at, the first ones, if it needs images.
    """

    measure: Callable[..., Measured]
    needs: str
    floor: bool = True
    train: bool = False
    options: tuple[str, ...] = ()
    classes: bool = False
    check_size: Callable[[int, int], object] = lambda height, width: None
    num_images: Callable[..., int] = lambda **_: IMAGES_KEPT

    @property
    def sees_images(self) -> bool:
        """Whether it looks at images, and not at features of them alone."""
        return "images" in self.needs
