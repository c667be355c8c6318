"""A model that answers batches: an export, the model of a workdir, or one that is served, asked by the same signatures."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.bulk.place import ModelPlace
from tfcq.config import Config
from tfcq.config.data import PREPARATION
from tfcq.data.transforms import KINDS
from tfcq.errors import UserError
from tfcq.exporting import card
from tfcq.exporting.signatures import ServingModule
from tfcq.inputs import as_text
from tfcq.machine import paths
from tfcq.serving.client.client import Client

_PIECE = 2**22  # bytes read at a time


class AskedModel:
    """A model in this process.

    Args:
        signature: function from the name of an endpoint to its concrete function; KeyError, or UserError, if it has none.
        endpoints: the names of those that it has.
        digest: of all that its answers follow from, 32 hexadecimal digits.
        config: the Config of its run; None: unknown.
        state: which of the states that the place may have it is, in words, such as "step 2000" or "version 3".
        class_names: of its classes, in the order of their numbers; empty: it has none, or their names are unknown.
        preparation: how training prepared images, the options `tfcq.config.data.PREPARATION`; empty: unknown.

    Attributes:
        endpoints, digest, config, state, class_names, preparation: as given.
    """

    def __init__(
        self,
        signature: Callable[[str], tf.types.experimental.ConcreteFunction],
        endpoints: Collection[str],
        digest: str,
        config: Config | None,
        state: str,
        class_names: tuple[str, ...] = (),
        preparation: Mapping[str, Any] | None = None,
    ) -> None:
        self.class_names, self.preparation = tuple(class_names), dict(preparation or {})
        self._find, self.endpoints, self.digest = signature, frozenset(endpoints), digest
        self.config, self.state = config, state
        self._found: dict[str, tf.types.experimental.ConcreteFunction] = {}

    @functools.cached_property
    def num_classes(self) -> int:
        """How many classes the model has, whether their names are known or not; 0: none."""
        if self.class_names or "class_probabilities" not in self.endpoints:
            return len(self.class_names)
        return self.signature("class_probabilities").structured_outputs["probabilities"].shape[-1]

    def signature(self, endpoint: str) -> tf.types.experimental.ConcreteFunction:
        """The endpoint's concrete function, which is traced or looked up once; UserError if the model lacks it."""
        if endpoint not in self._found:
            self._found[endpoint] = self._find(endpoint)
        return self._found[endpoint]

    def image_shape(self, endpoint: str, name: str = "images") -> tuple[int, int, int]:
        """(H, W, C) of the images that an endpoint takes by that name; UserError for others than square ones, grey or RGB."""
        inputs = tf.nest.flatten(self.signature(endpoint).structured_input_signature)
        return _image_shape(endpoint, name, next((tuple(one.shape[1:]) for one in inputs if one.name == name), ()))

    def ask(self, endpoint: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """{output: [N, ...]} of an endpoint, of arrays [N, ...] by the names of its tensors.

        Raises:
            UserError: the endpoint refuses a value, such as the number of a class that an exported model does not have.
        """
        try:
            answers = self.signature(endpoint)(**{name: tf.constant(array) for name, array in arrays.items()})
        except tf.errors.InvalidArgumentError as error:  # from the checks of `exporting.signatures`
            text = " ".join(str(error).split())
            raise UserError(f"{endpoint}: {(text.partition('assertion failed: ')[2] or text)[:200]}") from error
        return {name: value.numpy() for name, value in answers.items()}


class ServedModel:
    """As `AskedModel`, a model of a server: the version that is the newest now, in this process's requests.

    Its digest is of its name, its version and what it declares, as a server does not show weights.

    Args:
        place: with `server`.

    Raises:
        UserError: no server there (ServerError), or none with this model.
    """

    config = None
    preparation: Mapping[str, Any] = {}

    def __init__(self, place: ModelPlace) -> None:
        address, model = place.address_and_model()
        connect = Client.rest if address.startswith(("http://", "https://")) else Client.grpc
        with connect(address, model) as client:
            known = client.metadata()
        self._client = connect(address, model, version=known["version"], timeout=None, max_batch_size=2**20)
        self._signatures, self.state = known["signatures"], f"version {known['version']}"
        self.endpoints = frozenset(self._signatures)
        self.digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16).hexdigest()

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """As of `AskedModel`."""
        return self._client.class_names()

    @functools.cached_property
    def num_classes(self) -> int:
        """As of `AskedModel`."""
        outputs = self._signatures.get("class_probabilities", {}).get("outputs", {})
        shape = outputs.get("probabilities", {}).get("shape") or [0]
        return len(self.class_names) or shape[-1] or 0

    def image_shape(self, endpoint: str, name: str = "images") -> tuple[int, int, int]:
        """As of `AskedModel`."""
        if endpoint not in self._signatures:
            known = ", ".join(sorted(self._signatures))
            raise UserError(f"server: expected a model with the signature {endpoint}, received one with {known}")
        shape = self._signatures[endpoint]["inputs"].get(name, {}).get("shape") or ()
        return _image_shape(endpoint, name, tuple(shape[1:]))

    def ask(self, endpoint: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """As of `AskedModel`, in one request."""
        return self._client.predict(endpoint, arrays)


def _image_shape(endpoint, name, shape):
    if len(shape) != 3 or None in shape or shape[0] != shape[1] or shape[2] not in KINDS:
        raise UserError(f"signature {endpoint}: expected an input `{name}` [N, H, H, 1 or 3], received {list(shape)}")
    return shape


def load(place: ModelPlace) -> AskedModel | ServedModel:
    """The model at a place.

    Raises:
        UserError: no model there, or none that can be read.
    """
    place.check()
    if place.server:
        return ServedModel(place)
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
    chosen = f", the best by {model.chosen_by}" if model.chosen_by else ""
    state = f"step {model.steps_taken}{chosen}"
    preparation = {name: getattr(config.data, name) for name in PREPARATION}
    return AskedModel(signature, model.abilities, digest.hexdigest(), config, state, model.class_names, preparation)


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

    digest, names = _digest_of_files(folder), _class_names(loaded.signatures)
    preparation = card.read_preparation(folder)
    return AskedModel(signature, loaded.signatures, digest, None, f"version {folder.name}", names, preparation)


def _class_names(signatures):
    """The names of an exported model's classes; () if it has none, or does not know them."""
    if "name_classes" not in signatures:
        return ()
    name = signatures["name_classes"]
    numbers = tf.range(name(classes=tf.constant([0]))["num_classes"][0])
    return tuple(as_text(name(classes=numbers)["names"].numpy()).tolist())


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
