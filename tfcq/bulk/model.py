"""A model that answers batches: an export, or the model of a workdir, asked by the same signatures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.bulk.place import ModelPlace
from tfcq.config import Config
from tfcq.data.transforms import KINDS
from tfcq.errors import UserError
from tfcq.exporting.signatures import ServingModule
from tfcq.machine import paths

_PIECE = 2**22  # bytes read at a time


class AskedModel:
    """A model in this process.

    Args:
        signature: function from the name of an endpoint to its concrete function; KeyError, or UserError, if it has none.
        digest: of all that its answers follow from, 32 hexadecimal digits.
        config: the Config of its run; None: unknown.

    Attributes:
        digest, config: as given.
    """

    def __init__(
        self, signature: Callable[[str], tf.types.experimental.ConcreteFunction], digest: str, config: Config | None
    ) -> None:
        self._find, self.digest, self.config = signature, digest, config
        self._found: dict[str, tf.types.experimental.ConcreteFunction] = {}

    def signature(self, endpoint: str) -> tf.types.experimental.ConcreteFunction:
        """The endpoint's concrete function, which is traced or looked up once; UserError if the model lacks it."""
        if endpoint not in self._found:
            self._found[endpoint] = self._find(endpoint)
        return self._found[endpoint]

    def image_shape(self, endpoint: str) -> tuple[int, int, int]:
        """(H, W, C) of the images that an endpoint takes; UserError for others than square ones, grey or RGB."""
        inputs = tf.nest.flatten(self.signature(endpoint).structured_input_signature)
        shape = next((tuple(one.shape[1:]) for one in inputs if one.name == "images"), ())
        if len(shape) != 3 or None in shape or shape[0] != shape[1] or shape[2] not in KINDS:
            raise UserError(f"signature {endpoint}: expected an input `images` [N, H, H, 1 or 3], received {list(shape)}")
        return shape

    def ask(self, endpoint: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """{output: [N, ...]} of an endpoint, of arrays [N, ...] by the names of its tensors."""
        answers = self.signature(endpoint)(**{name: tf.constant(array) for name, array in arrays.items()})
        return {name: value.numpy() for name, value in answers.items()}


def load(place: ModelPlace) -> AskedModel:
    """The model at a place.

    Raises:
        UserError: no model there, or none that can be read.
    """
    place.check()
    return _of_workdir(place) if place.workdir is not None else _of_export(place.version())


def _of_workdir(place):
    model = workdirs.load(place.workdir, place.checkpoint, place.image_draw)
    module = ServingModule(model, place.num_importance_samples)

    def signature(endpoint):
        model.require(endpoint)
        return module.signature(endpoint)

    config = model.config_of_run
    digest = hashlib.blake2b(json.dumps(config.to_dict()["system"], sort_keys=True).encode(), digest_size=16)
    for variable in model.variables:
        digest.update(f"{variable.path}\0".encode() + np.ascontiguousarray(variable).tobytes())
    return AskedModel(signature, digest.hexdigest(), config)


def _of_export(folder):
    try:
        loaded = tf.saved_model.load(paths.plain(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = paths.restore_name(" ".join(str(error).split()), folder)[:200]
        raise UserError(f"export {folder}: expected a SavedModel, received something else ({reason})") from error

    def signature(endpoint):
        _ = loaded  # its variables live as long as this function
        if endpoint not in loaded.signatures:
            known = ", ".join(sorted(loaded.signatures))
            raise UserError(f"export {folder}: expected a model with the signature {endpoint}, received one with {known}")
        return loaded.signatures[endpoint]

    return AskedModel(signature, _digest_of_files(folder), None)


def _digest_of_files(folder):
    """BLAKE2b of graph, weights and assets of a SavedModel; what accompanies it (assets.extra) does not count."""
    digest = hashlib.blake2b(digest_size=16)
    found = [folder / "saved_model.pb", *sorted((folder / "variables").glob("*")), *sorted((folder / "assets").rglob("*"))]
    for path in found:
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
    return digest.hexdigest()
