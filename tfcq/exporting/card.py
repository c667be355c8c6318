"""Files that accompany an exported model: a card for people, a manifest and how images are prepared for programs, requests
that warm a server up.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import tfcq
from tfcq.config import Config, DataConfig
from tfcq.config.data import PREPARATION
from tfcq.endpoints import ENDPOINTS, SIGNATURES
from tfcq.errors import UserError
from tfcq.machine import files, paths

_PREPARATION_FILE = "assets.extra/preparation.json"
_TELLS_FROM = 0.6  # the lowest AUROC at which an energy is said to tell images apart


def model_card(
    title: str,
    made: str,
    config: Config,
    environment: dict,
    data_facts: dict,
    rows: Sequence[dict],
    step: int,
    use: Sequence[str],
    has_energy: bool,
    license_text: str = "",
) -> str:
    """The text of MODEL_CARD.md.

    Args:
        title: its heading.
        made: how the model came to be in these files, such as "exported".
        config: `tfcq.Config` of the run.
        environment, data_facts: the content of the workdir's environment.json and data.json.
        rows: the rows of metrics.jsonl.
        step: number of training steps of the checkpoint.
        use: lines on how it is used, with their heading: `signatures_of`, or others.
        has_energy: whether the model has the ability "energy".
        license_text: a sentence on the licence; "": there is none.
    """
    lines = [
        f"# {title}",
        "",
        f"A generative image model {made} by tfcq {tfcq.__version__}.",
        "",
        "## Data",
        "",
        f"- {paths.markdown(data_facts['description'])}",
        f"- images uint8, shape {data_facts['image_shape']}",
        *_classes(data_facts.get("classes")),
        "",
        "## Training",
        "",
        f"- step {step} of {config.training.train_steps}, batch {config.training.batch_size}, seed "
        f"{config.training.seed}",
        f"- tfcq commit {environment.get('commit')}",
        "",
        "## Measured",
        "",
    ]
    lines += _measured(rows, step)
    lines += ["", *use]
    lines += ["", "## Licence", "", license_text] if license_text else []
    lines += [
        "",
        "## Limits",
        "",
        "- Likelihoods compare models on one data set and one preprocessing; across data sets they order images by "
        "simplicity as much as by kind.",
        *([f"- {energy_told(rows, step, config.system.normalization_of_encoder)}."] if has_energy else []),
        "- Samples repeat what is in the training data, its biases included, and may repeat single images of it.",
        "",
        "## Configuration",
        "",
        *[f"    {line}" for line in config.to_json().splitlines()],
    ]
    return "\n".join(lines) + "\n"


def signatures_of(
    signatures: dict[str, tf.types.experimental.ConcreteFunction], num_importance_samples: int
) -> list[str]:
    """The lines of a model card on the signatures of an exported model.

    Args:
        signatures: {name: concrete function}.
        num_importance_samples: K of the endpoints `likelihood` and `unit_gaussian_likelihood`.
    """
    lines = [
        f"- `{name}`: {_promise(name, num_importance_samples)}. "
        f"{_tensors(_inputs(function))} -> {_tensors(function.structured_outputs)}"
        for name, function in signatures.items()
        if name != "serving_default"
    ]
    return ["## Signatures", "", *lines, "", "`serving_default` is `sample`."]


def _classes(facts):
    """A line on classes, of `Classes.facts`; none for a model without."""
    if not facts:
        return []
    of_each = zip(facts["names"], facts["counts"], strict=True)
    shown = ", ".join(f"{number}: {paths.markdown(name)} ({count})" for number, (name, count) in enumerate(of_each))
    return [f"- classes, by number, with how many training images each has: {shown}"]


def _measured(rows, step):
    """Lines on the last row of the exported step."""
    if not rows:
        return ["Nothing was measured."]
    of_step = [row for row in rows if row.get("step") == step]
    if not of_step:
        others = ", ".join(dict.fromkeys("unknown" if row.get("step") is None else str(row["step"]) for row in rows[-5:]))
        return [f"Nothing was measured at step {step}, that of this model; the last numbers are of other steps ({others})."]
    text = json.dumps(of_step[-1], indent=2)
    return [f"At step {step}, that of this model:", "", *(f"    {line}" for line in text.splitlines())]


def _promise(name, count):
    signature = SIGNATURES[name]
    return signature.meaning + (f" with K = {count}" if ENDPOINTS[signature.ability].fixed and not signature.encoded else "")


def _inputs(function):
    return {spec.name: spec for spec in tf.nest.flatten(function.structured_input_signature)}


def _tensors(specs):
    return ", ".join(
        f"{name} {spec.dtype.name} [{', '.join('N' if size is None else str(size) for size in spec.shape)}]"
        for name, spec in sorted(specs.items())
    )


def energy_told(rows: Sequence[dict], step: int, normalization: str) -> str:
    """A sentence on what the endpoint `energy` tells, by the last of the rows of metrics.jsonl that measured it at this step.

    It begins with "warning: " where the energy does not tell generated images from real ones.

    Args:
        rows: rows of metrics.jsonl.
        step: the number of training steps of the exported model.
        normalization: of its encoder, `normalization_of_encoder`.
    """
    measured = [row for row in rows if row.get("step") == step and "energy_auroc" in row]
    if not measured:
        return (
            "how well `energy` tells generated images from real ones was not measured at this step: "
            "tfcq evaluate --metrics=energy does it"
        )
    entry = measured[-1]["energy_auroc"]
    split = entry.get("split", measured[-1].get("split", "validation"))
    fact = f"an AUROC of {entry['value']:.2f} ({entry['num_images']:,} {split} images, as many samples; 0.5 is chance)"
    if entry["value"] >= _TELLS_FROM:
        return f"`energy` tells generated images from real ones with {fact}"
    if entry["value"] <= 1.0 - _TELLS_FROM:
        return f"warning: `energy` is lower for generated images than for real ones: {fact}"
    ways = "--encoder_normalization=none or group, or with --final_encoder_steps=STEPS"
    advice = f"; with {ways}, it is the KL that training sees" if normalization == "batch" else ""
    return f"warning: `energy` does not tell single generated images from real ones: {fact}{advice}"


def write_preparation(folder: str | os.PathLike, data: DataConfig) -> None:
    """Writes `assets.extra/preparation.json` of a SavedModel: how training prepared images, {option of `PREPARATION`: value}."""
    path = pathlib.Path(folder) / _PREPARATION_FILE
    path.parent.mkdir(exist_ok=True)
    files.write_text(path, json.dumps({name: getattr(data, name) for name in PREPARATION}, indent=2) + "\n")


def read_preparation(folder: paths.AnyPath) -> dict[str, Any]:
    """What `write_preparation` wrote into a SavedModel's folder; {}: nothing, as of an export of an earlier version.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / _PREPARATION_FILE
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text())
        return {name: kept[name] for name in PREPARATION}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected how images are prepared, as tfcq export writes it, received something else") from error


def write_manifest(folder: str | os.PathLike) -> None:
    """Writes manifest.json into `folder`: size and SHA-256 of every other file below."""
    folder = pathlib.Path(folder)
    found = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps({"files": found}, indent=2) + "\n")


def write_warmup(folder: str | os.PathLike, inputs: dict[str, dict[str, np.ndarray]]) -> bool:
    """Writes `assets.extra/tf_serving_warmup_requests`: one request per signature, which a server replays when it loads.

    Args:
        folder: folder of the SavedModel.
        inputs: {signature: {tensor: array}}.

    Returns:
        Whether the file was written: its records need tensorflow-serving-api (the extra `serving`).
    """
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    path = pathlib.Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=signature),
                inputs={name: tf.make_tensor_proto(value) for name, value in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
    return True
