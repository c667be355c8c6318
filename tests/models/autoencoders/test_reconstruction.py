"""The errors that auto-encoders train by, and that what one needs stays out of models, checkpoints and exports."""

import hashlib
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.features.vgg_levels import VGGLevels
from tfcq.models.autoencoders.reconstruction import ReconstructionError
from tfcq.training.opening import opened

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of VGG16's weights, at random."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.weights.h5"
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    return str(path)


def pair():
    random = np.random.RandomState(0)
    return [random.uniform(size=(3, *SHAPE)).astype(np.float32) for _ in range(2)]


def error_of(model, *images):
    return ReconstructionError(model.config)(*map(tf.constant, images))


def test_squares_are_summed_over_all_values():
    pixels, rebuilt = pair()
    expected = np.square(pixels.astype(np.float64) - rebuilt).reshape(3, -1).sum(1)
    np.testing.assert_allclose(error_of(tiny.build(tiny.config(8, model="glf")), pixels, rebuilt), expected, rtol=1e-5)


def test_the_perceptual_error_is_of_pixels_between_minus_one_and_one_and_of_levels(weights):
    model = tiny.build(tiny.config(8, model="glf", reconstruction="perceptual", perceptual_weights=weights))
    error = ReconstructionError(model.config)
    error.load()
    pixels, rebuilt = pair()
    expected = 2.0 * np.abs(pixels.astype(np.float64) - rebuilt).reshape(3, -1).mean(1)
    levels = VGGLevels(weights)
    for one, other in zip(levels(tf.constant(pixels)), levels(tf.constant(rebuilt)), strict=True):
        expected += np.abs(one.numpy().astype(np.float64) - other.numpy()).reshape(3, -1).mean(1)
    np.testing.assert_allclose(error(tf.constant(pixels), tf.constant(rebuilt)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "model", ["glf", *(pytest.param(name, marks=pytest.mark.long) for name in ("rae_gmm", "wae_mmd", "glann"))]
)
def test_a_model_trains_by_it_and_keeps_none_of_its_weights(model, weights):
    options = {"first_stage_steps": 5} if model == "glann" else {}
    options |= {"pretraining_steps": 0} if model == "wae_mmd" else {}
    config = tiny.config(8, model=model, reconstruction="perceptual", perceptual_weights=weights, **options)
    built = tiny.compiled(config)
    assert built.count_params() < 1000 + tiny.compiled(tiny.config(8, model=model, **options)).count_params()
    assert not [variable.path for variable in built.variables if "block" in variable.path and "conv" in variable.path]
    batch = (tiny.images(SHAPE, 8), np.arange(8)) if built.needs_indices else tiny.images(SHAPE, 8)
    before = tiny.values(built.decoder.variables)
    rows = tiny.fit(built, batch, 1)
    assert np.isfinite(list(rows[0].values())).all() and tiny.changed(before, built.decoder.variables)


# The file of a run that is resumed.


def perceptual(path, **training):
    options = {"model": "glf", "reconstruction": "perceptual", "perceptual_weights": str(path)}
    return tiny.config(8, training={"train_steps": 1} | training, **options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("begun") / "run"
    tiny.make_workdir(folder, perceptual(weights))
    return folder


@pytest.fixture
def run(tmp_path, begun, weights):
    """The workdir of a run that has taken its one step, and the config of the same run with its weights in another place."""
    shutil.copytree(begun, tmp_path / "run")
    shutil.copy(weights, tmp_path / "moved.weights.h5")
    return tmp_path / "run", perceptual(tmp_path / "moved.weights.h5")


def test_a_run_goes_on_with_its_weights_wherever_they_lie_and_says_so(run):
    folder, moved = run
    before = workdirs.read_digests(folder)
    content = pathlib.Path(moved.system.perceptual_weights).read_bytes()
    assert before == {"system.perceptual_weights": hashlib.sha256(content).hexdigest()[:16]}
    assert tfcq.Run(folder, moved).train().steps_taken == 1  # it is done, but its files are looked at
    with opened(moved, folder) as one:
        one.begin(1, one.load_data(), before)
    assert workdirs.read_config(folder) == moved and workdirs.read_digests(folder) == before
    changes = [row["changes"] for row in map(json.loads, (folder / "history.jsonl").read_text().splitlines())]
    assert [change["system.perceptual_weights"][1] for change in changes] == [moved.system.perceptual_weights]


def test_a_run_does_not_go_on_with_other_weights_or_none(run):
    folder, moved = run
    path = pathlib.Path(moved.system.perceptual_weights)
    with open(path, "ab") as file:
        file.write(b"\0")  # Keras reads it all the same
    with pytest.raises(UserError, match=f"^perceptual_weights {path}: expected the file that the run began with, of SHA-256 "):
        tfcq.Run(folder, moved).train()
    path.unlink()
    with pytest.raises(UserError, match=f"^perceptual_weights {path}: nothing is there; .*: --perceptual_weights=FILE$"):
        tfcq.Run(folder, moved).train()
    assert workdirs.read_config(folder) != moved


def test_weights_that_an_earlier_version_did_not_record_stay_where_they_are(run):
    folder, moved = run
    facts = json.loads((folder / "data.json").read_text())
    del facts["files"]
    (folder / "data.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="holds another configuration .saved -> given.: system.perceptual_weights: "):
        tfcq.Run(folder, moved).train()
    before = workdirs.read_config(folder)
    with opened(before, folder) as one:
        one.begin(1, one.load_data(), {"system.perceptual_weights": "0123456789abcdef"})
    assert workdirs.read_digests(folder) == {"system.perceptual_weights": "0123456789abcdef"}  # from now on


def test_weights_that_are_not_there_are_told_before_training(tmp_path):
    model = tiny.build(tiny.config(8, model="glf", reconstruction="perceptual", perceptual_weights=str(tmp_path / "none.h5")))
    with pytest.raises(UserError, match="VGG16"):
        model.attach(None, 8)
