"""What a module of metrics says of its metric: `METRIC`, at its end. Plain Python, without NumPy."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass
class Measured:
    """What a metric gives for one set of generated images.

    Attributes:
        values: {name: float}, the names of `registry.numbers_of`.
        details: {name: dict of plain values}, written beside the value of that name.
        notes: sentences for the reader.
        curve: {name: array} that the report draws, or None.
    """

    values: dict
    details: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    curve: dict | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric of samples is measured.

    Attributes:
        measure: function (real, generated, seed, **more) -> Measured. Both sets have a length N, `features` float32 [N, D],
            `logits` float32 [N, classes] or None, and `images` uint8 [at most N, H, W, C], the first
            (`tfcq.evaluation.activations.Activations`). `more`: what `train` and `options` ask for.
        needs: "features", "logits" or "images": what it looks at.
        floor: whether other real images are measured in the place of the generated ones too.
        train: whether it compares with the training images: it gets them as `train`, and `real` are images that are held out.
        options: the names of the options of `EvaluationConfig` that it gets.
    """

    measure: Callable[..., Measured]
    needs: str
    floor: bool = True
    train: bool = False
    options: tuple[str, ...] = ()
