"""Train on synthetic, test on real: what a classifier learns from generated images of known classes (Esteban et al. 2017).

A classifier is trained on generated images with their classes, and another one, by the same recipe, on as many training
images. Both are tested on the same real images that neither has seen. The ratio of their accuracies says what the generated
images are worth in the place of real ones: 1, or a little above by chance, is as good; a model that mixes classes up, or has
lost some, is below. It says nothing of privacy: a model that copies its training images has a ratio of 1
(`tfcq.metrics.near_copies`).

Here the classifier is a logistic regression on features; `tfcq.metrics.tstr_cnn` has a network on pixels.

References:

* Esteban, Hyland, Raetsch: Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs, 2017, section 4.2.
* Ravuri, Vinyals: Classification Accuracy Score for Conditional Generative Models, 2019: the same for images.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tfcq.errors import UserError
from tfcq.metrics.checks import check_same_columns
from tfcq.metrics.metric import Measured, Metric

Classifier: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""A function from inputs [N, ...] to their classes, str [N]."""

_MOST_ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Tested:
    """How classifiers do on real images.

    Attributes:
        accuracies: {"generated" | "real": fraction of the test images whose class the classifier trained on those finds}.
        recalls: {"generated" | "real": {class: the same, of the test images of that class}}.
        counts: {class: how many test images it has}.
        num_trained: on how many images each of both was trained.
        notes: sentences for the reader.
    """

    accuracies: dict[str, float]
    recalls: dict[str, dict[str, float]]
    counts: dict[str, int]
    num_trained: int
    notes: list[str]

    @property
    def ratio(self) -> float:
        """The accuracy of the classifier trained on generated images over that of the other one; 0 if that is 0."""
        return self.accuracies["generated"] / self.accuracies["real"] if self.accuracies["real"] else 0.0


def train_and_test(
    fit: Callable[[np.ndarray, np.ndarray, int], Classifier],
    generated: tuple[np.ndarray, np.ndarray],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
) -> Tested:
    """Trains a classifier on generated and one on real images, as many, and tests both.

    Few training images may lack a class that generated ones have; `check_classes` is for all of them.

    Args:
        fit: function (inputs, classes, seed) -> `Classifier`.
        generated, train, test: (inputs [N, ...], classes str [N]); of the larger one of `generated` and `train` a random choice
            is taken.
        seed: of the choice, and of `fit`.
    """
    count, random = min(len(generated[1]), len(train[1])), np.random.default_rng(seed)
    names = np.unique(test[1])
    accuracies, recalls, notes = {}, {}, []
    for side, (inputs, classes) in {"generated": generated, "real": train}.items():
        chosen = np.sort(random.permutation(len(classes))[:count])
        found, given = np.unique(classes[chosen]), classes[chosen]
        classify = fit(inputs[chosen], given, seed) if len(found) > 1 else _always(found[0])
        right = classify(test[0]) == test[1]
        accuracies[side] = float(np.mean(right))
        recalls[side] = {str(name): float(np.mean(right[test[1] == name])) for name in names}
        missing = np.setdiff1d(names, found)
        if len(missing):
            what = "generated" if side == "generated" else "training"
            notes.append(f"none of the {count} {what} images that classifiers learn of has the class {_listed(missing)}")
    counts = {str(name): int(np.sum(test[1] == name)) for name in names}
    return Tested(accuracies, recalls, counts, count, notes)


def check_classes(generated: np.ndarray, train: np.ndarray) -> None:
    """Raises UserError if generated images have a class that no training image has, or those have one alone: str [N] and [T]."""
    known = np.unique(train)
    unknown = np.setdiff1d(generated, known)
    if len(unknown):
        raise UserError(f"expected generated images of the real ones' classes, {_listed(known)}, received {_listed(unknown)}")
    if len(known) < 2:
        raise UserError(f"expected training images of at least two classes, received {_listed(known)} alone")


def logistic_regression(inputs: np.ndarray, classes: np.ndarray, seed: int = 0) -> Classifier:
    """A `Classifier` by multinomial logistic regression with an L2 penalty (scikit-learn, C = 1) on standardised features.

    Mean and standard deviation are those of the inputs; a feature that is constant stays at 0. Nothing in it is random.

    Args:
        inputs: float [N, D].
        classes: str [N], at least two different ones.
        seed: not used.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)

    def standardised(some):
        return (some - mean) / scale

    model = LogisticRegression(max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what was reached by then is the fixed recipe's result
        model.fit(standardised(inputs), classes)
    return lambda some: model.predict(standardised(some))


def measured(tested: Tested, name: str, classifier: str) -> Measured:
    """What a metric called `name` gives for it; `classifier`: in words."""
    details = {
        "real": tested.accuracies["real"],
        "num_real_as_generated": tested.num_trained,
        "classifier": classifier,
        "num_of_class": tested.counts,
        "recall": tested.recalls["generated"],
        "real_recall": tested.recalls["real"],
    }
    values = {f"{name}_accuracy": tested.accuracies["generated"], f"{name}_ratio": tested.ratio}
    return Measured(values, {f"{name}_accuracy": details}, tested.notes)


def _always(name):
    """The `Classifier` of images of one class."""
    return lambda some: np.full(len(some), name)


def _listed(names):
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} others" if len(names) > 8 else "")


def _measure(real, generated, seed, train):
    features = check_same_columns(generated=generated.features, train=train.features, real=real.features)
    of_generated, of_train, of_test = zip(features, (generated.classes, train.classes, real.classes))
    tested = train_and_test(logistic_regression, of_generated, of_train, of_test, seed)
    return measured(tested, "tstr", "logistic regression on standardised features, C = 1")


METRIC = Metric(_measure, needs="features", floor=False, train=True, classes=True)
