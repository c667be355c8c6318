"""Train on synthetic, test on real: by hand with a classifier of two numbers, against scikit-learn's pipeline, and on images."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfcq.errors import UserError
from tfcq.evaluation.activations import Activations
from tfcq.metrics import tstr, tstr_cnn


def labelled(**values):
    """(inputs [N], classes [N]) of {class: its values}."""
    inputs = np.concatenate([np.array(some, float) for some in values.values()])
    return inputs, np.concatenate([[name] * len(some) for name, some in values.items()])


def nearest_mean(inputs, classes, seed):
    names = np.unique(classes)
    means = np.array([inputs[classes == name].mean() for name in names])
    return lambda some: names[np.abs(some[:, None] - means).argmin(axis=1)]


def test_accuracy_recall_and_ratio_worked_by_hand():
    # Real means 0 and 10: the boundary is 5, and 4 of 5 test images are right. Generated ones 4 and 14: 9, and 3 of 5 are.
    train, generated = labelled(a=(-1, 1), b=(9, 11)), labelled(a=(3, 5), b=(13, 15))
    tested = tstr.train_and_test(nearest_mean, generated, train, labelled(a=(0, 6), b=(8, 9.5, 10)))
    assert tested.accuracies == {"generated": pytest.approx(4 / 5), "real": pytest.approx(4 / 5)}
    tested = tstr.train_and_test(nearest_mean, generated, train, labelled(a=(0, 4), b=(7, 8, 10)))
    assert tested.accuracies == {"generated": pytest.approx(3 / 5), "real": 1.0} and tested.ratio == pytest.approx(3 / 5)
    assert tested.recalls == {"generated": {"a": 1.0, "b": pytest.approx(1 / 3)}, "real": {"a": 1.0, "b": 1.0}}
    assert (tested.counts, tested.num_trained, tested.notes) == ({"a": 2, "b": 3}, 4, [])


def test_as_many_real_images_are_trained_on_and_lost_classes_are_told():
    seen = []

    def fit(inputs, classes, seed):
        seen.append(len(inputs))
        return nearest_mean(inputs, classes, seed)

    train = labelled(a=np.arange(20), b=np.arange(100, 120), c=np.arange(200, 220))
    tested = tstr.train_and_test(fit, labelled(a=range(5), b=range(100, 105)), train, labelled(a=[3], b=[110], c=[210]))
    assert seen == [10, 10] and tested.num_trained == 10
    assert tested.notes[0] == "none of the 10 generated images that classifiers learn of has the class c"
    assert tested.recalls["generated"] == {"a": 1.0, "b": 1.0, "c": 0.0} and tested.ratio == pytest.approx(2 / 3)


def test_generated_images_of_one_class_alone_are_all_that_is_found():
    train, test = labelled(a=range(9), b=range(50, 59)), labelled(a=[1], b=[50, 51, 52])
    tested = tstr.train_and_test(nearest_mean, labelled(b=range(50, 53)), train, test)
    assert tested.accuracies["generated"] == 3 / 4 and tested.recalls["generated"] == {"a": 0.0, "b": 1.0}


def test_classes_that_real_images_do_not_have_are_refused():
    train = labelled(a=range(3), b=range(3))
    with pytest.raises(UserError, match="expected generated images of the real ones' classes, a, b, received 00000"):
        tstr.check_classes(labelled(**{"00000": range(3)})[1], train[1])
    with pytest.raises(UserError, match="expected training images of at least two classes, received a alone"):
        tstr.check_classes(np.array(["a"]), np.array(["a", "a"]))


def test_a_class_that_the_first_training_images_lack_is_learnt_of_generated_ones():
    """Few images are compared: not all classes are among the training images that are as many."""
    train, generated = labelled(a=range(3), b=range(50, 53)), labelled(a=range(2), b=(50, 51), c=(90, 91))
    tested = tstr.train_and_test(nearest_mean, generated, train, labelled(a=[1], b=[51], c=[90, 92]))
    assert tested.accuracies == {"generated": 1.0, "real": 0.5}
    assert tested.notes == ["none of the 6 training images that classifiers learn of has the class c"]


def test_features_that_are_no_numbers_are_refused():
    features = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    good = Activations(features, None, np.zeros(0), np.array(list("ababab")))
    bad = Activations(np.where(np.arange(12).reshape(6, 2) == 3, np.nan, features), None, np.zeros(0), good.classes)
    for given, message in (((good, bad, good), "generated: expected finite"), ((bad, good, good), "real: expected finite")):
        real, generated, train = given
        with pytest.raises(UserError, match=message):
            tstr.METRIC.measure(real, generated, 0, train=train)


def test_the_logistic_regression_is_scikit_learns_on_standardised_features():
    random = np.random.default_rng(0)
    features = random.normal(size=(150, 6)) * [1, 20, 0.1, 1, 5, 1] + 3
    features[:, 5] = 2  # constant
    classes = np.array(list("abc"))[(features[:, :5] @ random.normal(size=(5, 3))).argmax(axis=1)]
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[:100], classes[:100])
    found = tstr.logistic_regression(features[:100], classes[:100])(features[100:])
    np.testing.assert_array_equal(found, reference.predict(features[100:]))


def stripes(count, seed, noise=40):
    """Images 8x8 of horizontal and of vertical stripes, whose means are alike, and their classes."""
    random = np.random.default_rng(seed)
    horizontal = np.broadcast_to((np.arange(8) % 2 * 200)[:, None], (8, 8))
    names = np.array(["horizontal", "vertical"])[random.integers(0, 2, count)]
    images = np.where((names == "vertical")[:, None, None], horizontal.T, horizontal) + random.integers(0, noise, (count, 8, 8))
    return images.astype(np.uint8)[..., None], names


def test_the_network_learns_pixels_and_depends_on_its_seed_alone(monkeypatch):
    monkeypatch.setattr(tstr_cnn, "_FEWEST", 60)
    generated, test = stripes(40, 0), stripes(60, 1)
    state = np.random.get_state()[1].copy()
    classifiers = [tstr_cnn.fit(*generated, seed) for seed in (3, 3)]
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    hard = np.random.default_rng(2).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)  # of neither class
    np.testing.assert_array_equal(classifiers[0](hard), classifiers[1](hard))
    assert np.mean(classifiers[0](test[0]) == test[1]) == 1.0


def test_large_images_are_averaged_down_for_the_network():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    means = images.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(tstr_cnn._seen(images), means / 127.5 - 1, atol=1e-5)
    assert tstr_cnn._order(10, 25, 0)[:10].tolist() != tstr_cnn._order(10, 25, 0)[10:20].tolist()
    assert sorted(tstr_cnn._order(10, 25, 0)[10:20]) == list(range(10))
