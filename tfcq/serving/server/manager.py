"""Which versions of which models are served: loads them, switches to new ones, and reports their states."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import logging
from tensorflow_serving.apis import get_model_status_pb2

from . import garbage
from .errors import CODE_NUMBER, RequestError, as_request_error, invalid
from .servable import Servable
from .versions import aspired_versions, checked_models, fingerprint, version_directories

if TYPE_CHECKING:
    from tensorflow_serving.apis import model_pb2
    from tensorflow_serving.config import model_server_config_pb2

State = get_model_status_pb2.ModelVersionStatus.State


class _Model:
    """One model's configuration and versions. Its dictionaries are replaced, never changed: readers take no lock.

    Args:
        config: the `ModelConfig`.
        before: the `_Model` that it takes the place of, None if there is none. With the same base path it has its versions.
    """

    def __init__(self, config, before=None):
        self.config = config
        self.servables: dict[int, Servable] = {}  # those that requests may use
        self.states: dict[int, tuple[int, str, str]] = {}  # {version: (State, code name, message)}
        self.failures: dict[int, tuple] = {}  # {version: fingerprint of the directory that did not load}
        self.complaint: str | None = None
        self.continues = before is not None and before.config.base_path == config.base_path
        if self.continues:
            self.servables, self.states, self.failures = before.servables, before.states, before.failures
            self.complaint = before.complaint

    def set_state(self, version, state, code="OK", message=""):
        self.states = self.states | {version: (state, code, message)}

    def complain_once(self, message):
        if message != self.complaint:
            logging.warning("model %s: %s", self.config.name, message)
        self.complaint = message


class ModelManager:
    """Holds the served models.

    A version is loaded and warmed up completely before it answers requests, and older ones are unloaded only then, so a
    model that has served once keeps serving. A version that does not load is reported as failed and is not tried again until
    its files change; the version policy then chooses among the remaining versions.

    Args:
        load: function from a directory to a `Servable`.
        allow_labels_for_unavailable_versions: accept a label of a version that is not available, unless the label has moved.
    """

    def __init__(
        self,
        load: Callable[[str], Servable] = Servable,
        allow_labels_for_unavailable_versions: bool = False,
    ) -> None:
        self._load = load
        self._allow_labels = allow_labels_for_unavailable_versions
        self._models: dict[str, _Model] = {}
        self._changes = threading.Lock()
        self._listeners: list[Callable[[dict[str, list[int]]], None]] = []

    def listen(self, listener: Callable[[dict[str, list[int]]], None]) -> None:
        """Calls the listener with `available()` now, and after every change."""
        with self._changes:
            self._listeners.append(listener)
            listener(self.available())

    def configure(self, server_config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serves exactly the models of a `ModelServerConfig`; returns when they are loaded.

        All is loaded before any of it takes the place of what is served. At the start a model may have no version yet.

        Raises:
            RequestError: INVALID_ARGUMENT for a bad configuration; FAILED_PRECONDITION if none of the versions of a model
                loads, if a model that is added, or gets another base path, has no version, or if a label names a version that
                is not available. Nothing changes then.
        """
        configs = checked_models(server_config)
        with self._changes:
            served = self._models
            models = {name: _Model(config, served.get(name)) for name, config in configs.items()}
            try:
                superseded = {name: self._load_aspired(model) for name, model in models.items()}
                for name, model in models.items():
                    self._check_loaded(model, superseded[name], served.get(name))
            except RequestError:
                garbage.collect()  # what was loaded
                raise
            self._models = models
            for name in set(served) - set(models):
                logging.info("model %s: is not served any more", name)
            for name, model in models.items():
                self._unload(model, superseded[name])
            self._changed()

    def poll(self) -> None:
        """Looks at the file system once, and loads and unloads versions accordingly."""
        with self._changes:
            before = self.available()
            for model in self._models.values():
                self._unload(model, self._load_aspired(model))
            if self.available() != before:
                self._changed()

    def available(self) -> dict[str, list[int]]:
        """{model name: sorted list of the versions that answer requests}."""
        return {name: sorted(model.servables) for name, model in self._models.items()}

    def find(self, model_spec: model_pb2.ModelSpec) -> tuple[int, Servable]:
        """The (version, `Servable`) that a `ModelSpec` asks for: the newest unless it names a version or a label.

        Raises:
            RequestError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND for an unknown model or
                a version that is not available.
        """
        model = self._model(model_spec.name)
        servables = model.servables
        version = _version(model, model_spec)
        if version is None:
            version = max(servables, default=None)
        if version not in servables:
            wanted = "version yet" if version is None else f"version {version} available"
            present = ", ".join(map(str, sorted(servables))) or "none"
            raise RequestError("NOT_FOUND", f"model {model_spec.name!r} has no {wanted}; available: {present}")
        return version, servables[version]

    def status(self, model_spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The `GetModelStatusResponse` for a `ModelSpec`: all versions ever seen, newest first, or the one it names.

        Raises:
            RequestError: as `find` does; but a version that failed or ended has a status.
        """
        model = self._model(model_spec.name)
        states = model.states
        version = _version(model, model_spec)
        if version is not None:
            states = {version: states[version]} if version in states else {}
        if not states:
            seen = ", ".join(map(str, sorted(model.states))) or "none"
            raise RequestError("NOT_FOUND", f"model {model_spec.name!r} has no such version; seen so far: {seen}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, code, message) in sorted(states.items(), reverse=True):
            entry = response.model_version_status.add(version=version, state=state)
            entry.status.error_code = CODE_NUMBER[code]
            entry.status.error_message = message
        return response

    def _model(self, name):
        if not name:
            raise invalid("model_spec.name is empty; name the model")
        models = self._models
        if name not in models:
            raise RequestError("NOT_FOUND", f"model {name!r} is not served here; served: {', '.join(sorted(models))}")
        return models[name]

    def _check_loaded(self, model, superseded, before):
        """Raises RequestError: FAILED_PRECONDITION if a model cannot serve, or a label names none of its versions."""
        name, labels = model.config.name, model.config.version_labels
        if not model.servables:
            broken = [message for _, code, message in model.states.values() if code != "OK"]
            if broken:
                raise RequestError("FAILED_PRECONDITION", f"no version of model {name!r} loads: {broken[-1]}")
            if self._models and not model.continues:
                raise RequestError("FAILED_PRECONDITION", f"model {name!r} has no version that its policy asks for under"
                                                          f" {model.config.base_path}; export one there first")
        available = sorted(set(model.servables) - superseded)
        for label, version in sorted(labels.items()):
            moved = before is not None and before.config.version_labels.get(label, version) != version
            if version not in available and (moved or not self._allow_labels):
                raise RequestError(
                    "FAILED_PRECONDITION", f"label {label!r} of model {name!r} names version {version}, which is not"
                                           f" available; available: {', '.join(map(str, available)) or 'none'}")

    def _load_aspired(self, model):
        """Loads what a model's policy asks for; returns the set of loaded versions that it does not ask for any more.

        The caller holds the lock.
        """
        try:
            directories = version_directories(model.config.base_path)
        except RequestError as error:
            model.complain_once(f"{error}; what is loaded goes on serving")
            return set()
        if not directories:
            until = "what is loaded goes on serving" if model.servables else (
                "waiting for a directory with an integer for its name and saved_model.pb in it"
            )
            model.complain_once(f"no version under {model.config.base_path}; {until}")
            return set()
        model.complaint = None
        model.failures = {version: failed for version, failed in model.failures.items()
                          if version in directories and failed == fingerprint(directories[version])}
        while True:  # each turn loads all that the policy asks for, or finds another version that does not load
            candidates = set(directories) - set(model.failures)
            aspired = aspired_versions(model.config.model_version_policy, candidates)
            missing = sorted(aspired - set(model.servables), reverse=True)
            loaded = [self._load_version(model, version, directories[version]) for version in missing]
            if all(loaded):
                break
        return set(model.servables) - aspired if aspired else set()  # if none of them exists, the service must not end

    def _load_version(self, model, version, path):
        before = fingerprint(path)
        model.set_state(version, State.LOADING)
        try:
            servable = self._load(path)
        except Exception as error:
            failure = as_request_error(error)
            message = f"version {version} at {path} does not load: {failure.reason}"
            logging.warning("model %s: %s", model.config.name, message)
            model.failures = model.failures | {version: before}
            model.set_state(version, State.END, failure.code, message)
            return False
        replayed = servable.warm_up()
        model.servables = model.servables | {version: servable}
        model.set_state(version, State.AVAILABLE)
        logging.info("model %s: version %d is available (%d warm-up requests)", model.config.name, version, replayed)
        return True

    def _unload(self, model, versions):
        # Running requests hold the servable themselves; its memory is freed when the last of them ends.
        for version in versions:
            model.set_state(version, State.UNLOADING)
            model.servables = {key: value for key, value in model.servables.items() if key != version}
            model.set_state(version, State.END)
            logging.info("model %s: version %d is unloaded", model.config.name, version)

    def _changed(self):
        """Frees what is not served any more, and says what is."""
        garbage.collect()
        for listener in self._listeners:
            listener(self.available())


def _version(model, model_spec):
    """The version that a `ModelSpec` names by number or label, None if it names none.

    Raises:
        RequestError: INVALID_ARGUMENT for an unknown label.
    """
    choice = model_spec.WhichOneof("version_choice")
    if choice == "version_label":
        labels = model.config.version_labels
        if model_spec.version_label not in labels:
            raise invalid(f"model {model_spec.name!r} has no version label {model_spec.version_label!r};"
                          f" its labels: {', '.join(sorted(labels)) or 'none'}")
        return labels[model_spec.version_label]
    return model_spec.version.value if choice == "version" else None


class Poller:
    """Calls `ModelManager.poll` regularly on a thread of its own.

    Args:
        manager: the `ModelManager`.
        seconds: the pause between two looks, > 0.
    """

    def __init__(self, manager: ModelManager, seconds: float) -> None:
        self._manager = manager
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)

    def start(self) -> None:
        """Begins polling."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end, without waiting for a load that has begun."""
        self._stopped.set()

    def _run(self):
        while not self._stopped.wait(self._seconds):
            try:
                self._manager.poll()
            except Exception:
                logging.exception("polling the file system failed; the next turn tries again")
