"""Configuration files of TF Serving in protobuf's text format, and those of its messages that no Python package has."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from .errors import UsageError, one_line

_Message = typing.TypeVar("_Message", bound=Message)

# servables/tensorflow/session_bundle_config.proto. An Int64Value is written `name { value: 3 }`.
BATCHING_PARAMETERS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "thread_pool_name": "StringValue",
    "allowed_batch_sizes": "repeated int64",
    "pad_variable_length_inputs": "bool",
    "enable_large_batch_splitting": "BoolValue",
    "max_execution_batch_size": "Int64Value",
}
# config/ssl_config.proto; the texts are in PEM.
SSL_CONFIG = {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"}


def message_class(name: str, fields: Mapping[str, str]) -> type[Message]:
    """A message class of protobuf, good for its text format: the numbers of the fields are not those of TF Serving.

    Args:
        name: of the message.
        fields: {name: kind}, where a kind is "string", "bool", "repeated int64" or the name of a wrapper, such as "Int64Value".
    """
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"local/{name}.proto", package="tensorflow.serving.local", syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), start=1):
        label = kinds.LABEL_REPEATED if kind.startswith("repeated ") else kinds.LABEL_OPTIONAL
        scalar = {"string": kinds.TYPE_STRING, "bool": kinds.TYPE_BOOL, "int64": kinds.TYPE_INT64}.get(kind.rpartition(" ")[2])
        if scalar is None:
            wrapper = f".google.protobuf.{kind}"
            message.field.add(name=field, number=number, label=label, type=kinds.TYPE_MESSAGE, type_name=wrapper)
        else:
            message.field.add(name=field, number=number, label=label, type=scalar)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


def read(path: str, given_as: str, message: _Message) -> _Message:
    """Fills a message from a file in protobuf's text format, and returns it.

    Args:
        path: the file; may begin with `~`.
        given_as: how errors name the file, such as "--ssl_config_file=tls.config".
        message: an empty message.

    Raises:
        UsageError: if the file cannot be read or is not such a message.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return text_format.Parse(file.read(), message)
    except OSError as error:
        raise UsageError(f"{given_as} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(f"{given_as} does not hold {message.DESCRIPTOR.name} as text: {one_line(error)}") from error
