"""Whom a client asks, and how: the arguments of `Client.grpc` and `Client.rest`, checked."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any

from tfcq.checks import check_integer, check_kind
from tfcq.errors import UserError

_HEADER_NAME, _HEADER_VALUE = re.compile(r"[A-Za-z0-9_.-]+"), re.compile(r"[\x20-\x7e]*")


@dataclasses.dataclass(frozen=True)
class Target:
    """A model of a server; the attributes are the arguments of `Client.grpc`."""

    address: str
    model: str
    version: int | None
    label: str | None
    timeout: float | None
    max_batch_size: int
    parallel: int
    retries: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    tls: bool
    ca_file: str | None

    @classmethod
    def checked(
        cls,
        address: str,
        model: str,
        version: int | None,
        label: str | None,
        timeout: float | None,
        max_batch_size: int,
        parallel: int,
        retries: int,
        headers: Mapping[str, str] | None,
        token: str | None,
        tls: bool,
        ca_file: str | os.PathLike | None,
    ) -> Target:
        """A target of these arguments.

        Raises:
            UserError: an argument that cannot work.
        """
        check_kind("address", address, str, "a str")
        check_kind("model", model, str, "a str, the model's name on the server")
        if not model:
            raise UserError("model: expected the model's name on the server, received ''")
        if version is not None and label is not None:
            raise UserError(f"expected a version or a label, received both: {version!r} and {label!r}")
        if version is not None:
            version = check_integer("version", version, 0)
        if label is not None and (not isinstance(label, str) or not label):
            raise UserError(f"label: expected a text such as 'stable', received {label!r}")
        return cls(
            address,
            model,
            version,
            label,
            seconds("timeout", timeout),
            check_integer("max_batch_size", max_batch_size, 1),
            check_integer("parallel", parallel, 1),
            check_integer("retries", retries, 0),
            _headers(headers, token),
            bool(tls or ca_file),
            None if ca_file is None else _ca_file(ca_file),
        )

    def tls_context(self) -> ssl.SSLContext:
        """What Python's TLS needs to know of this server."""
        return ssl.create_default_context(cafile=self.ca_file)


def seconds(name: str, value: Any) -> float | None:
    """A time limit as a float; None is no limit.

    Raises:
        UserError: it is not a number above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise UserError(f"{name}: expected seconds above 0, or None for no limit, received {value!r}")
    return float(value)


def _headers(headers, token):
    if headers is not None:
        check_kind("headers", headers, Mapping, "a dict of texts")
    pairs = dict(headers or {})
    if token is not None:
        if any(str(name).lower() == "authorization" for name in pairs):
            raise UserError("expected a token or a header Authorization, received both")
        pairs["authorization"] = f"Bearer {token}"
    for name, value in pairs.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise UserError(f"headers: expected names of letters, digits, '-', '_' and '.', received {name!r}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):  # the value may be a secret
            raise UserError(f"headers: expected one line of ASCII as the value of {name!r}, received something else")
    return {
        name.lower(): value for name, value in pairs.items()
    }  # gRPC knows small letters alone, and HTTP no difference


def _ca_file(path):
    path = os.path.expanduser(os.fspath(path))
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one, too
        reason = str(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(
            f"ca_file {path}: expected certificates in PEM, received a file that cannot be used: {reason}"
        ) from error
    return path
