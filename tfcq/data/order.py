"""The order in which training images are drawn, their flips and moves: each epoch a pure function of (seed, epoch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What is drawn in an epoch.

    Attributes:
        order: numbers of the images in their order, int64 [at least the draws of the epoch].
        flips: whether an image is mirrored, bool.
        moves: how far it is moved, int64 [..., 2] in pixels; None: not at all.
        by_draw: whether flips and moves have an entry for each draw, in order; otherwise for each image, by its number.
    """

    order: np.ndarray
    flips: np.ndarray
    moves: np.ndarray | None
    by_draw: bool = False

    def take(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(numbers of the images int64 [n], flips bool [n], moves int64 [n, 2] or None) of some draws, int64 [n]."""
        images = self.order[draws]
        places = draws if self.by_draw else images
        return images, self.flips[places], None if self.moves is None else self.moves[places]


def epoch_of(seed: int, epoch: int, count: int, most: Sequence[float], classes: np.ndarray | None = None) -> Epoch:
    """An epoch of `count` images: a fresh permutation or, with `classes`, `balanced`.

    Args:
        seed: int >= 0.
        epoch: its number.
        count: how many images there are, and draws at most.
        most: the largest moves down and right, pixels; zeros: none.
        classes: the class of each image, int64 [count]; None: they do not matter.
    """
    # RandomState, whose streams are frozen (NEP 19): a run resumes identically under another NumPy.
    order = np.random.RandomState([seed, epoch]).permutation(count) if classes is None else balanced(seed, epoch, classes)
    flips = np.random.RandomState([seed, epoch, 1]).randint(2, size=count, dtype=np.uint8).astype(bool)
    moves = None
    if np.any(most):
        limits = np.array(most)
        moves = np.rint(np.random.RandomState([seed, epoch, 2]).uniform(-limits, limits, (count, 2))).astype(np.int64)
    return Epoch(order, flips, moves, by_draw=classes is not None)


def balanced(seed: int, epoch: int, classes: np.ndarray) -> np.ndarray:
    """The order of an epoch in which every class is drawn equally often, int64 [N], N the number of images.

    Of K classes, every K draws from the first on have one of each, in random order. The images of a class take turns: each is
    drawn once in a fresh permutation of the class before one is drawn again, also from one epoch to the next (but for those that
    an epoch leaves out, whose last K draws may be fewer). So images of small classes come several times in an epoch, and of
    large classes some do not come.

    Args:
        seed, epoch: as in `epoch_of`.
        classes: the class of each image, int64 [N], 0 to K - 1, none without images.
    """
    count, num_classes = len(classes), int(classes.max()) + 1
    rounds = -(-count // num_classes)
    drawn = np.random.RandomState([seed, epoch, 3]).random_sample((rounds, num_classes)).argsort(axis=1).ravel()
    order = np.empty(rounds * num_classes, np.int64)
    for number in range(num_classes):
        images = np.flatnonzero(classes == number)
        turns, places = np.divmod(epoch * rounds + np.arange(rounds), len(images))
        permutations = {
            turn: np.random.RandomState([seed, turn, 4, number]).permutation(images)
            for turn in (range(turns[0], turns[-1] + 1) if len(images) > 1 else ())
        }
        order[drawn == number] = [permutations.get(turn, images)[place] for turn, place in zip(turns.tolist(), places.tolist())]
    return order[:count]
