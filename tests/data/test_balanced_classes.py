"""--balance_classes: every class is drawn equally often, by an order that depends on seed and step alone."""

import collections
import shutil

import numpy as np
import pytest
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import load
from tfcq.data.order import balanced, epoch_of
from tfcq.errors import UserError

SIZES = {"few": 3, "many": 40, "one": 1}
CLASSES = np.repeat([0, 1, 2], list(SIZES.values()))  # 44 images


def test_every_three_draws_have_each_class_and_its_images_take_turns():
    order = np.concatenate([balanced(5, epoch, CLASSES)[:42] for epoch in range(20)])  # whole rounds: 14 an epoch
    drawn = CLASSES[order].reshape(-1, 3)
    assert (np.sort(drawn) == [0, 1, 2]).all()
    assert len({tuple(row) for row in drawn}) == 6  # in each of the orders
    # 44 draws are 15 rounds, of which the last one is cut and left out above: of 300 turns of a class 280 are seen.
    for number, size in enumerate(SIZES.values()):
        turns = collections.Counter(order[CLASSES[order] == number].tolist())
        assert len(turns) == size and sum(turns.values()) == 280
        assert max(turns.values()) - min(turns.values()) <= 20
    few = balanced(5, 0, CLASSES)
    few = few[CLASSES[few] == 0][:12].reshape(4, 3)
    assert (np.sort(few) == [0, 1, 2]).all() and len({tuple(row) for row in few}) > 1  # a fresh permutation each time


def test_epochs_continue_where_a_class_was():
    """Four images of each of two classes: an epoch is 8 draws, 4 of a class, so that each epoch draws each image once."""
    classes = np.array([0, 1] * 4)
    for epoch in range(5):
        assert sorted(balanced(0, epoch, classes)) == list(range(8))
    # 2 and 6: an epoch draws 4 of each, so that 6 images have come after an epoch and a half.
    classes = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    drawn = np.concatenate([balanced(0, epoch, classes) for epoch in range(3)])
    assert [drawn[classes[drawn] == 1].tolist().count(image) for image in range(2, 8)] == [2] * 6
    assert set(drawn[classes[drawn] == 1][:6]) == set(range(2, 8))


def test_without_classes_an_epoch_is_the_permutation_that_it_was():
    """Runs that go on have the order of their seed: NumPy's RandomState([seed, epoch])."""
    one = epoch_of(3, 7, 10, (0.0, 0.0))
    np.testing.assert_array_equal(one.order, np.random.RandomState([3, 7]).permutation(10))
    images, flips, moves = one.take(np.arange(4))
    np.testing.assert_array_equal(flips, np.random.RandomState([3, 7, 1]).randint(2, size=10, dtype=np.uint8)[images] == 1)
    assert moves is None


def write(folder, sizes, test=4):
    """Images of 8x8, image k of them with k in its top left pixel and 255 elsewhere in its first row's left half."""
    count = 0
    for split, of_split in {"train": sizes, "validation": {"few": test}, "test": {"few": test}}.items():
        for name, size in of_split.items():
            (folder / split / name).mkdir(parents=True)
            for _ in range(size):
                array = np.full((8, 8), 100, np.uint8)
                array[0, :4], array[0, 0] = 255, count
                Image.fromarray(array).save(folder / split / name / f"{count}.png")
                count += 1
    return folder


def config(folder, **options):
    return DataConfig(dataset=f"folder:{folder}", image_size=8, balance_classes=True, **options)


def numbers(images):
    """The number of each image, mirrored or not."""
    return np.where(images[..., 0, 1, 0] == 255, images[..., 0, 0, 0], images[..., 0, -1, 0]).astype(int)


def draw(dataset, steps, **options):
    return np.stack(list(dataset.train_batches(6, seed=1, **options).take(steps).as_numpy_iterator()))


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("uneven") / "images", SIZES)


def test_batches_are_balanced_resumable_and_divided_among_workers(folder, capsys):
    dataset = load(config(folder, horizontal_flip=True))
    assert "train 3 classes: few 3, many 40, one 1" in dataset.description
    assert "; classes are drawn equally often" in dataset.description
    batches = draw(dataset, 30)
    classes = np.searchsorted([3, 43], numbers(batches), side="right")  # of the numbers that `write` gave
    assert (np.sort(classes[:7]) == [0, 0, 1, 1, 2, 2]).all()  # an epoch is 7 steps
    counts = np.bincount(classes.ravel())
    np.testing.assert_allclose(counts, 60, atol=5)
    for start in (1, 6, 7, 20):
        np.testing.assert_array_equal(draw(dataset, 9, start_step=start), batches[start : start + 9])
    parts = [draw(dataset, 9, rows=rows) for rows in ([0, 1, 2], [3, 4, 5])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), batches[:9])
    pairs = list(dataset.train_batches(6, seed=1, with_indices=True).take(9).as_numpy_iterator())
    for images, indices in pairs:
        np.testing.assert_array_equal(numbers(dataset.images("train", indices)), numbers(images))
    mirrored = (batches[..., 0, -1, 0] != 100)[numbers(batches) == 43]  # the one image of a class, drawn anew
    assert 10 < mirrored.sum() < 50 and not mirrored[:7 * 2].all() and mirrored[:7 * 2].any()
    np.testing.assert_array_equal(numbers(dataset.images("train", range(5))), numbers(load(
        DataConfig(dataset=f"folder:{folder}", image_size=8)).images("train", range(5))))  # evaluations see what they saw


def test_classes_are_those_that_the_run_began_with(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    begun = load(config(moved))
    before = draw(begun, 9)
    (moved / "train" / "many").rename(moved / "train" / "a lot")  # another name, also in another place among the others
    np.testing.assert_array_equal(draw(load(config(moved), begun.manifest), 9), before)
    (moved / "train" / "few" / "0.png").rename(moved / "train" / "one" / "0.png")
    again = load(config(moved), begun.manifest)  # evaluations do not look at classes
    with pytest.raises(UserError, match="lie in folders of other classes than when the run began, and balance_classes draws by"):
        again.train_batches(6, seed=1)
    load(config(moved), begun.manifest, accept_changed_data=True).train_batches(6, seed=1)


def test_sources_without_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="^balance_classes with dataset=digits: expected dataset=folder:DIR with a folder"):
        DataConfig(balance_classes=True)
    one = write(tmp_path / "one", {"cats": 30})
    with pytest.raises(UserError, match="expected a folder for each of several classes, received all training images in cats$"):
        load(config(one)).train_batches(6, seed=1)
    for path in (one / "train" / "cats").iterdir():
        path.rename(one / "train" / path.name)
    (one / "train" / "cats").rmdir()
    with pytest.raises(UserError, match="received all training images in no folder$"):
        load(config(one)).train_batches(6, seed=1)
