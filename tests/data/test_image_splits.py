"""Which images belong to which split."""

import numpy as np
import pytest

from tfcq.data.splits import assign, fixed_permutation
from tfcq.errors import UserError


def test_the_permutation_never_changes():
    # Other values here would move images between the splits of every model trained so far.
    assert fixed_permutation(10).tolist() == [0, 4, 1, 3, 5, 2, 8, 7, 6, 9]
    assert sorted(fixed_permutation(1000).tolist()) == list(range(1000))


@pytest.mark.parametrize("counts, num_validation, sizes", [
    ({"train": 60, "test": 10}, 0, (54, 6, 10)),
    ({"train": 60, "test": 10}, 15, (45, 15, 10)),
    ({"train": 60}, 0, (48, 6, 6)),
    ({"train": 60}, 20, (34, 20, 6)),
    ({"train": 60, "validation": 7}, 0, (54, 7, 6)),
    ({"train": 60, "validation": 7, "test": 9}, 0, (60, 7, 9)),
    ({"train": 3}, 0, (1, 1, 1)),
    ({"train": 2, "test": 1}, 0, (1, 1, 1)),
    ({"train": 60, "test": 10}, "none", (60, 0, 10)),
    ({"train": 60}, "none", (54, 0, 6)),
])
def test_sizes_and_disjointness(counts, num_validation, sizes):
    chosen, how = assign(counts, num_validation, "toy")
    splits = ("train", "validation", "test")
    assert tuple(len(chosen[split][1]) for split in splits) == sizes
    used = [(origin, index) for split in splits for origin, indices in [chosen[split]] for index in indices]
    assert len(set(used)) == len(used) == sum(counts.values())
    for split in ("validation", "test"):
        assert chosen[split][0] == (split if split in counts else "train")
        whence = "none)" if num_validation == "none" and split == "validation" else "held out"
        assert f"{split} {len(chosen[split][1])} (" + ("the source's own" if split in counts else whence) in how


def test_held_out_images_are_a_random_subset_and_train_keeps_the_source_order():
    chosen, _ = assign({"train": 1000}, 100, "toy")
    held = chosen["validation"][1]
    assert 350 < held.mean() < 650 and not np.all(np.diff(held) > 0)
    assert np.all(np.diff(chosen["train"][1]) > 0)


@pytest.mark.parametrize("counts, validation, test", [
    ({"train": 60, "test": 10}, range(50, 60), range(10)),
    ({"train": 60}, range(44, 54), range(54, 60)),
])
def test_the_last_images_may_be_held_out(counts, validation, test):
    chosen, _ = assign(counts, 10, "toy", held_out="last")
    assert sorted(chosen["validation"][1]) == list(validation) and sorted(chosen["test"][1]) == list(test)
    np.testing.assert_array_equal(chosen["train"][1], np.arange(validation[0]))


@pytest.mark.parametrize("counts, held_out, validation, test", [
    ({"train": 30000}, "last", range(28000, 29000), range(29000, 30000)),  # CelebA-HQ's last 1000 test (Huang et al. 2018)
    ({"train": 60}, "random", None, None),
])
def test_the_number_of_test_images_may_be_given(counts, held_out, validation, test):
    number = 1000 if held_out == "last" else 13
    chosen, _ = assign(counts, number, "toy", held_out, num_test=number)
    assert [len(chosen[split][1]) for split in ("train", "validation", "test")] == [counts["train"] - 2 * number, number, number]
    if held_out == "last":
        assert sorted(chosen["validation"][1]) == list(validation) and sorted(chosen["test"][1]) == list(test)
    # A larger validation split takes nothing from the test split.
    assert set(chosen["test"][1]) == set(assign(counts, number + 5, "toy", held_out, num_test=number)[0]["test"][1])


def test_a_source_with_test_images_keeps_them():
    with pytest.raises(UserError, match="num_test=5: toy has its own test split of 9 images; expected num_test=0"):
        assign({"train": 60, "test": 9}, 0, "toy", num_test=5)


@pytest.mark.parametrize("counts, num_validation, expected", [
    ({"train": 60, "test": 10}, 60, "hold 60 images out for validation and 0 for test.*fewer than its 60 train images"),
    ({"train": 60}, 54, "hold 54 images out for validation and 6 for test"),
    ({"train": 2}, 0, "expected fewer than its 2 train images"),
    ({"train": 0, "test": 10}, 0, "toy: expected images in its train split, received none"),
    ({"train": 9, "test": 0}, 0, "toy: expected images in its test split, received none"),
    ({"train": 60, "validation": 7}, 5, "num_validation=5: toy has its own validation split of 7"),
    ({"train": 60, "validation": 7}, "none", "num_validation=none: toy has its own validation split of 7"),
    ({"train": 1}, "none", "hold 0 images out for validation and 1 for test: expected fewer than its 1 train images"),
])
def test_impossible_splits(counts, num_validation, expected):
    with pytest.raises(UserError, match=expected):
        assign(counts, num_validation, "toy")
