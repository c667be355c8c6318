"""An exported model: its folder, its answers, and what it refuses after it was loaded again."""

import contextlib
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import workdir as workdirs
from tfcq.endpoints import SIGNATURES
from tfcq.errors import UserError
from tfcq.exporting import card, examples, export, operations, verify
from tfcq.exporting import signatures as of_exports
from tfcq.exporting.signatures import names_of
from tfcq.images import bits_per_dim
from tfcq.machine.terminal import StageProgress
from tfcq.randomness import row_seeds

SHAPE = (8, 8, 1)
SAMPLES = 3  # importance samples of the likelihood endpoint
IMAGES = tiny.images(SHAPE, 4)
SEEDS = row_seeds(4, seed=6)
ONES = np.ones(4, np.float32)
LATENTS = np.random.RandomState(0).standard_normal((4, 4, 4, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a measured CQF."""
    folder = tmp_path_factory.mktemp("workdir") / "run"
    tiny.make_workdir(folder, tiny.config(8, latent_size=4, flow_couplings=1))
    workdirs.record_metrics(folder, {"step": 1, "split": "test", "elbo": {"bits_per_dim": 7.125}})
    return folder


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    """BASE after two exports: the first checked in a fresh process, as always, the second in this one, to save time."""
    base, stages = tmp_path_factory.mktemp("base"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageProgress, "begin", lambda progress, stage: stages.append((stage, progress._total)))
        assert export.export(run, base, SAMPLES) == base / "cqf" / "1"
    check_stages(stages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_reloaded_answers", reloaded_here)
        version, formats, known = operations.of_tf_serving()
        older = {name: attributes for name, attributes in known.items() if name != "EncodePng"}
        patch.setattr(operations, "of_tf_serving", lambda: (version, formats, older))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert export.export(run, base, SAMPLES) == base / "cqf" / "2"
    assert f"warning: the image tensorflow/serving:{version} cannot serve this model: its TensorFlow has no EncodePng;" in (
        printed.getvalue()
    )
    return base


def check_stages(stages):
    """Each signature is named while it is built, asked, and asked in the fresh process; the number of stages is known before."""
    shown = [stage for stage, _ in stages]
    for name in ("sample", "likelihood", "encode", "sample_png"):
        for work in ("building", "asking the model for", "asking the SavedModel for"):
            assert shown.count(f"{work} {name}") == int(f"{work} {name}" != "asking the model for sample_png")
    assert {total for _, total in stages} == {len(stages)}


def reloaded_here(folder, inputs, begin):
    flat = {f"{signature}/{name}": array for signature, tensors in inputs.items() for name, array in tensors.items()}
    return verify.answer(str(folder), flat)


@pytest.fixture(scope="module")
def signatures(base):
    return tf.saved_model.load(str(base / "cqf" / "1")).signatures


@pytest.fixture(scope="module")
def live(run):
    return workdirs.load(run)


def ask(signatures, name, **inputs):
    return {
        key: value.numpy() for key, value in signatures[name](**{k: tf.constant(v) for k, v in inputs.items()}).items()
    }


# The folder.


def test_versions_count_up_and_nothing_else_is_left(base):
    assert sorted(path.name for path in (base / "cqf").iterdir()) == ["1", "2"]
    files = {str(path.relative_to(base / "cqf" / "1")) for path in (base / "cqf" / "1").rglob("*") if path.is_file()}
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/MODEL_CARD.md",
        "assets.extra/preparation.json",
        "assets.extra/tf_serving_warmup_requests",
        "manifest.json",
    }


def test_a_number_that_another_export_claims_is_left_to_it(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "backup").mkdir()
    staged = tmp_path / ".staged"
    staged.mkdir()
    (staged / "saved_model.pb").write_text("a model")
    make = pathlib.Path.mkdir
    monkeypatch.setattr(pathlib.Path, "mkdir", lambda path: make(path) or (path.name == "2" and taken(path)))
    assert export._rename_to_next_version(staged, tmp_path) == tmp_path / "3"
    assert (tmp_path / "3" / "saved_model.pb").exists() and not staged.exists()


def test_a_model_that_takes_other_tensors_is_no_next_version(base, tmp_path):
    other = tmp_path / "other"
    tiny.make_workdir(other, tiny.config(8, latent_size=2, flow_couplings=1))
    before = sorted(path.name for path in (base / "cqf").iterdir())
    with pytest.raises(UserError, match=r"cqf/2 has other signatures .* latents float32 \[N, 4, 4, 2\] -> float32 \[N, 40\]"):
        export.export(other, base, SAMPLES)
    assert sorted(path.name for path in (base / "cqf").iterdir()) == before


def taken(path):
    raise FileExistsError(path)


def test_the_manifest_knows_every_file(base):
    folder = base / "cqf" / "1"
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files.keys() == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    }
    for name, facts in files.items():
        content = (folder / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, name


def test_the_card_says_what_a_user_must_know(base, run):
    text = (base / "cqf" / "1" / "assets.extra" / "MODEL_CARD.md").read_text()
    for expected in (
        "# cqf\n",
        "- images uint8, shape [8, 8, 1]",
        "digits",
        "- step 1 of 20000, batch 8, seed 0",
        '"bits_per_dim": 7.125',
        "`serving_default` is `sample`.",
        f"with K = {SAMPLES}. images uint8 [N, 8, 8, 1], seed int32 [N, 2] -> bits_per_dim float32 [N], log_prob float32 [N]",
        "seed int32 [N, 2], temperature float32 [N] -> images uint8 [N, 8, 8, 1]",
        "latents float32 [N, 4, 4, 2] -> images uint8 [N, 8, 8, 1]",
        "- `sample_png`: `sample` that answers PNG files. seed int32 [N, 2], temperature float32 [N] -> images_png_bytes",
        "- `likelihood_png`: `likelihood` that takes PNG or JPEG files, which are cut and resized as the training images were. "
        "images_bytes",
        "    " + '"flow_couplings": 1',
    ):
        assert expected in text, expected
    assert "Nothing was measured." not in text


def test_warm_up_requests_replay(base, signatures):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="extra `serving`")
    path = base / "cqf" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    replayed = set()
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        ask(signatures, name, **{key: tf.make_ndarray(value) for key, value in request.inputs.items()})
        replayed.add(name)
    assert replayed == signatures.keys() - {"serving_default"}


def test_without_tensorflow_serving_api_there_is_no_warm_up_and_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    assert not card.write_warmup(tmp_path, {})
    assert not list(tmp_path.iterdir())


# Its answers.


def test_endpoints_are_the_models_own_answers(signatures, live):
    assert signatures.keys() == {*names_of(live.abilities), "serving_default"}
    temperature = np.array([0.0, 0.5, 1.0, 1.5], np.float32)
    expected = {
        "sample": {"images": live.sample(SEEDS, temperature)},
        "encode": {"latents": live.encode(IMAGES, SEEDS)},
        "decode": {"images": live.decode(LATENTS)},
        "reconstruct": {"images": live.reconstruct(IMAGES, SEEDS)},
    }
    log_prob = live.log_prob(IMAGES, SEEDS, SAMPLES)
    expected["likelihood"] = {"log_prob": log_prob, "bits_per_dim": bits_per_dim(log_prob, SHAPE)}
    expected["serving_default"] = expected["sample"]
    for name in ("likelihood", "encode"):
        expected[f"{name}_png"] = expected[name]
    for name, outputs in expected.items():
        received = ask(signatures, name, **requests(name, temperature=temperature))
        export.check_equal_answers({key: np.asarray(value) for key, value in outputs.items()}, received)


def requests(name, **changed):
    """A right request for an endpoint, with some inputs changed."""
    inputs = {
        "sample": {"seed": SEEDS, "temperature": ONES},
        "decode": {"latents": LATENTS},
    } | dict.fromkeys(("likelihood", "encode", "reconstruct"), {"images": IMAGES, "seed": SEEDS})
    inputs["serving_default"] = inputs["sample"]
    inputs["likelihood_png"] = inputs["encode_png"] = {"images_bytes": examples.as_files(IMAGES), "seed": SEEDS}
    return inputs[name] | {key: value for key, value in changed.items() if key in inputs[name]}


@pytest.mark.parametrize("name", ["sample", "likelihood", "encode", "decode", "reconstruct"])
def test_a_row_is_answered_alone_as_in_a_batch(signatures, name):
    together = ask(signatures, name, **requests(name))
    assert all(len({row.tobytes() for row in values}) == 4 for values in together.values())
    again = ask(signatures, name, **requests(name))
    for row in range(4):
        alone = ask(signatures, name, **{key: value[row : row + 1] for key, value in requests(name).items()})
        for key, values in together.items():
            np.testing.assert_array_equal(again[key], values)
            tolerance = {"atol": 1} if values.dtype == np.uint8 else {"rtol": 1e-5, "atol": 1e-5}
            np.testing.assert_allclose(alone[key][0].astype(float), values[row], **tolerance)


# What it refuses, enforced by the graph that was loaded again.


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("sample", {"seed": SEEDS[0]}, "seed: expected shape [N, 2] with N of at least 1"),
        ("sample", {"seed": SEEDS[:, :1]}, "seed: expected shape [N, 2] with N of at least 1"),
        ("sample", {"seed": np.int32(1)}, "seed: expected shape [N, 2] with N of at least 1"),
        ("sample", {"seed": SEEDS[:2]}, "seed: expected as many rows as the other input"),
        ("sample", {"temperature": ONES[0]}, "temperature: expected shape [N] with N of at least 1"),
        ("sample", {"temperature": ONES[:, None]}, "temperature: expected shape [N] with N of at least 1"),
        ("sample", {"temperature": -ONES}, "temperature: expected at least 0"),
        ("sample", {"temperature": ONES * np.nan}, "temperature: expected finite values"),
        ("sample", {"temperature": ONES * np.inf}, "temperature: expected finite values"),
        ("sample", {"seed": SEEDS[:0], "temperature": ONES[:0]}, "with N of at least 1"),
        ("serving_default", {"temperature": -ONES}, "temperature: expected at least 0"),
        ("likelihood", {"images": IMAGES[0]}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("likelihood", {"images": IMAGES[:, :7]}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("likelihood", {"images": IMAGES.repeat(3, -1)}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("likelihood", {"images": IMAGES[None]}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("likelihood", {"images": IMAGES.reshape(4, 64)}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("likelihood", {"seed": SEEDS[:1]}, "seed: expected as many rows as the other input"),
        ("likelihood", {"images": IMAGES[:0], "seed": SEEDS[:0]}, "with N of at least 1"),
        ("encode", {"images": IMAGES[:, :, :4]}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("reconstruct", {"images": IMAGES[..., 0]}, "images: expected shape [N, 8, 8, 1] with N of at least 1"),
        ("decode", {"latents": LATENTS[0]}, "latents: expected shape [N, 4, 4, 2] with N of at least 1"),
        ("decode", {"latents": LATENTS[:, :2]}, "latents: expected shape [N, 4, 4, 2] with N of at least 1"),
        ("decode", {"latents": LATENTS * np.nan}, "latents: expected finite values"),
        ("decode", {"latents": LATENTS[:0]}, "with N of at least 1"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(signatures, name, changed, reason):
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        ask(signatures, name, **requests(name, **changed))
    assert reason in raised.value.message
    ask(signatures, name, **requests(name))  # and the next one is answered


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sample", {"seed": SEEDS.astype(np.int64)}),
        ("sample", {"temperature": ONES.astype(np.float64)}),
        ("likelihood", {"images": IMAGES.astype(np.float32)}),
        ("decode", {"latents": LATENTS.astype(np.float64)}),
    ],
)
def test_a_wrong_dtype_is_refused(signatures, name, changed):
    with pytest.raises(tf.errors.InvalidArgumentError, match="was expected to be"):
        ask(signatures, name, **requests(name, **changed))


# What stops an export.

ANSWERS = {
    "sample/images": np.full((3, 10, 10, 1), 7, np.uint8),
    "likelihood/log_prob": np.array([-100.0, -1e-3], np.float32),
}


def altered(name, function):
    copy = {key: value.copy() for key, value in ANSWERS.items()}
    copy[name] = function(copy[name])
    return copy


def with_value(array, index, value):
    array.flat[index] = value
    return array


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (
            altered("sample/images", lambda a: with_value(a, slice(0, 4), 9)),  # of 300 values
            "sample/images differs from the live model's by up to 2",
        ),
        (altered("sample/images", lambda a: a + 1), "sample/images differs from the live model's by up to 1"),
        (altered("sample/images", lambda a: a.astype(np.int32)), "sample/images is int32"),
        (altered("sample/images", lambda a: a[:2]), "expected uint8 (3, 10, 10, 1)"),
        (altered("likelihood/log_prob", lambda a: a * 1.001), "likelihood/log_prob differs"),
        (altered("likelihood/log_prob", lambda a: a * np.nan), "likelihood/log_prob differs"),
        ({"sample/images": ANSWERS["sample/images"]}, "answers ['sample/images'], expected"),
    ],
)
def test_compare_refuses_other_answers(received, reason):
    with pytest.raises(UserError) as raised:
        export.check_equal_answers(ANSWERS, received)
    assert reason in str(raised.value)


def test_compare_allows_rounding():
    export.check_equal_answers(ANSWERS, altered("sample/images", lambda a: with_value(a, 5, 8)))
    export.check_equal_answers(ANSWERS, altered("sample/images", lambda a: with_value(a, slice(0, 3), 200)))
    export.check_equal_answers(ANSWERS, altered("likelihood/log_prob", lambda a: a * 1.00001))


def test_a_sabotaged_model_is_not_published(run, tmp_path, monkeypatch):
    def sabotaged(folder, inputs, begin):
        answers = reloaded_here(folder, inputs, begin)
        answers["encode/latents"] += 0.01
        return answers

    monkeypatch.setattr(export, "_reloaded_answers", sabotaged)
    few = {name: SIGNATURES[name] for name in ("sample", "likelihood", "encode")}
    monkeypatch.setattr(of_exports, "SIGNATURES", few)
    with pytest.raises(UserError, match="the SavedModel's encode/latents differs from the live model's by up to 0.01"):
        export.export(run, tmp_path, SAMPLES)
    assert not list((tmp_path / "cqf").iterdir())


def test_a_model_that_a_fresh_process_cannot_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match="the SavedModel cannot be used in a fresh process: .*SavedModel"):
        export._reloaded_answers(tmp_path, {"sample": {"seed": SEEDS}}, print)


def test_mistakes_are_found_before_any_work(run, tmp_path):
    with pytest.raises(UserError, match="num_importance_samples: expected at least 1, received 0"):
        export.export(run, tmp_path, 0)
    with pytest.raises(UserError, match="expected a trained run with config.json"):
        export.export(tmp_path / "none", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="export_dir: expected a folder, received .*file', which is a file"):
        export.export(run, tmp_path / "file")


@pytest.mark.parametrize("name", ["environment.json", "data.json"])
def test_a_run_without_what_the_card_says_is_refused_before_the_work(run, tmp_path, name, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(name, "checkpoints"))
    monkeypatch.setattr(export.workdirs, "load", lambda *_: pytest.fail("it was loaded first"))
    with pytest.raises(UserError, match=f"{name}: the model card needs this file of the run, which cannot be read"):
        export.export(folder, tmp_path / "exports")


@pytest.mark.long
def test_saved_model_cli_runs_it(base, live, tmp_path):
    np.save(tmp_path / "seed.npy", SEEDS[:2])
    np.save(tmp_path / "temperature.npy", ONES[:2])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"),
            *("--dir", base / "cqf" / "1", "--tag_set", "serve", "--signature_def", "sample"),
            *("--inputs", f"seed={tmp_path}/seed.npy;temperature={tmp_path}/temperature.npy"),
            *("--outdir", tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    export.check_equal_answers({"images": live.sample(SEEDS[:2])}, {"images": np.load(tmp_path / "images.npy")})
