"""`tfcq.Run`: images in memory, history, and what it says of itself. The rest of a run's life: tests/integration."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfcq
from tfcq import data
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.history import read

IMAGES = tiny.images((8, 8, 1), 120)
CONFIG = tiny.config(
    8, model="glf", training={"train_steps": 4, "log_every": 1, "evaluate_every": 2, "checkpoint_every": 2, "optimizer": "adam"}
)


@pytest.fixture(scope="module", name="run")
def fixture_run(tmp_path_factory):
    run = tfcq.Run(tmp_path_factory.mktemp("runs") / "mine", CONFIG)
    run.progress = []
    run.trained = run.train(images=IMAGES, on_progress=run.progress.append)
    return run


def test_images_in_memory_are_kept_with_the_run(run):
    with np.load(run.workdir / "images.npz") as kept:
        np.testing.assert_array_equal(kept["train"], IMAGES)
    again = tfcq.Run(os.fspath(run.workdir))
    assert again.config.data.dataset == f"npz:{run.workdir / 'images.npz'}" and again.config.system == CONFIG.system
    assert again.train().steps_taken == 4  # it is done
    for same in (run, tfcq.Run(run.workdir, CONFIG)):  # a configuration that names no images takes those of the run
        assert same.train().steps_taken == same.train(images=IMAGES).steps_taken == 4
        assert same.config.data.dataset == f"npz:{run.workdir / 'images.npz'}"
    counts = {split: again.data().num_images(split) for split in ("train", "validation", "test")}
    assert counts == {"train": 96, "validation": 12, "test": 12}
    row = again.evaluate(report=False)
    assert row["latent_log_prob"]["value"] < 0 and again.metrics()[-1] == row
    np.testing.assert_array_equal(again.model("last").sample(2), run.trained.sample(2))


@pytest.mark.parametrize(("call", "said"), [
    (lambda run: tfcq.Run(run.workdir, CONFIG).train(images=IMAGES[1:]),
     r"images: expected those of .*images.npz \(given then: train\), received others \(train\); leave images= out"),
    (lambda run: tfcq.Run(run.workdir, CONFIG).train(images=IMAGES, test_images=IMAGES), r"received others \(train, test\)"),
    (lambda run: tfcq.Run(run.workdir / "new").metrics(), "expected a trained run with config.json, found none"),
    (lambda run: tfcq.Run(run.workdir / "new", CONFIG).train(images=IMAGES / 255), r"images: expected uint8 \[N, H, W\] or"),
    (lambda run: tfcq.Run(run.workdir / "new", CONFIG).train(validation_images=IMAGES), "validation_images: expected images="),
    (lambda run: tfcq.Run(run.workdir / "new", tiny.config(data={"dataset": "photo_patches"})).train(images=IMAGES),
     r"images: expected either images= or DataConfig\(dataset=...\), received both \(dataset=photo_patches\)"),
    (lambda run: tfcq.Run(run.workdir / "new", tiny.config(8, training={"batch_size": 1000})).train(images=IMAGES), "batch_size"),
    (lambda run: tfcq.Run(run.workdir / "new").train(), "expected a trained run with config.json, found none"),
    (lambda run: tfcq.Run(run.workdir / "new").history(), "expected a trained run with config.json, found none"),
    (lambda run: run.history("test"), "history: expected one of train, validation, received 'test'"),
    (lambda run: tfcq.Run(run.workdir, CONFIG.system), "config: expected a tfcq.Config, received GLFConfig"),
    (lambda run: run.train(on_progress="print"), "on_progress: expected a function"),
])
def test_what_is_refused_leaves_nothing(run, call, said):
    with pytest.raises(UserError, match=said) as raised:
        call(run)
    assert "\n" not in str(raised.value)
    assert not (run.workdir / "new").exists()


def with_classes(given=CONFIG):
    return dataclasses.replace(given, system=dataclasses.replace(given.system, class_conditional=True))


LABELS = np.array(["trouser", "bag", "boot"])[np.arange(120) % 3]


@pytest.fixture(scope="module", name="classed")
def fixture_classed(tmp_path_factory):
    run = tfcq.Run(tmp_path_factory.mktemp("runs") / "classed", with_classes())
    held_out = {"test_images": IMAGES[:6], "test_classes": np.array(["boot", "bag"], object)[np.arange(6)[:, None] % 2]}
    run.trained = run.train(IMAGES, classes=LABELS, **held_out)
    return run


def test_classes_in_memory_are_kept_with_the_run(classed):
    names = ("bag", "boot", "trouser")
    with np.load(classed.workdir / "images.npz") as kept:
        assert kept.files == ["train", "test", "train_labels", "test_labels"]
        assert kept["train_labels"].tolist() == LABELS.tolist()
    again = tfcq.Run(classed.workdir)
    assert again.train().class_names == classed.trained.class_names == names
    facts = json.loads((classed.workdir / "data.json").read_text())["classes"]
    trained = again.data()
    assert facts["names"] == list(names) and sum(facts["counts"]) == trained.num_images("train") == 108
    keys = [int(one.key.rpartition(" ")[2]) for one in trained.manifest.splits["train"]]  # their places in the array
    assert [names[number] for number in trained.classes_of("train", names)] == LABELS[keys].tolist()
    assert [names[number] for number in trained.classes_of("test", names)] == ["boot", "bag"] * 3
    same = {"test_images": IMAGES[:6], "test_classes": ["boot", "bag"] * 3}
    assert tfcq.Run(classed.workdir, with_classes()).train(IMAGES, classes=list(LABELS), **same).steps_taken == 4
    pairs = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))  # classes may be labels of a data set
    rows = tf.data.Dataset.from_tensor_slices({"image": IMAGES[:6], "label": np.array(["boot", "bag"])[np.arange(6) % 2]})
    for images in (pairs, pairs.batch(50)):
        run = tfcq.Run(classed.workdir, with_classes())
        assert run.train(images, test_images=rows.batch(4)).steps_taken == 4


@pytest.mark.parametrize(("config", "arguments", "said"), [
    (with_classes(), {}, r"classes: expected integers or strings \[120\], one for each of images, received none"),
    (with_classes(), {"classes": LABELS[1:]}, r"classes: expected integers or strings \[120\], .* received <U7 \[119\]"),
    (with_classes(), {"images": tf.data.Dataset.from_tensor_slices((IMAGES, np.eye(3)[np.arange(120) % 3]))},
     r"received float64 \[120, 3\]; of one-hot .*np.argmax"),
    (with_classes(), {"images": tf.data.Dataset.from_tensor_slices((IMAGES,))}, "classes: expected integers or strings .* none"),
    (with_classes(), {"images": tf.data.Dataset.from_generator(
        lambda: ((one, [0] * (number % 2 + 1)) for number, one in enumerate(IMAGES)),
        output_signature=(tf.TensorSpec((8, 8, 1), tf.uint8), tf.TensorSpec((None,), tf.int32)))},
     "images: expected a label for each image of the tf.data.Dataset, received several shapes"),
    (with_classes(), {"classes": np.eye(3)[np.arange(120) % 3]}, r"received float64 \[120, 3\]; of one-hot .*np.argmax"),
    (with_classes(), {"classes": [None] * 120}, r"classes: expected integers or strings \[120\], .* received object"),
    (with_classes(), {"classes": LABELS, "test_images": IMAGES}, r"test_classes: expected .*, one for each of test_images, rec"),
    (with_classes(), {"classes": LABELS, "test_classes": LABELS}, "test_classes: expected test_images= beside it"),
    (with_classes(), {"classes": ["one"] * 120}, "expected training images of several classes, received all of one"),
    (CONFIG, {"classes": LABELS}, "classes: expected none, as the model learns images alone; .*class_conditional=True"),
])
def test_classes_in_memory_that_are_refused(tmp_path, config, arguments, said):
    with pytest.raises(UserError, match=said):
        tfcq.Run(tmp_path / "new", config).train(**{"images": IMAGES} | arguments)
    assert not (tmp_path / "new").exists()


def test_a_run_goes_on_with_its_own_classes_alone(classed):
    test = {"test_images": IMAGES[:6], "test_classes": ["boot", "bag"] * 3}
    for others in (np.roll(LABELS, 1), np.arange(120) % 3):
        with pytest.raises(UserError, match=r"classes: expected those of .*images.npz .*leave images= and classes= out"):
            tfcq.Run(classed.workdir, with_classes()).train(IMAGES, classes=others, **test)
    with pytest.raises(UserError, match=r"images: expected those of .* \(given then: train, test, train_labels, test_labels\)"):
        tfcq.Run(classed.workdir, with_classes()).train(IMAGES, classes=LABELS)


def test_the_size_is_that_of_the_images_where_no_other_is_said(tmp_path):
    system, training = CONFIG.system, dataclasses.replace(CONFIG.training, train_steps=1)
    run = tfcq.Run(tmp_path, tfcq.Config(system=system, training=training))
    assert run.train(images=IMAGES).image_shape == (8, 8, 1) and tfcq.Run(tmp_path).config.data.image_size == 8
    assert run.train().image_shape == tfcq.Run(tmp_path, tfcq.Config(system=system, training=training)).train().image_shape


def test_a_file_of_the_users_is_left_alone(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, train=IMAGES[1:])
    before = path.read_bytes()
    with pytest.raises(UserError, match="received others .*move that file away, or use another workdir"):
        tfcq.Run(tmp_path, CONFIG).train(images=IMAGES)
    broken = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, optimizer="adma"))
    with pytest.raises(UserError, match="adma"):
        tfcq.Run(tmp_path, broken).train(images=IMAGES[1:])
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["images.npz"]


def test_images_of_a_run_that_saved_nothing_may_be_replaced(tmp_path):
    def stop(progress):
        raise KeyError("stop")

    for images in (IMAGES, IMAGES[1:]):
        with pytest.raises(KeyError):
            tfcq.Run(tmp_path, CONFIG).train(images=images, on_progress=stop)
    with np.load(tmp_path / "images.npz") as kept:
        np.testing.assert_array_equal(kept["train"], IMAGES[1:])
    with pytest.raises(KeyError):  # and are found again
        tfcq.Run(tmp_path, CONFIG).train(on_progress=stop)
    assert tfcq.Run(tmp_path).data().num_images("train") == 119 - 2 * 11


def test_an_error_of_the_callback_is_the_users_own(tmp_path):
    states = []

    def fail(progress):
        states.append(progress.state)
        raise ConnectionError(111, "Connection refused")

    with pytest.raises(ConnectionError):
        tfcq.Run(tmp_path, CONFIG).train(images=IMAGES, on_progress=fail)
    assert states == ["starting"]


def test_training_returns_what_is_evaluated(tmp_path):
    config = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, ema_decay=0.9))
    run = tfcq.Run(tmp_path, config)
    np.testing.assert_array_equal(run.train(images=IMAGES).sample(4), run.model("last").sample(4))


def test_a_workdir_that_moves_takes_its_images_along(run, tmp_path):
    moved = tmp_path / "moved"
    os.rename(run.workdir, moved)
    try:
        np.testing.assert_array_equal(tfcq.Run(moved).data().images("test", [0]).shape, (1, 8, 8, 1))
    finally:
        os.rename(moved, run.workdir)


@pytest.mark.parametrize("make", [
    lambda images: tf.data.Dataset.from_tensor_slices(images),
    lambda images: tf.data.Dataset.from_tensor_slices((images, np.arange(len(images)))).batch(7),
    lambda images: tf.data.Dataset.from_tensor_slices({"image": images, "label": np.arange(len(images))}),
    lambda images: images[..., 0],
    tf.constant,
], ids=["images", "batches of pairs", "dicts", "grey", "tensor"])
def test_images_come_in_several_forms(make):
    from tfcq.data.arrays import as_images

    np.testing.assert_array_equal(as_images(make(IMAGES)), IMAGES)


@pytest.mark.parametrize(("dataset", "said"), [
    (lambda: tf.data.Dataset.from_tensor_slices(IMAGES).repeat(), "expected a finite tf.data.Dataset"),
    (lambda: tf.data.Dataset.from_tensor_slices(IMAGES).take(0), "received an empty tf.data.Dataset"),
    (lambda: tf.data.Dataset.from_tensor_slices({"picture": IMAGES}), "received elements of dict"),
    (lambda: tf.data.Dataset.from_generator(
        lambda: iter([IMAGES[0], IMAGES[0, :4]]), output_signature=tf.TensorSpec((None, None, 1), tf.uint8)
    ), "expected images of one size"),
    (lambda: tf.data.Dataset.from_tensor_slices(IMAGES / 255.0), "received float64"),
])
def test_data_sets_of_something_else_are_refused(dataset, said):
    from tfcq.data.arrays import as_images

    with pytest.raises(UserError, match=f"^images: .*{said}"):
        as_images(dataset())


def test_a_large_data_set_is_not_gathered(monkeypatch):
    from tfcq.data import arrays

    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 1000)
    with pytest.raises(UserError, match="write its images to a folder of files"):
        arrays.as_images(tf.data.Dataset.from_tensor_slices(IMAGES))


def test_the_history_is_what_tensorboard_shows(run):
    history = run.history()
    np.testing.assert_array_equal(history["step"], [1, 2, 3, 4])
    (events,) = (run.workdir / "tensorboard" / "train").glob("*tfevents*")
    accumulator = EventAccumulator(os.fspath(events)).Reload()
    for group, name in (("loss", "autoencoder/loss"), ("density", "latent_log_prob"), ("optimizer", "autoencoder/learning_rate")):
        values = [float(tf.make_ndarray(one.tensor_proto)) for one in accumulator.Tensors(f"{group}/{name}")]
        np.testing.assert_array_equal(history[name], values)
    validation = run.history("validation")
    np.testing.assert_array_equal(validation["step"], [0, 2, 4])
    rows = [row for row in run.metrics() if "checkpoint" not in row]
    np.testing.assert_allclose(validation["latent_log_prob"], [row["latent_log_prob"]["value"] for row in rows], rtol=1e-6)
    shown = repr(history)
    assert "4 rows" in shown and "autoencoder/loss" in shown and max(map(len, shown.splitlines()[:6])) <= 80
    assert history._repr_html_().startswith("<table>")


def test_a_later_file_holds_and_a_row_without_a_scalar_has_nan(tmp_path):
    for number, rows in enumerate([{1: {"loss": 3.0, "rate": 0.5}, 2: {"loss": 2.0}}, {2: {"loss": 1.0}}]):
        writer = tf.summary.create_file_writer(str(tmp_path / "tensorboard" / "train"), filename_suffix=f".{number}")
        for step, scalars in rows.items():
            with writer.as_default(step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)
        writer.close()
    history = read(tmp_path)
    np.testing.assert_array_equal(history["loss"], [3.0, 1.0])
    np.testing.assert_array_equal(history["rate"], [0.5, np.nan])


def test_progress_is_reported(run):
    assert run.progress[0].step == 0 and run.progress[-1].step == 4 and run.progress[-1].state == "done"
    assert json.loads((run.workdir / "progress.json").read_text())["state"] == "done"


def test_a_run_says_what_it_is(run, tmp_path):
    assert repr(run) == f"<Run {run.workdir}: glf, step 4 of 4>"
    assert repr(tfcq.Run(tmp_path / "new")) == f"<Run {tmp_path / 'new'}: no run there>"
    assert repr(tfcq.Run(tmp_path / "new", CONFIG)) == f"<Run {tmp_path / 'new'}: glf, step 0 of 4>"


def test_a_picture_is_of_the_split_and_the_seed(run):
    from tfcq.evaluation.pictures import Pictures

    images = run.data().images("validation", range(6))
    picture = run.picture("reconstruct", 6, seed=3, split="validation", checkpoint="last")
    np.testing.assert_array_equal(picture, Pictures(run.trained).reconstruction_grid(images, 3, "reconstruct"))
    picture = run.picture("interpolate", 3, split="validation", spherical=True, checkpoint="last")
    np.testing.assert_array_equal(picture, Pictures(run.trained).interpolation_grid(images, seed=0, spherical=True))
    picture = run.picture("interpolate_noise", 3, seed=2, spherical=True, temperature=0.5, checkpoint="last")
    expected = Pictures(run.trained).noise_interpolation_grid(3, seed=2, spherical=True, temperature=0.5)
    np.testing.assert_array_equal(picture, expected)


def test_a_picture_may_be_of_another_data_set(run):
    from tfcq.evaluation.pictures import Pictures

    size = run.trained.image_shape[0]
    images = data.load(tfcq.DataConfig(dataset="digits", image_size=size)).images("test", range(6))
    picture = run.picture("reconstruct", 6, other_dataset="digits", checkpoint="last")
    np.testing.assert_array_equal(picture, Pictures(run.trained).reconstruction_grid(images, 0, "reconstruct"))
    with pytest.raises(UserError, match="other_dataset: mode=prior shows no given images; expected it with another mode"):
        run.picture("prior", 2, other_dataset="digits")
    with pytest.raises(UserError, match="other_dataset: expected it without dataset and accept_changed_data"):
        run.picture("reconstruct", 2, other_dataset="digits", place=ImagesPlace(accept_changed_data=True))


@pytest.mark.parametrize(("arguments", "said"), [
    (("priot",), r"mode: expected one of prior, .*, received 'priot' \(did you mean prior\?\)"),
    (("super_resolve",), "glf .* does not support super_resolve"),
    (("reconstruct", 13), "num_samples=13 with mode=reconstruct needs 13 images of the test split, which has 12; .*=12 or fewer"),
    (("prior", 0), "num_samples: expected at least 1, received 0"),
    (("stages", 2), r"mode=stages: expected a run of a model of two stages \(srvae\), received one of glf"),
    (("interpolate_outer", 2), "mode=interpolate_outer: expected a run of a model of two stages"),
])
def test_pictures_that_cannot_be(run, arguments, said):
    with pytest.raises(UserError, match=said):
        run.picture(*arguments, checkpoint="last")
