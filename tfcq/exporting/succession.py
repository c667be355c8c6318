"""Whether a model may be the next version of an exported one: a server replaces it while clients are connected."""

from __future__ import annotations

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfcq.errors import UserError
from tfcq.machine.paths import AnyPath

_NAMED = 3  # differences in a message


def check_successor(base: AnyPath, signatures: dict[str, tf.types.experimental.ConcreteFunction]) -> None:
    """Raises UserError if the newest version below a folder has signatures that a new version would remove or change.

    Signatures that the newest version does not have may be added.

    Args:
        base: BASE/<model name>; it need not exist.
        signatures: {name: concrete function} of the new version.
    """
    folders = base.iterdir() if base.is_dir() else ()
    versions = {int(path.name): path for path in folders if path.name.isascii() and path.name.isdecimal()}
    versions = {number: path for number, path in versions.items() if (path / "saved_model.pb").is_file()}
    if not versions:
        return
    newest = versions[max(versions)]
    there = _of_saved_model(newest / "saved_model.pb")
    here = {name: _of_function(function) for name, function in signatures.items()}
    differences = []
    for signature, tensors in sorted(there.items()):
        if signature == "serving_default":  # is `sample`
            continue
        if signature not in here:
            differences.append(f"no {signature}")
            continue
        for name in sorted(tensors.keys() | here[signature].keys()):
            old, new = tensors.get(name), here[signature].get(name)
            if old is None or new is None or old.dtype != new.dtype or not old.shape.is_compatible_with(new.shape):
                differences.append(f"{signature} {name} {_shown(old)} -> {_shown(new)}")
    if differences:
        named = differences[:_NAMED]
        if len(differences) > _NAMED:
            named.append(f"{len(differences) - _NAMED} more")
        raise UserError(
            f"{newest} has other signatures than this model (its -> this model's: {'; '.join(named)}); as its next version "
            "this model would break its clients; expected another --export_dir, or --allow_other_signatures"
        )


def _of_function(function):
    """{"input images": TensorSpec, "output log_prob": ...} of a concrete function."""
    inputs = {f"input {spec.name}": spec for spec in tf.nest.flatten(function.structured_input_signature)}
    return inputs | {f"output {name}": spec for name, spec in function.structured_outputs.items()}


def _of_saved_model(path):
    """{signature: what `_of_function` returns} of a SavedModel, by its saved_model.pb alone."""
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except (OSError, DecodeError) as error:
        raise UserError(
            f"{path}: this SavedModel cannot be read ({error}); expected another --export_dir, or that version removed"
        ) from error
    return {
        name: {
            f"{direction} {tensor}": tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype))
            for direction, infos in (("input", signature.inputs), ("output", signature.outputs))
            for tensor, info in infos.items()
        }
        for graph in graphs
        if "serve" in graph.meta_info_def.tags
        for name, signature in graph.signature_def.items()
        if not name.startswith("__")  # the SavedModel's own, such as __saved_model_init_op
    }


def _shown(spec):
    if spec is None:
        return "none"
    return f"{spec.dtype.name} [{', '.join('N' if size is None else str(size) for size in spec.shape)}]"
