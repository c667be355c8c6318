"""Encryption of the gRPC API: TF Serving's --ssl_config_file."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import grpc

from . import text_protos
from .errors import UsageError


def server_credentials(path: str) -> grpc.ServerCredentials:
    """The credentials that an SSLConfig in protobuf's text format describes; its key and certificates are texts in PEM.

    Raises:
        UsageError: if the file cannot be read, is not an SSLConfig, or its key and certificate do not belong together.
    """
    given_as = f"--ssl_config_file={path}"
    config: Any = text_protos.read(path, given_as, text_protos.message_class("SSLConfig", text_protos.SSL_CONFIG)())
    missing = [name for name in ("server_key", "server_cert") if not getattr(config, name)]
    if config.client_verify and not config.custom_ca:
        missing.append("custom_ca (client_verify needs it)")
    if missing:
        raise UsageError(f"{given_as}: expected texts in PEM, received no {', no '.join(missing)}")
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    credentials = grpc.ssl_server_credentials(pairs, config.custom_ca.encode() or None, config.client_verify)
    _check(credentials, given_as)
    return credentials


def _check(credentials, given_as):
    """gRPC looks at a key and a certificate only where a port is bound with them."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    try:
        bound = server.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError:
        bound = 0
    server.stop(None)
    if not bound:
        raise UsageError(f"{given_as}: gRPC does not accept server_key and server_cert; expected a private key and its "
                         "certificate in PEM, with \\n at the ends of lines")
