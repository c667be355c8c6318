"""What every system owes, proved on each golden: the tests know nothing of any system."""

import dataclasses
import functools

import goldens
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorflow.core.protobuf import saved_model_pb2

from tfcq import config as configs
from tfcq.endpoints import ENDPOINTS, SIGNATURES
from tfcq.engine import fused_optimizers
from tfcq.engine.checkpoints import Checkpoints, restore_model
from tfcq.errors import UserError
from tfcq.exporting import operations
from tfcq.exporting import signatures as exported
from tfcq.exporting.export import check_equal_answers
from tfcq.exporting.signatures import ServingModule
from tfcq.randomness import row_seeds


def values(model, count, seed=4):
    """{argument: what is asked} of every key of `INPUTS`, as arrays of `count` rows."""
    images, other = tiny.images(model.image_shape, count), tiny.images(model.image_shape, count, seed=1)
    seeds = row_seeds(count, seed=seed)
    return {
        "seeds": seeds,
        "first_seeds": seeds[:1].repeat(count, axis=0),  # from the first row of `sample` to its last
        "second_seeds": seeds[-1:].repeat(count, axis=0),
        "temperature": np.linspace(1.0, 0.0, count, dtype=np.float32),
        "images": images,
        "other_images": other,
        "latents": latents(model, count) if hasattr(model, "latent_shape") else None,
        "compressed": model.compress(images) if "super_resolve" in model.abilities else images,
        "share": np.linspace(0.0, 1.0, count, dtype=np.float32),
        "spherical": np.arange(count) % 2 == 0,
        "classes": np.arange(count, dtype=np.int32) % 3,
        "num_importance_samples": 2,
    }


def answer(model, ability, count):
    """{output: tensor} of the model's method of an endpoint's name."""
    endpoint, given = ENDPOINTS[ability], values(model, count)
    answers = getattr(model, ability)(*(given[argument] for argument in (*endpoint.inputs, *endpoint.fixed)))
    return answers if isinstance(answers, dict) else dict(zip(endpoint.outputs, [answers], strict=True))


def latents(model, count):
    return np.random.RandomState(0).standard_normal((count, *model.latent_shape)).astype(np.float32)


def compiled(config, channels):
    # Where batch normalisation removes a bias, its gradient is rounding noise; at the usual epsilon Adamax would make
    # a whole step of it, and two replicas would differ in what does nothing.
    return tiny.compiled(config, channels, functools.partial(fused_optimizers.Adamax, epsilon=1e-2))


def batch(model, golden):
    """What a step of this model takes: [N, H, W, C], or [N, k, H, W, C], perhaps with the images' numbers."""
    turns = model.batches_per_step
    images = tiny.images(model.image_shape, golden.config.training.batch_size * turns)
    images = images if turns == 1 else images.reshape(-1, turns, *model.image_shape)
    if model.class_names:
        classes = np.arange(len(images) * turns, dtype=np.int32) % len(model.class_names)
        return images, classes.reshape(images.shape[: images.ndim - 3])
    return (images, np.arange(len(images))) if model.needs_indices else images


@dataclasses.dataclass
class Trained:
    """A golden after its steps on one device."""

    golden: goldens.Golden
    model: tf.Module
    before: list  # values of all variables before the first step
    rows: list  # logs of each step


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name in goldens.VARIANTS else name for name in goldens.GOLDENS],
)
def trained(request):
    golden = goldens.GOLDENS[request.param]
    model = compiled(golden.config, golden.channels)
    before = tiny.values(model.variables)
    return Trained(golden, model, before, tiny.fit(model, batch(model, golden), golden.steps))


def test_every_system_has_a_golden():
    registered = {golden.config.model for golden in goldens.GOLDENS.values()}
    assert registered == set(configs.SYSTEMS), "register a tiny configuration of each system in goldens.py"


def test_training_moves_every_variable_of_every_player(trained):
    model, steps = trained.model, trained.golden.steps
    assert model.built and model.steps_taken == steps
    moved = tiny.changed(trained.before, model.variables)
    players = model.players()
    starts = (*model.stage_starts, steps)
    for stage in range(len(model.stage_starts)):
        owned = [id(variable) for player in players if player.stage == stage for variable in player.variables]
        assert owned and len(owned) == len(set(owned)), "a variable has two players"
    owned = {id(variable) for player in players for variable in player.variables}
    assert owned == {id(variable) for variable in model.trainable_variables}, "a variable has no player"
    for player in players:
        paths = {variable.path for variable in player.variables}
        assert {path for path in paths if not path.endswith(trained.golden.resting)} <= moved
        assert int(model.player_optimizers[player.name].iterations.numpy()) == player.turns * (
            starts[player.stage + 1] - starts[player.stage]
        )
    names = [variable.path for variable in model.variables]
    assert len(names) == len(set(names)), "two variables of one name"


# Operations for which TensorFlow 2.21 raises on GPUs where only deterministic kernels may run: the texts of its library that
# say "deterministic" and "not available" or "not yet supported". The two cross entropies are left out, as TensorFlow's
# functions in Python take others then. {operation: attributes with which it is one of them}
UNDETERMINED_ON_GPUS = {
    "FusedBatchNormGradV3": {"is_training": False},
    **dict.fromkeys(["SegmentSum", "SegmentMean", "SegmentProd", "SegmentMax", "SegmentMin"], {}),
    **dict.fromkeys(["UnsortedSegmentSum", "UnsortedSegmentProd"], {}),
    **dict.fromkeys(["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN", "SparseTensorDenseMatMul"], {}),
    **dict.fromkeys(["AdjustContrast", "AdjustContrastv2", "ResizeNearestNeighborGrad"], {}),
    **dict.fromkeys(["CropAndResizeGradImage", "CropAndResizeGradBoxes", "MaxPoolGradWithArgmax"], {}),
    **dict.fromkeys(["Dilation2DBackpropFilter", "Dilation2DBackpropInput", "Bincount", "DenseBincount"], {}),
    **dict.fromkeys(["FakeQuantWithMinMaxVarsGradient", "FakeQuantWithMinMaxVarsPerChannelGradient", "Timestamp"], {}),
    **dict.fromkeys(["RandomUniform", "RandomStandardNormal", "RandomUniformInt", "TruncatedNormal", "Multinomial"], {}),
}


def test_the_step_has_deterministic_kernels_on_gpus(trained):
    model = trained.model
    batches = iter(tf.data.Dataset.from_tensors(batch(model, trained.golden)).repeat())
    for stage in range(len(model.stage_starts)):
        graph = model.step_graph(batches, stage).as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert len(nodes) > 300
        for node in nodes:
            attributes = UNDETERMINED_ON_GPUS.get(node.op)
            if attributes is not None:
                assert any(node.attr[name].b != value for name, value in attributes.items()), (node.op, node.name)
    assert model.traced_step.experimental_get_tracing_count() == len(model.stage_starts)  # the graphs that ran


def test_logs_are_finite_and_complete(trained):
    model = trained.model
    for step, row in enumerate(trained.rows):
        playing = [player for player in model.players() if player.stage == model.stage_at(step)]
        measures = {name for name in row if name.split("/")[0] not in {player.name for player in model.players()}}
        assert {name.split("/")[0] for name in row.keys() - measures} == {player.name for player in playing}
        # What is of no player has the name, the unit and the estimator of a validation, unless that measures something else.
        assert measures <= validated(model) | {"perceptual_distance"}, measures - validated(model)
        for player in playing:
            assert {f"{player.name}/{name}" for name in ("loss", "gradient_norm", "finite")} <= row.keys()
        for name, value in row.items():
            assert np.ndim(value) == 0 and np.isfinite(value), name


def validated(model):
    """The names that a validation logs, and those of the bound that is trained, where it is another."""
    images, seeds, names = tiny.images(model.image_shape, 2), row_seeds(2), set()
    if "likelihood" in model.abilities:
        terms = model.elbo_terms(images, seeds)
        names |= model.bound_measures(terms).keys()
        if model.trained_bound != "elbo":
            assert not any(name.startswith("elbo") for row in [model.bound_measures(terms, model.trained_bound)] for name in row)
            names |= model.bound_measures(terms, model.trained_bound).keys()
    if "latent_likelihood" in model.abilities:
        names |= model.latent_likelihood(images, seeds).keys()
    return names


def test_a_checkpoint_restores_everything_into_a_model_of_another_seed(trained, tmp_path):
    config = trained.golden.config
    checkpoints = Checkpoints(tmp_path, trained.model, 2)
    checkpoints.save()
    assert checkpoints.save_if_best(3.0) and not checkpoints.save_if_best(3.5) and not checkpoints.save_if_best(np.nan)

    seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=1))
    other = compiled(seeded, trained.golden.channels)
    expected = tiny.values(all_variables(trained.model))
    assert len(tiny.changed(expected, all_variables(other))) > len(expected) / 4
    restored = Checkpoints(tmp_path, other, 2)
    assert restored.restore() == trained.golden.steps
    assert not tiny.changed(expected, all_variables(other))

    alone = tiny.build(seeded, trained.golden.channels)
    assert restore_model(alone, tmp_path, "best") == (trained.golden.steps, "best")
    kept = [one for one in trained.model.variables if not one.path.endswith(trained.golden.attached)]
    assert not tiny.changed(tiny.values(kept), alone.variables)


def all_variables(model):
    optimizers = [variable for optimizer in model.player_optimizers.values() for variable in optimizer.variables]
    return [*model.variables, *optimizers]


def test_between_the_noise_of_two_samples_the_ends_are_the_samples(trained):
    model, first, second = trained.model, row_seeds(4, seed=1), row_seeds(4, seed=2)
    share, spherical = np.float32([0, 1, 0, 1]), np.array([True, True, False, False])
    temperature = np.float32([1.0, 0.5, 0.5, 1.0])
    samples = model.sample(np.where(share[:, None] == 0, first, second), temperature)
    np.testing.assert_array_equal(model.interpolate_noise(first, second, share, spherical, temperature), samples)


@pytest.mark.parametrize("ability", ENDPOINTS)
def test_abilities_are_what_works_and_the_others_say_so(trained, ability):
    model = trained.model
    assert model.abilities <= ENDPOINTS.keys()
    if ability not in model.abilities and (ability != "decode" or model.class_names):
        with pytest.raises(UserError, match=f"it supports: {', '.join(sorted(model.abilities))}"):
            answer(model, ability, 3)
        return
    if ability == "decode" and not hasattr(model, "latent_shape"):
        return
    for name, received in answer(model, ability, 3).items():
        wanted = ENDPOINTS[ability].outputs[name]
        row = getattr(model, wanted.row) if isinstance(wanted.row, str) else wanted.row
        text = wanted.dtype == "string"
        assert received.shape == (3, *row) and (received.dtype.kind == "U" if text else received.dtype == wanted.dtype)
        assert text or received.dtype == tf.uint8 or np.isfinite(received).all()


def test_a_likelihood_is_a_probability_of_an_8_bit_image(trained):
    model, images, seeds = trained.model, tiny.images(trained.model.image_shape, 3), row_seeds(3)
    if "likelihood" in model.abilities:
        for value in (model.elbo(images, seeds), model.log_prob(images, seeds), model.log_prob(images, seeds, 2)):
            assert value.dtype == np.float32 and value.shape == (3,) and (value < 0).all()


def test_answers_do_not_change_the_model(trained):
    before = tiny.values(trained.model.variables)
    for ability in trained.model.abilities:
        answer(trained.model, ability, 2)
    assert not tiny.changed(before, trained.model.variables)


def test_a_saved_model_answers_as_the_live_one(trained, tmp_path, monkeypatch, unoptimised_graphs):
    # Without those of picture files, which are the same functions of the same networks: tests/exporting/test_pictures.py.
    monkeypatch.setattr(exported, "SIGNATURES", {name: one for name, one in SIGNATURES.items() if not one.encoded})
    model = trained.model
    module = ServingModule(model, num_importance_samples=2)
    live = module.signatures()
    assert live.keys() == {*model.abilities, "serving_default"}
    module.save(str(tmp_path), live)
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    assert operations.lacking(graph) == []  # in TF Serving's stock image
    assert_holds_each_variable_once(tmp_path, model)
    reloaded = tf.saved_model.load(str(tmp_path)).signatures
    given, found = values(model, 3), {}
    for name in (*model.abilities, "serving_default"):
        signature = SIGNATURES["sample" if name == "serving_default" else name]
        inputs = {tensor: tf.constant(given[argument]) for tensor, argument in signature.inputs.items()}
        answers = [
            {key: value.numpy() for key, value in function(**inputs).items()}
            for function in (live[name], reloaded[name])
        ]
        check_equal_answers(*answers)
        found[name] = answers[1]
        assert answers[0].keys() == signature.outputs.keys() and all(len(value) == 3 for value in answers[0].values())
    between, samples = found["interpolate_noise"]["images"], found["sample"]["images"]
    np.testing.assert_array_equal(between[[0, -1]], samples[[0, -1]])  # which `values` go between


def assert_holds_each_variable_once(folder, model):
    """And nothing of training: no state of an optimizer, no function of the step that was traced."""
    shapes = tf.train.load_checkpoint(str(folder / "variables" / "variables")).get_variable_to_shape_map()
    shapes.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert sorted(shapes.values()) == sorted(list(variable.shape) for variable in model.variables)
    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    assert not any(node.op.startswith("ResourceApply") for one in graph.library.function for node in one.node_def)


def test_two_replicas_take_the_step_of_one(trained, two_replicas):
    golden, model = trained.golden, trained.model
    with two_replicas.scope():
        replicated = compiled(golden.config, golden.channels)
    rows = tiny.fit(replicated, batch(model, golden), golden.steps)
    for row, other in zip(trained.rows, rows, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(other[name], row[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for variable, expected in zip(all_variables(replicated), all_variables(model), strict=True):
        # Sums in another order differ by some epsilons of their largest terms; where these cancel, by many of an element's own.
        # 250 epsilons of a tensor's largest element are 8 times what was seen.
        tolerance = 1e-6 + 3e-5 * np.abs(expected.value).max(initial=0.0)
        for replica in two_replicas.experimental_local_results(variable.value):
            np.testing.assert_allclose(replica, expected.value, rtol=0.0, atol=tolerance, err_msg=variable.path)
