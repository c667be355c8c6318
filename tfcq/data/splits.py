"""Which images are for training, validation and test: fixed, whatever the training seed.

- A source's own test split is the test split. Without one, `num_test` of the source's train images are held out, or a tenth of
  them (at least 1) if `num_test` is 0.
  (Which of a TFDS data set's splits are its train and test: `tfds.roles`.)
- A source's own validation split is the validation split. Otherwise `num_validation` images are held out of the
  source's train images, or a tenth of them (at least 1) if `num_validation` is 0, or none at all if it is "none".
- Held-out images are the first of one fixed permutation (`held_out` "random"), or the source's last ones ("last", from the
  end): test, then validation. The rest, in the source's order, is the train split.
"""

import numpy as np

from tfcq.errors import UserError

SPLITS = ("train", "validation", "test")

JOINED = {"train_and_validation": ("train", "validation")}
"""{name: the splits whose images, one after the other, it has}; named where real images are compared with, never trained on."""

# Any constant would do, but a change would move images between the splits of every model trained so far.
SEED = 20190106


def fixed_permutation(count: int) -> np.ndarray:
    """A permutation of range(count), int64 [count]; the same under every NumPy, since RandomState is frozen (NEP 19)."""
    return np.random.RandomState(SEED).permutation(count)


def assign(
    counts: dict[str, int], num_validation: int | str, name: str, held_out: str = "random", num_test: int = 0
) -> tuple[dict[str, tuple[str, np.ndarray]], str]:
    """The images of each split.

    Args:
        counts: number of images of each split of the source, {"train": n, ...}; "train" must be there.
        num_validation: images to hold out for validation; 0: a tenth of the source's train images; "none": none.
        name: name of the source, for messages.
        held_out: which images are held out, "random" or "last".
        num_test: images to hold out for test; 0: a tenth of the source's train images.

    Returns:
        ({split: (split of the source, int64 indices into it)} for train, validation and test, how they were chosen, in words).

    Raises:
        UserError: an empty split of the source, its own validation or test split where `num_validation` or `num_test` decides,
            or too few images to hold so many out.
    """
    for split, count in counts.items():
        if not count:
            raise UserError(f"{name}: expected images in its {split} split, received none")
    if num_validation and "validation" in counts:
        raise UserError(f"num_validation={num_validation}: {name} has its own validation split of "
                        f"{counts['validation']} images; expected num_validation=0")
    if num_test and "test" in counts:
        raise UserError(f"num_test={num_test}: {name} has its own test split of {counts['test']} images; expected num_test=0")
    count = counts["train"]
    tenth = max(1, count // 10)
    num_test = 0 if "test" in counts else num_test or tenth
    held_for_validation = 0 if "validation" in counts or num_validation == "none" else int(num_validation) or tenth
    if num_test + held_for_validation >= count:
        raise UserError(f"{name}: cannot hold {held_for_validation} images out for validation and {num_test} for test: "
                        f"expected fewer than its {count} train images together; lower num_validation or num_test, or add images")
    order = fixed_permutation(count) if held_out == "random" else np.arange(count)[::-1]
    chosen_out = order[:num_test + held_for_validation]
    chosen = {"train": ("train", np.setdiff1d(np.arange(count), chosen_out, assume_unique=True))}
    for split, held in (("validation", chosen_out[num_test:]), ("test", chosen_out[:num_test])):
        own = split in counts
        chosen[split] = (split, np.arange(counts[split])) if own else ("train", held)
    from_train = "(held out of train)" if held_out == "random" else "(held out, the last of train)"
    origin = {split: "(the source's own)" if split in counts else from_train for split in chosen}
    if num_validation == "none":
        origin["validation"] = "(none)"
    sizes = [f"{split} {len(chosen[split][1])} {origin[split]}" for split in ("validation", "test")]
    return chosen, f"train {len(chosen['train'][1])}, {', '.join(sizes)}"
