"""Where the versions of a model are on disk, which of them a policy asks for, and the checks of a model configuration."""

import os
import unicodedata
from collections.abc import Iterable
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from . import text_protos
from .errors import RequestError, UsageError, invalid

SAVED_MODEL_FILE = "saved_model.pb"

LARGEST_VERSION = 2**63 - 1  # TF Serving's versions are int64


def single_model_config(name: str, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """The configuration that `--model_name` and `--model_base_path` give; a relative path is made absolute.

    Raises:
        UsageError: if the path is not UTF-8.
    """
    config = model_server_config_pb2.ModelServerConfig()
    # An address stays one, so that the check of the configuration says what it is.
    path = base_path if "://" in base_path else os.path.abspath(os.path.expanduser(base_path))
    try:
        config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
    except ValueError as error:
        raise UsageError(f"--model_base_path={path!r} is not UTF-8; rename it, or give a link to it") from error
    return config


def read_model_config(path: str) -> model_server_config_pb2.ModelServerConfig:
    """Reads a `ModelServerConfig` in protobuf's text format.

    Raises:
        UsageError: if the file cannot be read or does not parse.
    """
    return text_protos.read(path, f"--model_config_file={path}", model_server_config_pb2.ModelServerConfig())


def checked_models(
    server_config: model_server_config_pb2.ModelServerConfig
) -> dict[str, model_server_config_pb2.ModelConfig]:
    """{model name: ModelConfig} of a configuration that this server can serve.

    Raises:
        RequestError: INVALID_ARGUMENT for a custom configuration, no model, a duplicate name, another platform than
            TensorFlow, a base path that is relative, missing or itself a version, or a bad version policy.
    """
    if server_config.WhichOneof("config") != "model_config_list":
        raise invalid("the configuration needs a model_config_list; custom_model_config is not supported")
    models = {}
    for config in server_config.model_config_list.config:
        if not config.name or "/" in config.name or ":" in config.name:
            raise invalid(f"model name {config.name!r} must not be empty or contain '/' or ':'")
        if config.name in models:
            raise invalid(f"model {config.name!r} is configured twice")
        if config.model_platform not in ("", "tensorflow"):
            raise invalid(f"model {config.name!r} has model_platform {config.model_platform!r};"
                          f" only 'tensorflow' is served")
        _check_base_path(config)
        policy = config.model_version_policy
        if policy.WhichOneof("policy_choice") == "specific" and not policy.specific.versions:
            raise invalid(f"model {config.name!r} has a specific version policy without versions")
        models[config.name] = config
    if not models:
        raise invalid("the configuration has no model")
    return models


def _check_base_path(config):
    if "://" in config.base_path:
        raise invalid(f"model {config.name!r}: base path {config.base_path} is an address; this server reads folders of this"
                      f" machine: copy the model to one (TF Serving itself reads gs://)")
    if not os.path.isabs(config.base_path):
        raise invalid(f"model {config.name!r} needs an absolute base_path, received {config.base_path!r}")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in config.base_path):
        raise invalid(f"model {config.name!r} needs a base_path of one line, received {config.base_path!r};"
                      f" rename it, or give a link to it")
    if not os.path.isdir(config.base_path):
        raise invalid(f"model {config.name!r}: base path {config.base_path} is not a directory;"
                      f" export a model there first")
    if os.path.exists(os.path.join(config.base_path, SAVED_MODEL_FILE)):
        raise invalid(f"model {config.name!r}: base path {config.base_path} is itself a version;"
                      f" give the directory above it")
    _check_depth(config)


def _check_depth(config):
    """Raises RequestError for the folder above a model's, which --export_dir names: nothing would ever be served from there."""
    try:
        folders = sorted(entry.path for entry in os.scandir(config.base_path) if entry.is_dir())
        if not folders or version_directories(config.base_path):
            return
        above = [folder for folder in folders if version_directories(folder)]
    except (OSError, RequestError):  # reported when the versions are loaded
        return
    if above:
        raise invalid(f"model {config.name!r}: base path {config.base_path} holds models, not versions;"
                      f" give the directory of one model, such as {above[0]}")


def version_directories(base_path: str) -> dict[int, str]:
    """{version: directory} of the complete versions under a base path.

    A version is a directory with an int64 for its name and a `saved_model.pb` in it. Anything else is left alone:
    an exporter may be writing it, and a larger number is no version in TF Serving either.

    Raises:
        RequestError: NOT_FOUND if the base path cannot be listed.
    """
    try:
        names = os.listdir(base_path)
    except OSError as error:
        raise RequestError("NOT_FOUND", f"base path {base_path} cannot be listed: {error.strerror}") from error
    found = {}
    for name in sorted(names):
        path = os.path.join(base_path, name)
        if name.isascii() and name.isdecimal() and int(name) <= LARGEST_VERSION:
            if os.path.exists(os.path.join(path, SAVED_MODEL_FILE)):
                found[int(name)] = path
    return found


def aspired_versions(policy: Any, candidates: Iterable[int]) -> set[int]:
    """The set of versions that a `ServableVersionPolicy` asks for, out of the candidates.

    Without a policy that is the newest one, as in TF Serving.
    """
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(candidates)
    if choice == "specific":
        return set(candidates) & set(policy.specific.versions)
    count = max(policy.latest.num_versions, 1)
    return set(sorted(candidates)[-count:])


def fingerprint(path: str) -> tuple:
    """A tuple that changes if a version is rewritten: names, sizes and times of its graph and its variables."""
    files: list[tuple] = []
    for folder in (path, os.path.join(path, "variables")):
        try:
            with os.scandir(folder) as entries:
                stats = [(entry.path, entry.stat()) for entry in entries if entry.is_file()]
            files += [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        except OSError:
            files.append((folder, "unreadable"))
    return tuple(sorted(files, key=str))
